//! `keywright explain`: why, and with which version.

use keywright_client::{Client, Failure, FailureKind, proto::ExplainRequest};
use serde_json::json;

use crate::{
    args::Output,
    output::{self, print},
};

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
        return Err(Failure::new(FailureKind::Denied, "not allowed"));
    }
    match e.unusable.as_str() {
        "" => Ok(()),
        why => Err(Failure::new(FailureKind::State, why)),
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
