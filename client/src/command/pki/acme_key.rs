//! `keywright pki acme-key …`.

use std::io::Write;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use keywright_client::{Client, Failure, Settings};
use serde_json::json;

use crate::{
    args::{Output, pki::AcmeKey},
    output::Sink,
};

pub(super) async fn run(
    settings: &Settings,
    command: AcmeKey,
    output: Output,
) -> Result<(), Failure> {
    let AcmeKey::Create {
        identity,
        profiles,
        output_file,
    } = command;
    // A key that cannot be written down must not be made.
    let mut sink = Sink::open(output_file.as_deref(), true)?;
    let client = Client::connect(settings).await?;
    let key = client.create_acme_key(&identity, &profiles).await?;
    // Both certbot and lego take the key in base64url without padding (RFC 4648 §5).
    let hmac_key = BASE64_URL_SAFE_NO_PAD.encode(&key.hmac_key);
    let text = match output {
        Output::Json => format!("{}\n", json!({"kid": key.kid, "hmac_key": hmac_key})),
        // As certbot reads it from its cli.ini.
        Output::Table => format!("eab-kid = {}\neab-hmac-key = {hmac_key}\n", key.kid),
    };
    sink.write_all(text.as_bytes())
        .map_err(|e| Failure::io("the key", &e))?;
    sink.finish()
}
