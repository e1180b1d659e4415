//! An appliance on a fresh SoftHSM2 token, an echo beside it and a token without Keywright,
//! all of them here and gone when it is done.

use std::{path::Path, process::Command, rc::Rc, time::Duration};

use anyhow::{Context, Result, anyhow};
use keywright_benches::{
    Server,
    raw::{self, RawToken, Work},
};
use keywright_client::{
    Client, Failure, Settings,
    proto::{CreateKeyRequest, KeyRules, KeySpec, UpdateKeyRequest},
};

use crate::{
    args::Compare,
    measure::{self, Row, Side},
    plan::Op,
};

const KEY: &str = "bench/key";

pub(crate) fn run(asked: &Compare) -> Result<Vec<Row>> {
    let this = std::env::current_exe()?;
    let daemon = match &asked.daemon {
        Some(daemon) => daemon.clone(),
        None => this.with_file_name("keywrightd"),
    };
    if !daemon.is_file() {
        let shown = daemon.display();
        return Err(anyhow!(
            "{shown} is not there; run: make release, or say --daemon FILE"
        ));
    }
    let dir = tempfile::tempdir()?;
    let appliance = Server::start(
        Command::new(&daemon)
            .args(["dev", "--listen", "127.0.0.1:0", "--data"])
            .arg(dir.path())
            .env("KEYWRIGHT_LOG", "warn"),
    )
    .with_context(|| daemon.display().to_string())?;
    let mut echo = Command::new(&this);
    echo.args(["echo", "--config"])
        .arg(dir.path().join("keywrightd.toml"));
    let echo = Rc::new(Server::start(&mut echo).context("the echo")?);
    let settings = |server: &Server| settings(dir.path(), server);
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(create(&settings(&appliance), asked))?;

    let cpu = Rc::clone(&echo);
    let theirs = Side {
        settings: settings(&echo),
        key: KEY.into(),
        metrics: None,
        cpu_seconds: Some(Box::new(move || cpu.cpu_seconds())),
        echo: true,
    };
    let ours = Side {
        settings: settings(&appliance),
        key: KEY.into(),
        metrics: appliance.metrics.clone(),
        cpu_seconds: None,
        echo: false,
    };
    let mut token = RawToken::start(dir.path(), Path::new(raw::SOFTHSM2));
    let mut alone = |op: Op, window: Duration| {
        let work = match op {
            // A wrap and an unwrap cost the same.
            Op::Encrypt | Op::Decrypt => Work::Mint,
            Op::Rewrap => Work::Rewrap,
            Op::Sign => Work::Sign,
            Op::Mac => Work::Mac,
        };
        Some(1e6 / token.per_second(work, window))
    };
    // What the others cost is nearly all the token's.
    let echoes = matches!(asked.asked.op, Op::Encrypt | Op::Decrypt);
    let theirs = echoes.then_some(&theirs);
    let dek = asked.lease_seconds.map_or("per batch", |_| "lease");
    measure::rows(&asked.asked, dek, &ours, theirs, &mut alone)
}

fn settings(dir: &Path, server: &Server) -> Settings {
    Settings {
        addr: Some(server.addr.to_string()),
        ca: Some(dir.join("ca.pem")),
        cert: Some(dir.join("certs/developer.pem")),
        key: Some(dir.join("certs/developer.key")),
    }
}

/// The key that everything is asked of.
async fn create(settings: &Settings, asked: &Compare) -> Result<()> {
    let client = Client::connect(settings).await?;
    let spec = match asked.asked.op {
        Op::Encrypt | Op::Decrypt | Op::Rewrap => KeySpec::Aes256,
        Op::Sign => KeySpec::EcP256,
        Op::Mac => KeySpec::HmacSha256,
    };
    let create = CreateKeyRequest {
        name: KEY.into(),
        spec: spec.into(),
        ..Default::default()
    };
    let created = client.keys().create_key(create).await;
    created.map_err(Failure::from)?;
    let Some(lease_seconds) = asked.lease_seconds else {
        return Ok(());
    };
    let lend = UpdateKeyRequest {
        name: KEY.into(),
        rules: Some(KeyRules {
            lease_seconds,
            ..Default::default()
        }),
        ..Default::default()
    };
    let lent = client.keys().update_key(lend).await;
    lent.map_err(Failure::from)?;
    Ok(())
}
