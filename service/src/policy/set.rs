//! Policies as text: parsed, named, and validated strictly against the schema before
//! anybody is asked.

use std::{
    collections::BTreeMap,
    fmt::{self, Write},
    path::PathBuf,
    str::FromStr,
};

use cedar_policy::{Policy, PolicyId, PolicySet, Schema, ValidationMode, Validator};
use miette::{
    Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode,
};
use serde::Serialize;

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
    /// The schema that is compiled in: our fault.
    #[error("the schema: {0}")]
    Schema(String),
    /// Cedar, but not about our schema.
    #[error("the policies do not fit the schema:\n{}", misfits.iter().map(|m| m.report.as_str()).collect::<Vec<_>>().join("\n"))]
    Misfit {
        /// What does not fit, each once, in the order of the file.
        misfits: Vec<Misfit>,
    },
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

/// What is wrong with one policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit {
    finding: Finding,
    /// Cedar's report with the place marked.
    report: String,
}

/// What is wrong, and where, for tools; what is not known is absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Which line of it, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// Id of the policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// A sentence for people.
    pub message: String,
}

impl PolicyError {
    /// All that is wrong; never nothing.
    #[must_use]
    pub fn findings(&self) -> Vec<Finding> {
        let one = |file: Option<&str>, line, policy: Option<&str>| {
            vec![Finding {
                file: file.map(str::to_owned),
                line,
                policy: policy.map(str::to_owned),
                message: self.to_string(),
            }]
        };
        match self {
            Self::Misfit { misfits } => misfits.iter().map(|m| m.finding.clone()).collect(),
            Self::Io { path, .. } | Self::Roles { path, .. } => {
                one(Some(&path.display().to_string()), None, None)
            }
            Self::Syntax { file, .. } | Self::Trial { file, .. } => one(Some(file), None, None),
            Self::Duplicate { file, id } => one(Some(file), None, Some(id)),
            Self::UnknownRole { file, line, .. } => one(Some(file), Some(*line), None),
            Self::UnusedRole(_) | Self::Schema(_) => one(None, None, None),
        }
    }
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
        let at = text.find(&template.to_string());
        let message = "policy templates are not used; name the principal and the resource";
        let finding = Finding {
            file: Some(file.to_owned()),
            line: at.map(|at| line(text, at)),
            policy: None,
            message: message.to_owned(),
        };
        return Err(PolicyError::Misfit {
            misfits: vec![Misfit {
                report: format!("{file}: {message}: {template}"),
                finding,
            }],
        });
    }
    let duplicate = |id: &PolicyId| PolicyError::Duplicate {
        file: file.to_owned(),
        id: id.to_string(),
    };
    let mut named = PolicySet::new();
    for (id, policy) in named_policies(&parsed, file, text) {
        named
            .add(policy.new_id(id.clone()))
            .map_err(|_| duplicate(&id))?;
    }
    validate(&named, schema, file, text)?;
    for policy in named.policies() {
        policies
            .add(policy.clone())
            .map_err(|_| duplicate(policy.id()))?;
    }
    Ok(())
}

/// The policies of a file in its order, each with its `@id`, or else with the place where
/// it begins: `file:line`. Cedar calls them policy0, policy1, and so on.
fn named_policies<'a>(
    parsed: &'a PolicySet,
    file: &str,
    text: &str,
) -> Vec<(PolicyId, &'a Policy)> {
    let number = |p: &Policy| -> Option<usize> {
        let id: &str = p.id().as_ref();
        id.strip_prefix("policy")?.parse().ok()
    };
    let mut policies: Vec<&Policy> = parsed.policies().collect();
    policies.sort_by_key(|p| number(p));
    let (mut from, mut last) = (0, 0);
    let name = |policy: &'a Policy| {
        // Its own words, after those of the policies before it.
        let words = policy.to_string();
        let rest = text.get(from..).unwrap_or_default();
        let at = from + rest.find(&words).unwrap_or(0);
        from = at + words.len();
        let here = line(text, at);
        let place = match std::mem::replace(&mut last, here) == here {
            false => format!("{file}:{here}"),
            // A second one on the same line.
            true => format!("{file}:{here}:{}", column(text, at)),
        };
        let id = policy.annotation("id").map_or(place, str::to_owned);
        (PolicyId::new(id), policy)
    };
    policies.into_iter().map(name).collect()
}

/// Number of the line that has the byte at this offset, from 1.
fn line(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|b| *b == b'\n').count()
}

/// The byte on its line, from 1.
fn column(text: &str, offset: usize) -> usize {
    let before = text.get(..offset).unwrap_or_default();
    before.rfind('\n').map_or(offset + 1, |at| offset - at)
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
    let mut misfits: Vec<Misfit> = Vec::new();
    for error in result.validation_errors() {
        let place = error.labels().and_then(|mut labels| labels.next());
        let found = Misfit {
            finding: Finding {
                file: Some(file.to_owned()),
                line: place.map(|place| line(text, place.offset())),
                policy: Some(error.policy_id().to_string()),
                message: error.to_string(),
            },
            report: report(error.clone(), file, text),
        };
        // Cedar says it again for each action the policy could be about.
        if !misfits.contains(&found) {
            misfits.push(found);
        }
    }
    if misfits.is_empty() && result.validation_passed() {
        return Ok(());
    }
    misfits.sort_by_key(|m| m.finding.line);
    Err(PolicyError::Misfit { misfits })
}

/// Roles of the default policies: they may stand in policies without having members.
const DEFAULT_ROLE_NAMES: [&str; 8] = [
    "pki-user",
    "pki-admin",
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
