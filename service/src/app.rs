//! The daemon put together: built once from the configuration, served until it is told
//! to stop, taken apart in order.

mod census;
mod lock;
mod open;
mod reload;
mod scout;
mod seals;
mod store;

use std::{future::pending, net::SocketAddr, sync::Arc, time::Duration};

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    task::JoinHandle,
    time::{interval, timeout},
};
use tracing::{error, info, warn};

pub use lock::DataLock;
pub use open::{Opened, open_hsm};
pub(crate) use open::{PATIENCE, initialised_store, log_has_records, open_log, the_same_token};
use reload::Reloader;
pub(crate) use seals::{Seen, TokenEpoch, begin as begin_seals, unwrapped as unwrap_seals};
pub(crate) use store::lost_store;
pub use store::{open_store, probe_store};

use crate::{
    api::{
        Tenants, TlsReloader, accept, acme as acme_door, admin, grpc, pki_routes, serve_http,
        supervisor,
    },
    audit::{Entry, Event},
    config::{AcmeConfig, AcmeTesting, Config, ConfigError},
    metrics,
    ops::{App, acme::Acme, job::work_on_kept, keep_rules, nodes, pki, save_last_use},
    validator::{self, Validator},
};

/// Release of this daemon.
pub const RELEASE: &str = env!("CARGO_PKG_VERSION");

/// Why the daemon does not start, or ended. The number is the exit code.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Configuration file.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Certificates, keys, policies, addresses named by it.
    #[error("{0}")]
    Setup(String),
    /// Module, token, PIN.
    #[error("{0}")]
    Hsm(#[from] keywright_hsm::Error),
    /// Data directory, store, audit log.
    #[error("{0}")]
    Data(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl StartError {
    /// 3 configuration, 4 what it names, 5 HSM, 6 data directory, 1 anything else.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) => 3,
            Self::Setup(_) => 4,
            Self::Hsm(_) => 5,
            Self::Data(_) => 6,
            Self::Other(_) => 1,
        }
    }
}

/// Where the daemon really listens.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    /// gRPC.
    pub grpc: SocketAddr,
    /// Metrics and health.
    pub admin: SocketAddr,
    /// CRLs and OCSP, if there is that door.
    pub pki: Option<SocketAddr>,
    /// ACME, if there is that door.
    pub acme: Option<SocketAddr>,
}

/// Runs the daemon until SIGTERM or SIGINT; SIGHUP reads certificates, policies and the
/// PIN again. `prepare` is done before anybody hears that it runs.
///
/// # Errors
/// Why it does not start.
pub async fn run(
    config: Config,
    prepare: impl AsyncFnOnce(&Arc<App>) -> Result<(), StartError>,
    ready: impl FnOnce(Addresses),
) -> Result<(), StartError> {
    let prometheus = install_metrics()?;
    let _lock = DataLock::take(&config.data_dir)?;
    let grpc_listener = bind(config.listen.grpc, "listen.grpc").await?;
    let admin_listener = bind(config.listen.admin, "listen.admin").await?;
    let pki_listener = bind_if(config.listen.pki, "listen.pki").await?;
    let acme_listener = bind_if(config.listen.acme, "listen.acme").await?;
    let tls = TlsReloader::new(&config).map_err(|e| StartError::Setup(e.to_string()))?;
    let Opened {
        app,
        tenants,
        epoch,
    } = open::open(&config).await?;
    prepare(&app).await?;

    let (stop, stopping) = watch::channel(false);
    let addresses = Addresses {
        grpc: local(&grpc_listener)?,
        admin: local(&admin_listener)?,
        pki: pki_listener.as_ref().map(local).transpose()?,
        acme: acme_listener.as_ref().map(local).transpose()?,
    };
    if let Some(listener) = pki_listener {
        let routes = pki_routes(&app, &tenants);
        let stop = stopped(stopping.clone());
        tokio::spawn(serve_http(listener, routes, app.limits, stop));
        info!(pki = ?addresses.pki, "CRLs and OCSP");
    }
    if let (Some(listener), Some(settings)) = (acme_listener, &config.acme) {
        let acme = open_acme(settings, &app, &tenants)?;
        let conns = acme_door::client_conns(listener, &tls, app.limits)
            .map_err(|e| StartError::Other(format!("ACME: {e}")))?;
        tokio::spawn(acme_door::serve(acme, conns, stopped(stopping.clone())));
        info!(acme = ?addresses.acme, url = settings.url, "ACME");
    }
    let tenants = Arc::new(tenants);
    tls.trust_issuers(Arc::clone(&app.authorities), Arc::clone(&tenants));
    let conns = accept(grpc_listener, tls.clone(), tenants, app.limits);
    let grpc = tokio::spawn(grpc::serve(
        Arc::clone(&app),
        conns,
        stopped(stopping.clone()),
    ));
    let http = admin(
        admin_listener,
        Arc::clone(&app),
        prometheus.clone(),
        stopped(stopping.clone()),
    );
    tokio::spawn(http);
    let member = tokio::spawn(nodes::keep_membership(Arc::clone(&app)));
    let house = keep_house(Arc::clone(&app), Arc::clone(&epoch), prometheus);
    let house = tokio::spawn(house);
    let lists = tokio::spawn(pki::publish_crls(Arc::clone(&app)));
    // Before anybody hears that it runs: a signal that comes at once must not kill it.
    let signals = Signals::listen()?;
    info!(grpc = %addresses.grpc, admin = %addresses.admin, release = RELEASE, "ready");
    ready(addresses);
    supervisor::ready();
    tokio::spawn(supervisor::keep_telling(Arc::clone(&app)));

    let reloader = Reloader::new(config, tls, Arc::clone(&app));
    wait_for_stop(&reloader, signals).await;
    let _ = stop.send(true);
    app.stay_no_longer();
    ended(grpc, Duration::from_millis(app.limits.shutdown_ms)).await;
    // A list that is half made is made anew after the next start.
    for task in [lists, member, house] {
        task.abort();
        let _ = task.await;
    }
    finish(&app, epoch.as_ref().as_ref()).await;
    Ok(())
}

/// Waits for the requests that are at work.
async fn ended<E: std::fmt::Display>(grpc: JoinHandle<Result<(), E>>, patience: Duration) {
    match timeout(patience, grpc).await {
        Ok(Ok(Ok(()))) => {}
        Ok(Ok(Err(e))) => error!(error = %e, "the gRPC server ended"),
        Ok(Err(e)) => error!(error = %e, "the gRPC server ended early"),
        Err(_) => warn!("some requests did not finish in time"),
    }
}

/// What stands behind the ACME door.
fn open_acme(
    settings: &AcmeConfig,
    app: &Arc<App>,
    tenants: &Tenants,
) -> Result<Arc<Acme>, StartError> {
    if settings.testing != AcmeTesting::default() {
        warn!("acme.testing is in the configuration: for tests of clients, not for production");
    }
    let validator = Validator::new(validator::Options {
        resolver: settings.resolver,
        http01_port: settings.testing.http01_port,
        tls_alpn01_port: settings.testing.tls_alpn01_port,
        patience: Duration::from_millis(app.limits.acme_validation_ms),
    });
    let ids = tenants.ids().map(|(name, id)| (name.to_owned(), id));
    let acme = Acme::new(
        Arc::clone(app),
        validator,
        ids.collect(),
        settings.url.clone(),
    );
    let acme = acme.map_err(|e| StartError::Other(format!("ACME: {e}")))?;
    Ok(Arc::new(
        acme.refuse_every(settings.testing.bad_nonce_every),
    ))
}

/// The last record, the anchor, the sessions.
async fn finish(app: &Arc<App>, epoch: Option<&TokenEpoch>) {
    if let Err(e) = app.audit.record(Entry::event(Event::Stopped)).await {
        error!(error = ?e, "the end could not be recorded");
    }
    save_last_use(app).await;
    if let Err(e) = app
        .store
        .set_anchor(app.audit.log(), app.audit.head())
        .await
    {
        error!(error = %e, "the audit anchor could not be stored");
    }
    if let Some(epoch) = epoch {
        epoch.keep(&app.hsm, app.store.as_ref()).await;
    }
    // Else the others wait for this node until its lease ends.
    app.membership.leaves();
    if let Err(e) = app.store.leave(app.membership.id()).await {
        warn!(error = %e, "the others could not be told that this node leaves");
    }
    if let Err(e) = app.store.close().await {
        error!(error = %e, "the store could not be closed; back up the -wal file with it");
    }
    let hsm = app.hsm.clone();
    let closed = tokio::task::spawn_blocking(move || hsm.close()).await;
    if closed.is_err() {
        error!("the HSM sessions could not be closed");
    }
    info!("stopped");
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> Result<Self, StartError> {
        let watch = |kind| signal(kind).map_err(|e| StartError::Other(format!("signals: {e}")));
        Ok(Self {
            terminate: watch(SignalKind::terminate())?,
            interrupt: watch(SignalKind::interrupt())?,
            hangup: watch(SignalKind::hangup())?,
        })
    }
}

async fn wait_for_stop(reloader: &Reloader, signals: Signals) {
    let Signals {
        mut terminate,
        mut interrupt,
        mut hangup,
    } = signals;
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => {
                supervisor::reloading();
                reloader.reload().await;
                supervisor::ready();
            }
        }
    }
    supervisor::stopping();
    info!("stopping");
}

async fn stopped(mut stopping: watch::Receiver<bool>) {
    if stopping.wait_for(|stop| *stop).await.is_err() {
        // The sender lives as long as the daemon.
        pending::<()>().await;
    }
}

/// Small things that need doing now and then.
async fn keep_house(app: Arc<App>, epoch: Arc<Option<TokenEpoch>>, prometheus: PrometheusHandle) {
    let mut tick = interval(Duration::from_secs(5));
    let mut anchored = app.audit.head();
    let mut ticks = 0u64;
    let (mut keeping, mut working) = (None, None);
    loop {
        tick.tick().await;
        // Nobody else empties the histograms when nobody scrapes.
        prometheus.run_upkeep();
        ticks += 1;
        if !app.audit.healthy() {
            // Nobody sends requests to a daemon that is not ready: it must find out by
            // itself that the disk has room again. While it has none this fails.
            let _ = app.audit.record(Entry::event(Event::AuditResumed)).await;
        }
        // In a task of its own, one round at a time: a slow token must not stop the house.
        if keeping.as_ref().is_none_or(JoinHandle::is_finished) {
            let app = Arc::clone(&app);
            keeping = Some(tokio::spawn(async move { keep_rules(&app).await }));
        }
        if working.as_ref().is_none_or(JoinHandle::is_finished) {
            let app = Arc::clone(&app);
            working = Some(tokio::spawn(async move { work_on_kept(&app).await }));
        }
        if ticks.is_multiple_of(2) {
            save_last_use(&app).await;
        }
        if ticks.is_multiple_of(120) {
            nodes::hear_uses(&app).await;
        }
        let head = app.audit.head();
        if head != anchored {
            match app.store.set_anchor(app.audit.log(), head).await {
                Ok(()) => anchored = head,
                Err(e) => error!(error = %e, "the audit anchor could not be stored"),
            }
        }
        if let Some(epoch) = epoch.as_ref() {
            epoch.keep(&app.hsm, app.store.as_ref()).await;
        }
    }
}

async fn bind(address: SocketAddr, field: &str) -> Result<TcpListener, StartError> {
    TcpListener::bind(address)
        .await
        .map_err(|e| StartError::Setup(format!("{field}: cannot listen on {address}: {e}")))
}

async fn bind_if(
    address: Option<SocketAddr>,
    field: &str,
) -> Result<Option<TcpListener>, StartError> {
    match address {
        Some(address) => Ok(Some(bind(address, field).await?)),
        None => Ok(None),
    }
}

fn local(listener: &TcpListener) -> Result<SocketAddr, StartError> {
    listener
        .local_addr()
        .map_err(|e| StartError::Other(e.to_string()))
}

/// Seconds: from a wrap in a soft token to a request that waits for a slow HSM.
const BUCKETS: [f64; 14] = [
    0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0,
];

fn install_metrics() -> Result<PrometheusHandle, StartError> {
    let other = |e: &dyn std::fmt::Display| StartError::Other(format!("metrics: {e}"));
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &BUCKETS)
        .map_err(|e| other(&e))?
        .install_recorder()
        .map_err(|e| other(&e))?;
    metrics::describe();
    Ok(handle)
}
