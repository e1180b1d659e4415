//! How nodes agree: twice a second each reads whether anything is new, takes it in, and
//! renews its lease with the acknowledgement then. Who cannot read does not renew: nobody
//! waits long for a node that cannot follow.
//!
//! Asking so often meets "within a second" without notifications, which can get lost, and
//! which not every database that speaks like PostgreSQL has. It is one small change of one
//! row of one's own.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tracing::{error, info, warn};

use super::App;
use crate::{
    clock::since_boot,
    error::{Error, Result},
    key::Key,
    membership::LEASE,
    store::{self, StoreError},
};

/// How often a lease is renewed.
const BEAT: Duration = Duration::from_millis(500);
/// Whoever waits longer for one statement of a lease asks anew, over another connection.
const PATIENCE: Duration = Duration::from_millis(1_500);
/// A change waits so long for the other nodes, and asks so often.
const HEARD: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(50);

/// Keeps this node a member for as long as it runs. The only node there is has nothing to
/// do here.
pub async fn keep_membership(app: Arc<App>) {
    if !app.store.is_shared() {
        return;
    }
    let mut tick = interval(BEAT);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut served = true;
    loop {
        tick.tick().await;
        // All of this may have stood still.
        tell(&app, &mut served);
        if let Err(e) = beat(&app).await {
            warn!(error = ?e, "the lease of this node could not be renewed");
        }
        tell(&app, &mut served);
    }
}

/// Says when that has changed.
fn tell(app: &App, served: &mut bool) {
    let serves = app.membership.serves();
    match (*served, serves) {
        (true, false) => error!(
            "this node has lost touch with the others and does not serve until it has it again; see to the database and the way to it, or to why this node stood still"
        ),
        (false, true) => info!("this node serves again"),
        _ => {}
    }
    *served = serves;
}

/// Takes in what is new, and renews the lease or takes a new one.
///
/// # Errors
/// Store.
pub async fn beat(app: &App) -> Result<()> {
    if followed(app).await? {
        return Ok(());
    }
    match join(app).await? {
        None => Ok(()),
        Some(twin) => Err(Error::internal(is_twin(&twin))),
    }
}

/// Takes a lease, reads what changed meanwhile, and serves then. In between nothing is
/// promoted: the lease says that this node knows nothing. Another node with the same audit
/// log is named, and nothing is done.
///
/// # Errors
/// Store.
pub async fn join(app: &App) -> Result<Option<String>> {
    let me = &app.membership;
    let joined = app.store.join(me.id(), me.name(), app.audit.log(), LEASE);
    let twin = soon(app, joined).await?;
    if twin.is_none() {
        followed(app).await?;
    }
    Ok(twin)
}

/// What is wrong, and who must act.
#[must_use]
pub fn is_twin(name: &str) -> String {
    format!(
        "node {name} writes under the id of this node's audit log: one data directory is a copy of the other. Stop one of them; a new node gets an empty directory and keywrightd init --join"
    )
}

/// Reads what is new, serves by it, and says so with a longer lease. False: there is no
/// lease any more.
async fn followed(app: &App) -> Result<bool> {
    let me = &app.membership;
    // What counts is how old that may be which it serves by.
    let began = since_boot();
    let epoch = soon(app, app.store.epoch()).await?;
    let known = me.known();
    if epoch < known.epoch {
        return Err(StoreError::Older(epoch, known.epoch).into());
    }
    if epoch > known.epoch {
        let news = app.store.news(known).await?;
        app.keyring.adopt(&news.keys);
        if let Some(authorities) = news.authorities {
            app.authorities.adopt(authorities)?;
        }
        for name in &news.revoked {
            app.authorities.revoked(name);
            app.authorities.crl_is_due(name.issuer);
        }
        me.knows(news.known);
    }
    let renewed = soon(app, app.store.renew(me.id(), me.known(), LEASE)).await?;
    if renewed {
        me.renewed(began);
    }
    Ok(renewed)
}

/// Whoever gets no answer takes other connections: these may hang until TCP gives up.
async fn soon<T>(app: &App, asked: impl Future<Output = store::Result<T>>) -> Result<T> {
    match timeout(PATIENCE, asked).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(e)) => {
            app.store.connect_anew();
            Err(e.into())
        }
        Err(_) => {
            app.store.connect_anew();
            let text = format!("the database did not answer within {PATIENCE:?}");
            Err(StoreError::Unavailable(text).into())
        }
    }
}

/// Waits until the other nodes know of the last change of a key: who was answered here may
/// go on anywhere. Not for long; who does not follow is fenced soon, and a change that is
/// stored is done.
pub(super) async fn heard(app: &App, key: &Key) {
    if !app.store.is_shared() {
        return;
    }
    let until = Instant::now() + HEARD;
    while Instant::now() < until {
        match app.store.behind(app.membership.id(), key.id).await {
            Ok(names) if !names.is_empty() => sleep(PAUSE).await,
            _ => return,
        }
    }
}

/// Reads how much all nodes have used the keys: uses are no news, and rules look at their
/// sum. Ten minutes more or less do not matter to a rule.
pub async fn hear_uses(app: &App) {
    if !app.store.is_shared() {
        return;
    }
    match app.store.load().await {
        Ok(all) => app.keyring.adopt(&all.keys),
        Err(e) => warn!(error = %e, "the uses of keys on other nodes could not be read"),
    }
}

/// One of many does what the appliance does by itself. Who comes too late to know loses a
/// compare-and-swap, and nothing else.
pub(super) async fn is_ours(app: &App) -> bool {
    if !app.membership.serves() {
        return false;
    }
    match app.store.is_first(app.membership.id()).await {
        Ok(first) => first,
        Err(e) => {
            error!(error = %e, "what the appliance does by itself is not done now");
            false
        }
    }
}

/// One key as it is stored now, for everybody on this node.
pub(super) async fn look_again(app: &App, key: &Key) -> Result<Arc<Key>> {
    if let Some(stored) = app.store.key(key.id).await? {
        app.keyring.adopt(&[stored]);
    }
    let current = app.keyring.current(key);
    current.ok_or_else(|| Error::internal("a key is gone"))
}
