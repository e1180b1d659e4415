//! The token without Keywright, in a process of its own: the calls that signing and MACs
//! end in, on a SoftHSM2 token of the same kind, with as many threads as the daemon has
//! workers there.
//!
//! PKCS#11 itself has one owner (`deny.toml`), so this is the lowest layer that others can
//! reach: [`keywright_hsm::Token`], without queue and handle. Each call is C_SignInit and
//! C_Sign on a session that stays open, plus a few locks that nobody else holds, the look-up
//! of the object's handle and the allocation of the answer. Nothing is verified, hashed,
//! encoded, recorded or sent.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use keywright_hsm::{
    Connector, Curve, Hash, KeyRef, KeySpec, Lane, ObjectId, Pin, PinSource, Signing,
    pkcs11::{self, Device, NewToken, TokenConfig, provision},
};

/// The flag that makes a bench executable this process.
pub const FLAG: &str = "--raw";
const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";
const LABEL: &str = "raw";
const PIN: &str = "123456";

/// What the token is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// ECDSA on P-256 of a digest.
    Sign,
    /// HMAC-SHA-256 of 64 bytes.
    Mac,
}

/// The process; ends with this value.
#[derive(Debug)]
pub struct RawToken {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl RawToken {
    /// Makes a token under `dir`, in a process that has its SoftHSM2 configuration.
    #[must_use]
    pub fn start(dir: &Path) -> Self {
        let dir = dir.join("raw");
        fs::create_dir_all(dir.join("tokens")).unwrap();
        let conf = dir.join("softhsm2.conf");
        // As `keywrightd dev` writes it.
        let text = format!(
            "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
            dir.join("tokens").display()
        );
        fs::write(&conf, text).unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg(FLAG)
            .env("SOFTHSM2_CONF", conf)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the raw token starts");
        Self {
            orders: child.stdin.take().unwrap(),
            answers: BufReader::new(child.stdout.take().unwrap()),
            child,
        }
    }

    /// Calls per second over one window.
    pub fn per_second(&mut self, work: Work, window: Duration) -> f64 {
        writeln!(self.orders, "{work:?} {}", window.as_millis()).unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        answer.trim().parse().expect("the raw token answers")
    }
}

impl Drop for RawToken {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The process itself: one order a line, one figure a line, until the orders end.
pub fn serve_raw() {
    let pin = || Pin::new(PIN.into());
    let module = PathBuf::from(MODULE);
    let new = NewToken {
        label: LABEL.into(),
        so_pin: pin(),
        user_pin: pin(),
    };
    provision(&module, &new).unwrap();
    let device = pkcs11::open(TokenConfig {
        module,
        init_reserved: None,
        label: Some(LABEL.into()),
        serial: None,
        pin: PinSource::Given(pin(), "the benchmark"),
        pin_latch: None,
    })
    .unwrap();
    let mut admin = device.connect(Lane::Admin).unwrap();
    let mut key = |spec| {
        let id = ObjectId::random().unwrap();
        admin.generate(id, spec, "bench").unwrap().key
    };
    let (pair, secret) = (
        key(KeySpec::Ec(Curve::P256)),
        key(KeySpec::Hmac(Hash::Sha256)),
    );
    for order in std::io::stdin().lines() {
        let order = order.unwrap();
        let (work, window) = order.split_once(' ').unwrap();
        let window = Duration::from_millis(window.parse().unwrap());
        let figure = if work == "Sign" {
            measure(&device, &pair, Work::Sign, window)
        } else {
            measure(&device, &secret, Work::Mac, window)
        };
        println!("{figure}");
    }
}

/// Calls per second of as many threads as the daemon would have workers.
#[allow(clippy::cast_precision_loss, reason = "a benchmark")]
fn measure(device: &Arc<Device>, key: &KeyRef, work: Work, window: Duration) -> f64 {
    let start = Instant::now();
    let workers: Vec<_> = (0..device.quirks().workers)
        .map(|_| {
            let (device, key) = (Arc::clone(device), key.clone());
            thread::spawn(move || {
                let mut token = device.connect(Lane::Work).unwrap();
                let mut done = 0u64;
                while start.elapsed() < window {
                    match work {
                        Work::Sign => token.sign(&key, Signing::Ecdsa, &[0x5a; 32]),
                        Work::Mac => token.mac(&key, &[0x5a; 64]),
                    }
                    .unwrap();
                    done += 1;
                }
                done
            })
        })
        .collect();
    let done: u64 = workers.into_iter().map(|w| w.join().unwrap()).sum();
    done as f64 / start.elapsed().as_secs_f64()
}
