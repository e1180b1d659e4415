//! `dev`: everything for a laptop, in one process.

use std::{
    ffi::OsString,
    net::SocketAddr,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
};

use keywright_service::{
    app::{self, StartError},
    dev::{self, Dev},
};

use crate::block_on;

pub(crate) fn develop(
    data: &Path,
    listen: Option<SocketAddr>,
    module: Option<PathBuf>,
    store_postgres: Option<&str>,
) -> Result<(), StartError> {
    let dev = Dev::new(data)?;
    let conf = dev.softhsm_conf()?;
    become_with_softhsm_conf(conf.into_os_string())?;
    block_on(async {
        let mut config = dev.prepare(module, store_postgres).await?;
        if let Some(listen) = listen {
            config.listen.grpc = listen;
        }
        app::run(
            config,
            async |app| dev::authorities(app).await,
            |addresses| {
                if let Err(e) = dev.write_client_env(&addresses) {
                    tracing::error!(error = %e, "client.env");
                }
                anstream::print!("{}", dev.summary(&addresses));
                anstream::println!("ready on {}", addresses.grpc);
            },
        )
        .await
    })
}

/// SoftHSM2 reads its environment when it is loaded, and setting a variable of a running
/// process is not safe: start over with it set.
fn become_with_softhsm_conf(conf: OsString) -> Result<(), StartError> {
    const NAME: &str = "SOFTHSM2_CONF";
    #[expect(
        clippy::disallowed_methods,
        reason = "to see whether it is set already"
    )]
    if std::env::var_os(NAME).as_ref() == Some(&conf) {
        return Ok(());
    }
    let this = std::env::current_exe().map_err(|e| StartError::Other(e.to_string()))?;
    let e = Command::new(this)
        .args(std::env::args_os().skip(1))
        .env(NAME, conf)
        .exec();
    Err(StartError::Other(format!("cannot start over: {e}")))
}
