//! `keywright explain`: why, and with which version.

use keywright_client::{Client, Failure, FailureKind, proto::ExplainRequest};
use serde_json::json;

use crate::{
    args::Output,
    output::{self, print},
};

/// A word of ours among the reasons of the server: it answers with a text only.
const KEY_UNUSABLE: &str = "KEY_UNUSABLE";
/// What is done with a version that is given: it processes what that version made.
const PROCESS: [&str; 6] = [
    "decrypt",
    "reencrypt_from",
    "decrypt_data_key",
    "verify",
    "verify_mac",
    "asymmetric_decrypt",
];
/// What is done under the primary version.
const PROTECT: [&str; 7] = [
    "encrypt",
    "reencrypt_to",
    "rewrap",
    "generate_data_key",
    "lease_data_key",
    "sign",
    "mac",
];
/// Actions that are not about one key.
const OF_TENANT: [&str; 3] = ["create_key", "list_keys", "generate_random"];

/// Refuses what cannot be asked. An action we do not know is left to the server.
pub(crate) fn fits(action: &str, version: Option<u32>) -> Result<(), Failure> {
    let usage = |text: String| Err(Failure::new(FailureKind::Usage, text));
    if OF_TENANT.contains(&action) {
        return usage(format!(
            "{action} is not about one key, so there is nothing to explain with a key; see what the policies say with: keywright policy test DIR"
        ));
    }
    match version {
        Some(_) if PROTECT.contains(&action) => usage(format!(
            "{action} is done with the primary version, whatever --version says; leave it out. It is for {}",
            PROCESS.join(", ")
        )),
        Some(_) if !PROCESS.contains(&action) => usage(format!(
            "{action} uses no version; leave --version out. It is for {}",
            PROCESS.join(", ")
        )),
        _ => Ok(()),
    }
}

pub(crate) async fn run(
    client: &Client,
    request: ExplainRequest,
    output: Output,
) -> Result<(), Failure> {
    let (action, key) = (request.action.clone(), request.key.clone());
    let who = match request.principal.as_str() {
        "" => "you".to_owned(),
        other => other.to_owned(),
    };
    let e = client.keys().explain(request).await?.into_inner();
    if output == Output::Json {
        output::json(&json!({
            "allowed": e.allowed,
            "policies": e.policies,
            "policy_error": none_if_empty(&e.policy_error),
            "roles": e.roles,
            "key_version": (e.key_version != 0).then_some(e.key_version),
            "unusable": none_if_empty(&e.unusable),
        }))?;
    } else {
        let verdict = if e.allowed { "allowed" } else { "denied" };
        print(&format!("{action} of {key} by {who}: {verdict}\n"))?;
        print(&format!("roles     {}\n", listed(&e.roles)))?;
        let by = match (e.policies.is_empty(), e.allowed) {
            (true, _) => "no policy allows it".to_owned(),
            (false, _) => e.policies.join(", "),
        };
        print(&format!("policies  {by}\n"))?;
        if !e.policy_error.is_empty() {
            print(&format!("error     {}\n", e.policy_error))?;
        }
        if e.key_version != 0 {
            print(&format!("version   {}\n", e.key_version))?;
        }
        if !e.unusable.is_empty() {
            print(&format!("but       {}\n", e.unusable))?;
        }
    }
    if !e.allowed {
        // What the server would say to the action itself.
        return Err(Failure::new(FailureKind::Denied, "not allowed").because("PERMISSION_DENIED"));
    }
    match e.unusable.as_str() {
        "" => Ok(()),
        why => Err(Failure::new(FailureKind::State, why).because(KEY_UNUSABLE)),
    }
}

fn listed(roles: &[String]) -> String {
    if roles.is_empty() {
        "none".into()
    } else {
        roles.join(", ")
    }
}

fn none_if_empty(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_for_what_processes() {
        for action in PROCESS {
            assert!(fits(action, Some(1)).is_ok(), "{action}");
        }
        for action in PROTECT.iter().chain(&["rotate_key", "get_key"]) {
            assert!(fits(action, None).is_ok(), "{action}");
            let text = fits(action, Some(1)).unwrap_err().to_string();
            assert!(text.contains("leave"), "{text}");
        }
        for action in OF_TENANT {
            assert!(fits(action, None).is_err(), "{action}");
        }
        assert!(fits("what_comes_next_year", None).is_ok());
    }
}
