//! `keywrightd recover-store`: takes a store as it is that the daemon refuses, because it
//! is older than the token has seen it, or because somebody else changed it. On the console,
//! with all nodes stopped, approved by several key administrators, and recorded: what was
//! lost is lost, and what was changed counts.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use keywright_hsm::{self as hsm, Hsm, KeyRef, State};

use crate::{
    api::Approvers,
    app::{
        DataLock, PATIENCE, Seen, StartError, begin_seals, initialised_store, open_log,
        the_same_token, unwrap_seals,
    },
    audit::{Audit, Entry, Event},
    clock::{Clock, Entropy, System},
    config::Config,
    policy::Engine,
    recovery::{Approval, Approver, Plan},
    store::{Contents, NodeId, SealedState, Sealer, Store, StoreError},
};

/// What was accepted.
#[derive(Debug)]
pub struct Recovered {
    /// How far the store is.
    pub epoch: u64,
    /// How far the token had seen it.
    pub token_epoch: u64,
    /// Rows that somebody else wrote.
    pub rows: Vec<String>,
    /// Who said yes.
    pub approved_by: Vec<String>,
}

/// By whose word it is done.
#[derive(Debug)]
pub enum By<'a> {
    /// The operator's alone, and why.
    Operator(&'a str),
    /// Of key administrators: the text of the plan, and file name and text of each approval.
    Approvers {
        /// The plan.
        plan: &'a str,
        /// What they wrote.
        approvals: &'a [(String, String)],
    },
}

/// A word that was found good.
#[derive(Debug, Default)]
struct Word {
    reason: String,
    plan: Option<(Plan, [u8; 32])>,
    approved_by: Vec<String>,
}

/// What there is to accept, as a text to be approved. Changes nothing.
///
/// # Errors
/// What is missing.
pub async fn plan_recovery(config: &Config, reason: &str) -> Result<String, StartError> {
    said(reason)?;
    let opened = Opened::new(config).await?;
    let (plan, _) = opened.plan(reason).await?;
    opened.hsm.close();
    let plan = plan.until(System.now_ms() + Plan::LIFE_MS);
    plan.text().map_err(StartError::Other)
}

/// Seals all rows as they are and tells the token how far the store is.
///
/// # Errors
/// Why nothing was changed, or how far it came: it can be done again.
pub async fn recover_store(config: &Config, by: By<'_>) -> Result<Recovered, StartError> {
    let word = heard(config, by)?;
    let opened = Opened::new(config).await?;
    let (now, state) = opened.plan(&word.reason).await?;
    if let Some((plan, _)) = &word.plan {
        let true_still = plan.still_true(&now, System.now_ms());
        true_still.map_err(|why| {
            let text =
                format!("{why}. Nothing was changed; make a new plan: keywrightd plan-recovery");
            StartError::Data(text)
        })?;
    }
    let (epoch, token_epoch) = (now.store_epoch, now.token_epoch);
    let log = open_log(config, &opened.read.anchors, opened.store.is_shared())?.log;
    let audit = Audit::start(log, Arc::new(System), PATIENCE)
        .map_err(|e| StartError::Other(e.to_string()))?;
    let record = async |event| audit.record(Entry::event(event)).await.map_err(data);
    record(Event::StoreRecovering {
        reason: word.reason,
        epoch,
        token_epoch,
        plan: word.plan.map(|(_, digest)| hex::encode(digest)),
        approved_by: word.approved_by.clone(),
    })
    .await?;
    let rows = opened.accept(&state).await?;
    opened
        .seen
        .accept(&opened.hsm, &opened.canary, epoch)
        .await?;
    record(Event::StoreRecovered { rows: rows.clone() }).await?;
    let anchored = opened.store.set_anchor(audit.log(), audit.head()).await;
    anchored.map_err(data)?;
    opened.store.close().await.map_err(data)?;
    opened.hsm.close();
    Ok(Recovered {
        epoch,
        token_epoch,
        rows,
        approved_by: word.approved_by,
    })
}

/// Everything that is looked at, with all nodes stopped.
struct Opened {
    _lock: DataLock,
    store: Arc<dyn Store>,
    read: Contents,
    canary: KeyRef,
    hsm: Hsm,
    seen: Seen,
    /// None: the store has no seals.
    sealer: Option<Sealer>,
}

impl Opened {
    async fn new(config: &Config) -> Result<Self, StartError> {
        let lock = DataLock::take(&config.data_dir)?;
        let (store, read, canary) = initialised_store(config).await?;
        // No node has this id: is anybody there?
        if store.is_shared() && !store.is_first(NodeId([0; 16])).await.map_err(data)? {
            let text = "a node of this store is running; stop all of them first (a node that was killed counts for five seconds more)";
            return Err(StartError::Data(text.into()));
        }
        let hsm = the_same_token(config, &canary).await?;
        all_tokens(&hsm).await?;
        let seen = match config.hsm.keep_epoch {
            true => Seen::on(&hsm).await?,
            false => Seen::default(),
        };
        let sealer = match &read.rows_key {
            Some(wrapped) => Some(unwrap_seals(&hsm, &canary, wrapped).await?),
            None => None,
        };
        Ok(Self {
            _lock: lock,
            store,
            read,
            canary,
            hsm,
            seen,
            sealer,
        })
    }

    /// How things are now, as a plan that is good for no time yet.
    async fn plan(&self, reason: &str) -> Result<(Plan, SealedState), StartError> {
        let state = self.store.sealed_state(self.sealer.as_ref()).await;
        let state = state.map_err(data)?;
        let mut nonce = [0; 16];
        System.fill(&mut nonce).map_err(data)?;
        let plan = Plan {
            keywright_recovery_plan: Plan::FORMAT,
            appliance: self.canary.object.to_string(),
            reason: reason.to_owned(),
            store_epoch: self.read.known.epoch,
            token_epoch: self.seen.epoch(&self.canary),
            rows: state.others.clone(),
            state: hex::encode(state.digest),
            expires: String::new(),
            expires_unix_ms: 0,
            nonce: hex::encode(nonce),
        };
        Ok((plan, state))
    }

    /// Seals the rows in that very state.
    async fn accept(&self, state: &SealedState) -> Result<Vec<String>, StartError> {
        let Some(sealer) = &self.sealer else {
            return begin_seals(&self.hsm, &self.store, &self.canary).await;
        };
        match self.store.seal_state(sealer, None, state.digest).await {
            Err(StoreError::Conflict) => Err(StartError::Data(
                "somebody changes the store at this moment; nothing was accepted".into(),
            )),
            sealed => sealed.map_err(data),
        }
    }
}

/// One that is away may know of a newer store, and would not hear of this one.
async fn all_tokens(hsm: &Hsm) -> Result<(), StartError> {
    let until = Instant::now() + SETTLED;
    loop {
        let tokens = hsm.tokens();
        let Some(away) = tokens.iter().find(|t| t.state != State::Ready) else {
            return Ok(());
        };
        if Instant::now() > until {
            let (name, state) = (&away.name, away.state.name());
            let text = format!(
                "the token {name:?} of the group is {state}: all of them are asked how far the store was, and told"
            );
            return Err(hsm::Error::new(hsm::Kind::Gone, text).into());
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// By then a token that is there has been looked at.
const SETTLED: Duration = Duration::from_secs(5);
/// Pause between two looks at the tokens.
const LOOK: Duration = Duration::from_millis(100);

/// Is it a word that counts?
fn heard(config: &Config, by: By<'_>) -> Result<Word, StartError> {
    let needed = config.limits.recovery_approvals;
    let setup = StartError::Setup;
    let (text, approvals) = match by {
        By::Operator(reason) if needed == 0 => {
            said(reason)?;
            return Ok(Word {
                reason: reason.to_owned(),
                ..Word::default()
            });
        }
        By::Operator(_) => {
            return Err(setup(format!(
                "{needed} key administrators must approve this: make a plan (keywrightd plan-recovery --out FILE), let each of them approve it (keywright admin approve-recovery FILE), then: keywrightd recover-store --plan FILE --approval FILE … (limits.recovery_approvals)"
            )));
        }
        By::Approvers { plan, approvals } => (plan, approvals),
    };
    let plan = Plan::parse(text).map_err(|why| setup(format!("--plan: {why}")))?;
    let engine = Engine::read(&config.policies_dir).map_err(|e| setup(e.to_string()))?;
    let judges = Approvers::new(config).map_err(|e| setup(e.to_string()))?;
    let mut approvers = Vec::new();
    for (file, approval) in approvals {
        let judged = Approval::parse(approval)
            .and_then(|approval| judges.judge(&approval, text, System.now_ms()))
            .and_then(|approver| is_key_admin(&engine, approver));
        approvers.push(judged.map_err(|why| setup(format!("{file}: {why}")))?);
    }
    Approver::enough(&approvers, needed).map_err(setup)?;
    Ok(Word {
        reason: plan.reason.clone(),
        plan: Some((plan, Plan::digest(text))),
        approved_by: approvers.iter().map(|a| a.id.to_string()).collect(),
    })
}

fn is_key_admin(engine: &Engine, approver: Approver) -> Result<Approver, String> {
    if engine.is_key_admin(&approver.id) {
        return Ok(approver);
    }
    Err(format!(
        "{} is no key administrator (role key-admin in roles.toml)",
        approver.id
    ))
}

fn said(reason: &str) -> Result<(), StartError> {
    if reason.trim().is_empty() {
        let text = "--reason: say why; it goes into the audit log";
        return Err(StartError::Setup(text.into()));
    }
    Ok(())
}

fn data(e: impl std::fmt::Display) -> StartError {
    StartError::Data(e.to_string())
}
