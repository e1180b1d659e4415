//! `keywright pki profile …`.

use keywright_client::{Client, Failure, Settings, proto};
use serde_json::{Value, json};

use super::files;
use crate::{
    args::{Output, pki::Profile},
    command::key::{table, time},
    output::{self, print},
};

pub(super) async fn run(
    settings: &Settings,
    command: Profile,
    output: Output,
) -> Result<(), Failure> {
    match command {
        Profile::Put { file } => {
            let text = files::text(&file)?;
            let client = Client::connect(settings).await?;
            list(&[client.put_profile(&text).await?], output)
        }
        Profile::Get { profile } => {
            let profile = Client::connect(settings).await?.profile(&profile).await?;
            match output {
                Output::Json => output::json(&facts(&profile)),
                Output::Table => print(&profile.text),
            }
        }
        Profile::List => list(&Client::connect(settings).await?.profiles().await?, output),
        Profile::Retire { name } => {
            let client = Client::connect(settings).await?;
            list(&[client.retire_profile(&name).await?], output)
        }
    }
}

fn list(profiles: &[proto::Profile], output: Output) -> Result<(), Failure> {
    if output == Output::Json {
        return output::json(&Value::Array(profiles.iter().map(facts).collect()));
    }
    let mut table = table(&[
        "name",
        "version",
        "SHA-256",
        "created",
        "created by",
        "retired",
    ]);
    for profile in profiles {
        table.add_row([
            profile.name.clone(),
            profile.version.to_string(),
            hex::encode(&profile.sha256),
            time(profile.created_unix_ms),
            profile.created_by.clone(),
            retired(profile).unwrap_or_else(|| "no".into()),
        ]);
    }
    print(&format!("{table}\n"))
}

fn retired(profile: &proto::Profile) -> Option<String> {
    Some(profile.retired_unix_ms)
        .filter(|ms| *ms != 0)
        .map(time)
}

fn facts(profile: &proto::Profile) -> Value {
    json!({
        "name": profile.name,
        "version": profile.version,
        "sha256": hex::encode(&profile.sha256),
        "created": time(profile.created_unix_ms),
        "created_by": profile.created_by,
        "retired": retired(profile),
        "text": profile.text,
    })
}
