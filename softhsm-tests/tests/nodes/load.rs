//! Who uses the nodes while they are killed, paused and cut off: writes down what was
//! acknowledged, and when a suspended key last opened anything.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use keywright_client::{
    Client,
    proto::{self, KeyState},
};
use tokio::{runtime::Runtime, task::JoinSet, time::timeout};

/// Rotated all the time.
pub(crate) const TURNING: &str = "load/turning";
/// Suspended and resumed.
pub(crate) const GUARDED: &str = "load/guarded";
/// Longer than any pause of the test: what a node answers after it must not be lost on the
/// way.
const PATIENCE: Duration = Duration::from_secs(15);
const BREATH: Duration = Duration::from_millis(10);

/// What must be there at the end, whatever happened.
#[derive(Debug, Default)]
pub(crate) struct Acknowledged {
    /// Plaintext and ciphertext.
    pub(crate) sealed: Vec<(Bytes, Bytes)>,
    /// Names of keys.
    pub(crate) created: BTreeSet<String>,
    /// The newest primary version.
    pub(crate) primary: u32,
    /// What was refused, lost or late.
    pub(crate) failed: u64,
}

pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    tasks: JoinSet<()>,
    pub(crate) acknowledged: Arc<Mutex<Acknowledged>>,
    pub(crate) guard: Arc<Guard>,
}

/// For each node: when the last request began that opened something with the guarded key,
/// in milliseconds after `began`; and how many did.
#[derive(Debug)]
pub(crate) struct Guard {
    pub(crate) began: Instant,
    last_ms: [AtomicU64; 3],
    opened: [AtomicU64; 3],
}

impl Guard {
    pub(crate) fn last(&self, node: usize) -> Duration {
        Duration::from_millis(self.last_ms[node].load(Ordering::Acquire))
    }

    pub(crate) fn opened(&self, node: usize) -> u64 {
        self.opened[node].load(Ordering::Acquire)
    }
}

impl Load {
    pub(crate) fn start(runtime: &Runtime, clients: &[Client; 3], guarded: &Bytes) -> Self {
        let mut load = Self {
            stop: Arc::default(),
            tasks: JoinSet::new(),
            acknowledged: Arc::default(),
            guard: Arc::new(Guard {
                began: Instant::now(),
                last_ms: Default::default(),
                opened: Default::default(),
            }),
        };
        for (node, client) in clients.iter().enumerate() {
            let client = client.clone();
            load.spawn(
                runtime,
                write(client.clone(), node, Arc::clone(&load.acknowledged)),
            );
            load.spawn(
                runtime,
                probe(
                    client.clone(),
                    node,
                    guarded.clone(),
                    Arc::clone(&load.guard),
                ),
            );
            load.spawn(
                runtime,
                create(client, node, Arc::clone(&load.acknowledged)),
            );
        }
        let turning = rotate(clients.clone(), Arc::clone(&load.acknowledged));
        load.spawn(runtime, turning);
        load
    }

    fn spawn(&mut self, runtime: &Runtime, work: impl Future<Output = ()> + Send + 'static) {
        let stop = Arc::clone(&self.stop);
        let ends = async move {
            while !stop.load(Ordering::Acquire) {
                tokio::time::sleep(BREATH).await;
            }
        };
        let task = async move {
            tokio::select! { () = work => (), () = ends => () }
        };
        self.tasks.spawn_on(task, runtime.handle());
    }

    pub(crate) fn stop(self, runtime: &Runtime) -> Acknowledged {
        self.stop.store(true, Ordering::Release);
        runtime.block_on(self.tasks.join_all());
        std::mem::take(&mut *locked(&self.acknowledged))
    }
}

fn locked(all: &Mutex<Acknowledged>) -> MutexGuard<'_, Acknowledged> {
    all.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn within<T, E>(call: impl Future<Output = Result<T, E>>) -> Option<T> {
    timeout(PATIENCE, call).await.ok()?.ok()
}

async fn write(client: Client, node: usize, all: Arc<Mutex<Acknowledged>>) {
    for n in 0u64.. {
        let plain = Bytes::from(format!("node {node} write {n}"));
        match within(seal(&client, TURNING, &plain)).await {
            Some(item) => locked(&all).sealed.push((plain, item)),
            None => locked(&all).failed += 1,
        }
        tokio::time::sleep(BREATH).await;
    }
}

async fn create(client: Client, node: usize, all: Arc<Mutex<Acknowledged>>) {
    for n in 0u64.. {
        let name = format!("load/made-{node}-{n}");
        let spec = proto::KeySpec::Aes256;
        match within(client.create_key(&name, spec)).await {
            Some(_) => {
                locked(&all).created.insert(name);
            }
            None => locked(&all).failed += 1,
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

async fn rotate(clients: [Client; 3], all: Arc<Mutex<Acknowledged>>) {
    for client in clients.iter().cycle() {
        if let Some(key) = within(client.rotate_key(TURNING)).await {
            let mut all = locked(&all);
            all.primary = all.primary.max(key.primary_version);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn probe(client: Client, node: usize, guarded: Bytes, guard: Arc<Guard>) {
    loop {
        let began = guard.began.elapsed();
        if within(open(&client, &guarded)).await.is_some() {
            let ms = u64::try_from(began.as_millis()).unwrap();
            guard.last_ms[node].fetch_max(ms, Ordering::AcqRel);
            guard.opened[node].fetch_add(1, Ordering::AcqRel);
        }
        tokio::time::sleep(BREATH).await;
    }
}

pub(crate) async fn seal(
    client: &Client,
    key: &str,
    plain: &Bytes,
) -> Result<Bytes, tonic::Status> {
    let request = proto::EncryptRequest {
        key: key.into(),
        plaintexts: vec![plain.clone()],
        form: proto::Form::Attached.into(),
        ..Default::default()
    };
    let sealed = client.crypto().encrypt(request).await?;
    Ok(sealed.into_inner().items.remove(0))
}

pub(crate) async fn open(client: &Client, item: &Bytes) -> Result<Bytes, tonic::Status> {
    let request = proto::DecryptRequest {
        form: proto::Form::Attached.into(),
        items: vec![item.clone()],
        ..Default::default()
    };
    let opened = client.crypto().decrypt(request).await?.into_inner();
    match opened.errors.first() {
        None => Ok(opened.plaintexts[0].clone()),
        Some(e) => Err(tonic::Status::unknown(e.message.clone())),
    }
}

pub(crate) async fn change(client: &Client, to: KeyState) -> Result<(), tonic::Status> {
    let request = proto::ChangeStateRequest {
        name: GUARDED.into(),
        version: 1,
        state: to.into(),
        revision: 0,
    };
    client.keys().change_state(request).await.map(|_| ())
}
