//! Tests of policies, written beside them: `tests/*.toml` in the policies directory. Each
//! says who would do what to which key, and what must come of it. Nothing else is needed:
//! no daemon, no HSM, no store.

use std::{collections::BTreeMap, fs, path::Path};

use keywright_pki::SpiffeId;
use serde::{Deserialize, Serialize};

use super::{
    About, Action, Asking, Caller, Engine, PolicyError,
    request::{Resource, Seen, SeenProfile},
};
use crate::{
    envelope::Context,
    key::{KeyName, KeySpec, KeyUse, Labels, TenantId},
};

/// What came of one test.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// The file it stands in.
    pub file: String,
    /// Its name.
    pub name: String,
    /// Why it failed; none: it passed.
    pub failure: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    test: Vec<Trial>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Trial {
    name: String,
    /// SPIFFE id.
    caller: String,
    /// Name of the caller's tenant.
    #[serde(default = "default_tenant")]
    tenant: String,
    /// As in policies.
    action: String,
    /// For actions on a key.
    key: Option<TrialKey>,
    /// For actions under a profile: its name.
    profile: Option<String>,
    #[serde(default)]
    context: BTreeMap<String, String>,
    /// RFC 3339.
    #[serde(default = "default_now")]
    now: String,
    expect: Expect,
    /// The policies that must have decided, all of them.
    policies: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TrialKey {
    name: String,
    #[serde(default = "default_spec")]
    spec: String,
    #[serde(rename = "use")]
    key_use: Option<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    /// None: the caller's.
    tenant: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Expect {
    Allow,
    Deny,
}

fn default_tenant() -> String {
    "tenant".into()
}

fn default_now() -> String {
    "2026-01-01T12:00:00Z".into()
}

fn default_spec() -> String {
    KeySpec::Aes256.name().into()
}

/// Runs every test of a policies directory, in the order of the files.
///
/// # Errors
/// Policies that are not valid, and test files that cannot be read.
pub fn run(dir: &Path) -> Result<Vec<Outcome>, PolicyError> {
    let engine = Engine::read(dir)?;
    let folder = dir.join("tests");
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| PolicyError::Io { path, source }
    };
    let mut files = Vec::new();
    for entry in fs::read_dir(&folder).map_err(io(&folder))? {
        let path = entry.map_err(io(&folder))?.path();
        if path.extension().is_some_and(|e| e == "toml") {
            files.push(path);
        }
    }
    files.sort();
    let mut outcomes = Vec::new();
    for path in files {
        let text = fs::read_to_string(&path).map_err(io(&path))?;
        let file = path.display().to_string();
        outcomes.extend(run_text(&engine, &file, &text)?);
    }
    Ok(outcomes)
}

fn run_text(engine: &Engine, file: &str, text: &str) -> Result<Vec<Outcome>, PolicyError> {
    let wrong = |why: String| PolicyError::Trial {
        file: file.to_owned(),
        why,
    };
    let parsed: File = toml::from_str(text).map_err(|e| wrong(e.to_string()))?;
    let one = |trial: Trial| {
        let failure = run_one(engine, &trial)
            .map_err(|why| wrong(format!("test {:?}: {why}", trial.name)))?;
        Ok(Outcome {
            file: file.to_owned(),
            name: trial.name,
            failure,
        })
    };
    parsed.test.into_iter().map(one).collect()
}

/// Why the test failed; the error is for a test that makes no sense.
fn run_one(engine: &Engine, trial: &Trial) -> Result<Option<String>, String> {
    let action = Action::parse(&trial.action)
        .ok_or_else(|| format!("action: there is no {:?}", trial.action))?;
    fits(action, trial)?;
    let id = SpiffeId::parse(&trial.caller).map_err(|e| format!("caller: the SPIFFE id {e}"))?;
    let caller = Caller {
        id,
        tenant: tenant_id(&trial.tenant),
        tenant_name: trial.tenant.as_str().into(),
        certificate: [0; 32],
        spki: [0; 32],
    };
    let now: jiff::Timestamp = trial.now.parse().map_err(|e| format!("now: {e}"))?;
    let context = Context::new(&trial.context).map_err(|e| e.to_string())?;
    let asking = Asking {
        caller: &caller,
        now_ms: now.as_millisecond(),
        context: Some(&context),
    };
    let verdict = match (&trial.key, &trial.profile) {
        (None, None) => engine.judge(&asking, action, &Resource::Tenant),
        (None, Some(name)) => {
            let tenant = tenant_id(&trial.tenant);
            let seen = SeenProfile { tenant, name };
            engine.judge(&asking, action, &Resource::Profile(&seen))
        }
        (Some(key), _) => {
            let name = KeyName::parse(&key.name).map_err(|e| format!("key.name: {e}"))?;
            let labels = Labels::new(key.labels.clone()).map_err(|e| format!("key.labels: {e}"))?;
            let seen = Seen {
                uid: "under test".into(),
                tenant: tenant_id(key.tenant.as_ref().unwrap_or(&trial.tenant)),
                name: name.as_str(),
                spec: spec(key)?,
                labels: &labels,
            };
            engine.judge(&asking, action, &Resource::Key(&seen))
        }
    };
    // Nobody decided: neither an allow nor the deny that a test may expect.
    if let Some(e) = verdict.error() {
        return Ok(Some(format!(
            "a policy failed, which denies everybody: {e}"
        )));
    }
    let came = if verdict.allowed() {
        Expect::Allow
    } else {
        Expect::Deny
    };
    let by = match verdict.policies() {
        [] => "no policy allows it".to_owned(),
        ids => format!("decided by {}", ids.join(", ")),
    };
    if came != trial.expect {
        let said = if verdict.allowed() {
            "allowed"
        } else {
            "denied"
        };
        return Ok(Some(format!("{said}; {by}")));
    }
    match &trial.policies {
        Some(wanted) if !same(wanted, verdict.policies()) => {
            Ok(Some(format!("{by}, not by {}", wanted.join(", "))))
        }
        _ => Ok(None),
    }
}

/// A question that could never be asked is denied for that alone, and proves nothing.
fn fits(action: Action, trial: &Trial) -> Result<(), String> {
    let name = action.name();
    let about = action.about();
    match (&trial.key, &trial.profile) {
        (None, _) if about == About::Key => Err(format!(
            "{name} is about a key; say which: key = {{ name = \"...\" }}"
        )),
        (_, None) if about == About::Profile => Err(format!(
            "{name} is about a profile; say which: profile = \"...\""
        )),
        (Some(_), _) if about != About::Key => {
            Err(format!("{name} is about no key; leave key out"))
        }
        (_, Some(_)) if about != About::Profile => {
            Err(format!("{name} is about no profile; leave profile out"))
        }
        _ => Ok(()),
    }
}

fn same(wanted: &[String], got: &[String]) -> bool {
    let mut wanted: Vec<&String> = wanted.iter().collect();
    wanted.sort();
    wanted.into_iter().eq(got)
}

fn spec(key: &TrialKey) -> Result<KeySpec, String> {
    let key_use = match &key.key_use {
        None => None,
        Some(text) => {
            Some(KeyUse::parse(text).ok_or_else(|| format!("key.use: there is no {text:?}"))?)
        }
    };
    KeySpec::parse(&key.spec, key_use)
        .ok_or_else(|| format!("key.spec: there is no {:?}", key.spec))
}

/// Other names, other tenants; what the id is does not matter here.
fn tenant_id(name: &str) -> TenantId {
    use sha2::{Digest, Sha256};
    let digest: [u8; 32] = Sha256::digest(name).into();
    let mut id = [0; 16];
    id.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
    TenantId(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{DEFAULT_ROLES, Roles};

    fn engine() -> Engine {
        let roles = "[roles]\nkey-user = [\"spiffe://a/user\"]";
        // Passes strict validation and overflows when it is evaluated.
        let boom = "@id(\"boom\") forbid (principal, action == Action::\"sign\", resource is Key)
            when { 9223372036854775807 + 1 == 0 };";
        let files = BTreeMap::from([
            ("roles.cedar".to_owned(), DEFAULT_ROLES.to_owned()),
            ("boom.cedar".to_owned(), boom.to_owned()),
        ]);
        Engine::new(&files, roles, Roles::parse(roles).unwrap()).unwrap()
    }

    fn one(extra: &str) -> Result<Option<String>, String> {
        let text = format!("[[test]]\nname = \"t\"\ncaller = \"spiffe://a/user\"\n{extra}");
        run_text(&engine(), "t.toml", &text)
            .map(|o| o.into_iter().next().unwrap().failure)
            .map_err(|e| e.to_string())
    }

    #[test]
    fn a_test_passes_or_says_what_came() {
        let key = "key = { name = \"a/b\" }";
        assert_eq!(
            one(&format!("action = \"encrypt\"\n{key}\nexpect = \"allow\"")),
            Ok(None)
        );
        assert_eq!(
            one("action = \"generate_random\"\nexpect = \"allow\""),
            Ok(None)
        );
        assert_eq!(
            one(&format!("action = \"encrypt\"\n{key}\nexpect = \"deny\"")),
            Ok(Some("allowed; decided by key-user".into()))
        );
        assert_eq!(
            one(&format!(
                "action = \"rotate_key\"\n{key}\nexpect = \"allow\""
            )),
            Ok(Some("denied; no policy allows it".into()))
        );
        let by = format!("action = \"encrypt\"\n{key}\nexpect = \"allow\"\npolicies = [\"x\"]");
        assert_eq!(one(&by), Ok(Some("decided by key-user, not by x".into())));
        let issue = "action = \"issue_certificate\"\nprofile = \"p\"\nexpect = \"allow\"";
        assert_eq!(one(issue), Ok(Some("denied; no policy allows it".into())));
        // The wall between tenants stands here too.
        let other =
            "action = \"encrypt\"\nkey = { name = \"a\", tenant = \"b\" }\nexpect = \"deny\"";
        assert_eq!(one(other), Ok(None));
    }

    #[test]
    fn a_deny_that_is_expected_is_the_policies_own() {
        let asked = |action: &str| {
            one(&format!(
                "action = \"{action}\"\nkey = {{ name = \"a\" }}\nexpect = \"deny\""
            ))
        };
        assert_eq!(asked("rotate_key"), Ok(None));
        let failed = asked("sign").unwrap().unwrap();
        assert!(failed.contains("boom"), "{failed}");
    }

    #[test]
    fn a_test_that_makes_no_sense_is_an_error() {
        for (text, word) in [
            (
                "action = \"decrypt\"\nexpect = \"deny\"",
                "decrypt is about a key",
            ),
            (
                "action = \"list_keys\"\nexpect = \"deny\"\nkey = { name = \"a\" }",
                "leave key out",
            ),
            (
                "action = \"issue_certificate\"\nexpect = \"deny\"",
                "is about a profile",
            ),
            (
                "action = \"encrypt\"\nkey = { name = \"a\" }\nprofile = \"p\"\nexpect = \"deny\"",
                "leave profile out",
            ),
            ("action = \"fly\"\nexpect = \"deny\"", "fly"),
            ("action = \"encrypt\"\nexpect = \"maybe\"", "maybe"),
            (
                "action = \"encrypt\"\nexpect = \"deny\"\ncolour = 1",
                "colour",
            ),
            (
                "action = \"encrypt\"\nexpect = \"deny\"\nkey = { name = \"A\" }",
                "key.name",
            ),
            (
                "action = \"encrypt\"\nexpect = \"deny\"\nkey = { name = \"a\", spec = \"des\" }",
                "des",
            ),
            (
                "action = \"list_keys\"\nexpect = \"deny\"\nnow = \"noon\"",
                "now",
            ),
        ] {
            let e = one(text).unwrap_err();
            assert!(e.contains("t.toml") && e.contains(word), "{e}");
        }
    }
}
