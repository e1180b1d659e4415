//! One history: eight clients that ask for whatever comes to mind, all at once, and
//! what they were answered.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Instant,
};

use bytes::Bytes;
use keywright_client::{Client, proto};
use keywright_service::{clock::Clock as _, ops::keep_rules};

use crate::{
    ask,
    common::{Appliance, engine},
    model::{self, Change, Pairs, Picture, Role, Use},
    stream, wire,
};

/// A small generator: the same seed, the same questions. (The answers also depend on how
/// the clients meet.)
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// SplitMix64.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

/// Who takes part: tenant, certificate, role. The first of each tenant that may, reads
/// the keys back in the end.
pub(crate) const CLIENTS: [(&str, &str, Role); 8] = [
    ("red", "admin", 'A'),
    ("blue", "developer", 'E'),
    ("red", "user", 'U'),
    ("red", "admin", 'A'),
    ("red", "rewrap", 'R'),
    ("red", "auditor", 'T'),
    ("red", "developer", 'E'),
    ("red", "nobody", 'N'),
];

/// The keys of a history, in both tenants.
pub(crate) const KEYS: [(&str, Use, proto::KeySpec); 4] = [
    ("enc", Use::Encrypt, proto::KeySpec::Aes256),
    ("other", Use::Encrypt, proto::KeySpec::Aes256),
    ("sign", Use::Sign, proto::KeySpec::EcP256),
    ("mac", Use::Mac, proto::KeySpec::HmacSha256),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Items,
    DataKey,
    Signature,
    Mac,
}

/// Something that was made, and what is known about it.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    pub(crate) tenant: &'static str,
    pub(crate) key: usize,
    pub(crate) kind: Kind,
    pub(crate) version: u32,
    pub(crate) header: Bytes,
    pub(crate) item: Bytes,
    pub(crate) plaintext: Bytes,
    pub(crate) context: Pairs,
}

/// What was asked of a key.
#[derive(Debug, Clone)]
pub(crate) enum Ask {
    Change(Change),
    /// Refused for what it says, whoever asks.
    Wrong,
    Get,
    List,
    Random,
    Public {
        version: u32,
    },
    Evidence,
    Explain {
        action: &'static str,
        version: u32,
        of: Option<Role>,
        /// The one it is about is of the other tenant.
        foreign: bool,
        context: Pairs,
    },
    /// `Use`, the action, and the context that came along.
    Protect(Use, &'static str, Pairs),
    Open {
        from: Sample,
        action: &'static str,
        context: Pairs,
        /// Other context or changed bytes.
        spoiled: bool,
        /// Another key is named than the one it was made under.
        named_other: bool,
    },
    Rewrap(Sample),
    /// From a sample to the key of the operation.
    Reencrypt(Sample),
    Check {
        made: Sample,
        wanted: Use,
        only: u32,
        spoiled: bool,
    },
    AsymmetricDecrypt,
}

/// What came of it.
#[derive(Debug, Clone)]
pub(crate) enum Done {
    Key(Picture),
    Keys(Vec<(usize, Picture)>),
    /// Under this version; 0 where none was used, or found.
    Version(u32),
    Opened {
        right: bool,
        due: bool,
    },
    Explained {
        allowed: bool,
        version: u32,
        usable: bool,
    },
}

/// One question with its answer, and when both were: numbers of one counter.
#[derive(Debug, Clone)]
pub(crate) struct Op {
    pub(crate) client: usize,
    pub(crate) key: usize,
    pub(crate) ask: Ask,
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// The clock before and after.
    pub(crate) clock: (i64, i64),
    pub(crate) out: Result<Done, String>,
}

/// A round of destructions, or a set of policies that came into force.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// The set of policies, or the clock.
    pub(crate) what: i64,
}

/// What all clients of a history share.
pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) name: String,
    /// Client n is one of node n, in a circle. They have one clock.
    pub(crate) nodes: Vec<Arc<Appliance>>,
    count: AtomicU64,
    /// When each number was given.
    pub(crate) times: Mutex<Vec<Instant>>,
    /// Streams that were opened: each has a record of its own.
    pub(crate) streams: AtomicU64,
    pub(crate) ops: Mutex<Vec<Op>>,
    pub(crate) samples: Mutex<Vec<Sample>>,
    /// The newest revision anybody was told.
    pub(crate) newest: Mutex<[[u64; KEYS.len()]; 2]>,
    pub(crate) rounds: Mutex<Vec<Moment>>,
    pub(crate) policies: Mutex<Vec<Moment>>,
    steward: tokio::sync::Mutex<()>,
}

impl World {
    pub(crate) fn new(nodes: Vec<Arc<Appliance>>, seed: u64) -> Self {
        for node in &nodes {
            node.app.keyring.enforce(engine(&model::policy_text(0)));
        }
        let start = Moment {
            start: 0,
            end: 0,
            what: 0,
        };
        Self {
            seed,
            name: format!("h{seed:x}"),
            nodes,
            count: AtomicU64::new(1),
            times: Mutex::new(vec![Instant::now()]),
            streams: AtomicU64::new(0),
            ops: Mutex::default(),
            samples: Mutex::default(),
            newest: Mutex::default(),
            rounds: Mutex::default(),
            policies: Mutex::new(vec![start]),
            steward: tokio::sync::Mutex::default(),
        }
    }

    pub(crate) fn tick(&self) -> u64 {
        let mut times = self.times.lock().unwrap();
        times.push(Instant::now());
        self.count.fetch_add(1, SeqCst)
    }

    pub(crate) fn now_ms(&self) -> i64 {
        self.nodes[0].clock.now_ms()
    }

    pub(crate) fn key_name(&self, key: usize) -> String {
        format!("{}/{}", self.name, KEYS[key].0)
    }

    fn told(&self, client: usize, key: usize, revision: u64) {
        let tenant = usize::from(CLIENTS[client].0 == "blue");
        let newest = &mut self.newest.lock().unwrap()[tenant][key];
        *newest = revision.max(*newest);
    }

    /// Asks and writes down.
    pub(crate) async fn ask(&self, connection: &Client, client: usize, key: usize, ask: Ask) {
        let began = (self.tick(), self.now_ms());
        let out = wire::ask(self, connection, client, key, &ask).await;
        self.answered(client, key, ask, began, out);
    }

    /// Writes an answer down. `began`: number and clock before the question.
    pub(crate) fn answered(
        &self,
        client: usize,
        key: usize,
        ask: Ask,
        began: (u64, i64),
        out: Result<Done, tonic::Status>,
    ) {
        let (start, before) = began;
        let end = self.tick();
        if let Ok(Done::Key(picture)) = &out {
            self.told(client, key, picture.revision);
        }
        let op = Op {
            client,
            key,
            ask,
            start,
            end,
            clock: (before, self.now_ms()),
            out: out.map_err(|status| {
                let reason = crate::common::reason(&status);
                match reason.is_empty() {
                    true => format!("{:?}: {}", status.code(), status.message()),
                    false => reason,
                }
            }),
        };
        self.ops.lock().unwrap().push(op);
    }

    /// Time passes, and what is due is destroyed, while everybody goes on.
    async fn time_passes(&self, days: i64) {
        let _one_at_a_time = self.steward.lock().await;
        self.nodes[0].clock.advance_days(days);
        let start = self.tick();
        // Whoever of them is first does it.
        for node in &self.nodes {
            keep_rules(&node.app).await;
        }
        self.rounds.lock().unwrap().push(Moment {
            start,
            end: self.tick(),
            what: self.now_ms(),
        });
    }

    /// Other policies from now on.
    async fn other_policies(&self, policy: usize) {
        let _one_at_a_time = self.steward.lock().await;
        let start = self.tick();
        for node in &self.nodes {
            let engine = engine(&model::policy_text(policy));
            node.app.keyring.enforce(engine);
        }
        self.policies.lock().unwrap().push(Moment {
            start,
            end: self.tick(),
            what: policy as i64,
        });
    }
}

/// Batches of one stream, and perhaps the last one again.
const MOST_BATCHES: usize = 3;

/// One client with its connection.
pub(crate) async fn client(world: Arc<World>, connection: Client, client: usize, ops: usize) {
    let mut rng = Rng::new(world.seed ^ ((client as u64 + 1) << 56));
    rng.next();
    let role = CLIENTS[client].2;
    let mut i = 0;
    while i < ops {
        // Now and then the world changes instead of a question; it counts as one.
        if role == 'A' && rng.one_in(40) {
            let days = 3 + rng.below(8) as i64;
            world.time_passes(days).await;
        } else if role == 'T' && rng.one_in(70) {
            let policy = rng.below(model::POLICIES as u64) as usize;
            world.other_policies(policy).await;
        }
        let (key, ask) = match i < KEYS.len() && "AE".contains(role) {
            // Who may, begins with making the keys; one of them is first.
            true => (i, ask::create(&mut rng)),
            false => ask::choose(&world, &mut rng, client),
        };
        i += 1;
        let Some(rpc) = stream::fits(&ask).filter(|_| rng.one_in(3)) else {
            world.ask(&connection, client, key, ask).await;
            continue;
        };
        // The same on a stream, with others of its kind behind it.
        let mut batches = vec![(key, ask)];
        while batches.len() < MOST_BATCHES && i < ops {
            let (key, ask) = ask::choose(&world, &mut rng, client);
            if stream::fits(&ask) != Some(rpc) {
                break;
            }
            batches.push((key, ask));
            i += 1;
        }
        if let Some(again) = batches.last().cloned().filter(|_| i < ops) {
            batches.push(again);
            i += 1;
        }
        stream::ask(&world, &connection, client, rpc, batches).await;
    }
}
