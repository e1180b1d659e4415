//! Policies as text: parsed, named, and validated strictly against the schema before
//! anybody is asked.

use std::{
    collections::BTreeMap,
    fmt::{self, Write},
    path::PathBuf,
    str::FromStr,
};

use cedar_policy::{PolicyId, PolicySet, Schema, ValidationMode, Validator};
use miette::{
    Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode,
};

use super::{Roles, RolesError};

/// The schema, compiled in.
pub const SCHEMA: &str = include_str!("../../policies/keywright.cedarschema");
/// Forbids that are always in force.
pub const BUILTIN: &str = include_str!("../../policies/builtin.cedar");
/// Default policies, written by `init` for the operator to edit.
pub const DEFAULT_ROLES: &str = include_str!("../../policies/roles.cedar");
/// The policy of `dev`.
pub const DEV: &str = include_str!("../../policies/dev.cedar");

/// Why policies are refused.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The directory or a file cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not Cedar; the text marks the place.
    #[error("{file} is not a valid policy file:\n{report}")]
    Syntax {
        /// Which file.
        file: String,
        /// Cedar's report with the place marked.
        report: String,
    },
    /// Cedar, but not about our schema.
    #[error("the policies do not fit the schema:\n{0}")]
    Schema(String),
    /// Two policies with one id.
    #[error("{file}: a policy with id {id:?} exists already")]
    Duplicate {
        /// Which file.
        file: String,
        /// Which id.
        id: String,
    },
    /// A file of tests that cannot be run.
    #[error("{file}: {why}")]
    Trial {
        /// Which file.
        file: String,
        /// What is wrong.
        why: String,
    },
    /// Nobody has it.
    #[error(
        "{file}:{line}: there is no role {role:?} in roles.toml; correct its name, or add {role} = [] there"
    )]
    UnknownRole {
        /// Which file.
        file: String,
        /// Which line, from 1.
        line: usize,
        /// Which role.
        role: String,
    },
    /// Nobody would get anything from it.
    #[error(
        "roles.toml: no policy names the role {0:?}; correct its name, or write a policy for it"
    )]
    UnusedRole(String),
    /// `roles.toml`.
    #[error("{}: {source}", path.display())]
    Roles {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        source: RolesError,
    },
}

/// The schema, parsed.
pub(super) fn schema() -> Result<Schema, PolicyError> {
    Schema::from_cedarschema_str(SCHEMA)
        .map(|(schema, _)| schema)
        .map_err(|e| PolicyError::Schema(e.to_string()))
}

/// Adds the policies of one file: parsed, named, validated.
pub(super) fn add(
    policies: &mut PolicySet,
    schema: &Schema,
    file: &str,
    text: &str,
) -> Result<(), PolicyError> {
    let parsed = PolicySet::from_str(text).map_err(|e| PolicyError::Syntax {
        file: file.to_owned(),
        report: report(e, file, text),
    })?;
    if let Some(template) = parsed.templates().next() {
        return Err(PolicyError::Schema(format!(
            "{file}: policy templates are not used: {template}"
        )));
    }
    validate(&parsed, schema, file, text)?;
    for policy in parsed.policies() {
        let id = policy
            .annotation("id")
            .map_or_else(|| format!("{file}:{}", policy.id()), str::to_owned);
        policies
            .add(policy.new_id(PolicyId::new(&id)))
            .map_err(|_| PolicyError::Duplicate {
                file: file.to_owned(),
                id,
            })?;
    }
    Ok(())
}

/// Strict: a policy that could meet an attribute it has no type for is refused now,
/// not when it matters.
fn validate(
    policies: &PolicySet,
    schema: &Schema,
    file: &str,
    text: &str,
) -> Result<(), PolicyError> {
    let result = Validator::new(schema.clone()).validate(policies, ValidationMode::Strict);
    if result.validation_passed() {
        return Ok(());
    }
    let errors: Vec<String> = result
        .validation_errors()
        .map(|e| report(e.clone(), file, text))
        .collect();
    Err(PolicyError::Schema(errors.join("\n")))
}

/// Roles of the default policies: they may stand in policies without having members.
const DEFAULT_ROLE_NAMES: [&str; 6] = [
    "key-user",
    "key-admin",
    "rewrapper",
    "auditor",
    "node-operator",
    "developer",
];

/// A role in a policy that `roles.toml` does not have is most likely misspelt, and a
/// forbid about it forbids nobody anything.
pub(super) fn named_roles_are_known(
    roles: &Roles,
    files: &BTreeMap<String, String>,
) -> Result<(), PolicyError> {
    for (file, text) in files {
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or(line);
            for rest in code.split("Role::\"").skip(1) {
                let role = rest.split('"').next().unwrap_or(rest);
                let known = DEFAULT_ROLE_NAMES.contains(&role) || roles.names().any(|r| r == role);
                if !known {
                    return Err(PolicyError::UnknownRole {
                        file: file.clone(),
                        line: number + 1,
                        role: role.to_owned(),
                    });
                }
            }
        }
    }
    Ok(())
}

/// A role that no policy names gives nobody anything: most likely it is misspelt, and
/// everybody in it would lose their rights at the next reload.
pub(super) fn roles_are_used(
    roles: &Roles,
    files: &BTreeMap<String, String>,
) -> Result<(), PolicyError> {
    let named = |role: &str| {
        let name = format!("Role::\"{role}\"");
        BUILTIN.contains(&name) || files.values().any(|text| text.contains(&name))
    };
    match roles.names().find(|role| !named(role)) {
        None => Ok(()),
        Some(role) => Err(PolicyError::UnusedRole(role.to_owned())),
    }
}

/// An error of Cedar in a file of ours: its own source has no name.
#[derive(Debug)]
struct Placed<E> {
    error: E,
    source: NamedSource<String>,
}

impl<E: fmt::Display> fmt::Display for Placed<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl<E: std::error::Error> std::error::Error for Placed<E> {}

impl<E: Diagnostic> Diagnostic for Placed<E> {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.error.help()
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        self.error.labels()
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&self.source)
    }
}

/// The error with its place in the source marked.
fn report(error: impl Diagnostic + Send + Sync + 'static, file: &str, text: &str) -> String {
    let placed = Placed {
        error,
        source: NamedSource::new(file, text.to_owned()),
    };
    let mut out = String::new();
    let handler = GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor());
    match handler.render_report(&mut out, &placed) {
        Ok(()) => out,
        Err(_) => {
            let _ = write!(out, "{placed}");
            out
        }
    }
}
