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

use crate::desk::Desk;
use keywright_hsm::{
    Connector, Curve, Dek, Hash, KeyRef, KeySpec, Lane, ObjectId, Pin, PinSource, Signing,
    pkcs11::{self, Device, NewToken, TokenConfig, provision},
};

/// The flag that makes a bench executable this process.
pub const FLAG: &str = "--raw";
/// SoftHSM2 on Debian.
pub const SOFTHSM2: &str = "/usr/lib/softhsm/libsofthsm2.so";
const LABEL: &str = "raw";
const PIN: &str = "123456";
const AAD: [u8; 56] = [1; 56];

/// What the token is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// ECDSA on P-256 of a digest.
    Sign,
    /// HMAC-SHA-256 of 64 bytes.
    Mac,
    /// A new DEK wrapped.
    Mint,
    /// A wrapped DEK opened under one key and wrapped under another.
    Rewrap,
    /// A whole certificate with one such signature: request, profile, lint, self-check.
    Issue,
}

/// The process; ends with this value.
#[derive(Debug)]
pub struct RawToken {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl RawToken {
    /// Makes a token under `dir` with this module, in a process that has its SoftHSM2
    /// configuration.
    #[must_use]
    pub fn start(dir: &Path, module: &Path) -> Self {
        Self::start_with(dir, module, &[])
    }

    /// The same with more in its environment.
    #[must_use]
    pub fn start_with(dir: &Path, module: &Path, environment: &[(&str, String)]) -> Self {
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
            .arg(module)
            .env("SOFTHSM2_CONF", conf)
            .envs(environment.iter().map(|(k, v)| (k, v)))
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

    /// Calls per second over one window, from one thread for each worker of the daemon.
    pub fn per_second(&mut self, work: Work, window: Duration) -> f64 {
        self.order(work, 0, window)
    }

    /// The same from one thread.
    pub fn alone(&mut self, work: Work, window: Duration) -> f64 {
        self.order(work, 1, window)
    }

    /// Microseconds that lint takes for a certificate.
    pub fn lint_us(&mut self) -> f64 {
        self.ask("Lint")
    }

    /// Seconds until a CRL of so many entries is signed.
    pub fn crl_seconds(&mut self, entries: u32) -> f64 {
        self.ask(&format!("Crl {entries}"))
    }

    /// The most memory the process has had, in MiB.
    ///
    /// # Panics
    /// Without procfs.
    #[must_use]
    pub fn peak_mib(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap();
        let kib: f64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kib / 1024.0
    }

    fn order(&mut self, work: Work, threads: usize, window: Duration) -> f64 {
        self.ask(&format!("{work:?} {threads} {}", window.as_millis()))
    }

    fn ask(&mut self, order: &str) -> f64 {
        writeln!(self.orders, "{order}").unwrap();
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
pub fn serve_raw(module: PathBuf) {
    let pin = || Pin::new(PIN.into());
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
        scout: None,
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
    let (wrapping, newer) = (key(KeySpec::Aes256), key(KeySpec::Aes256));
    for order in std::io::stdin().lines() {
        let order = order.unwrap();
        let words: Vec<&str> = order.split(' ').collect();
        let timed = |work, key, threads: &str, millis: &str| {
            // A rewrap goes from one key to another.
            let to = if work == Work::Rewrap { &newer } else { key };
            let threads = match threads.parse().unwrap() {
                0 => device.quirks().workers,
                n => n,
            };
            let window = Duration::from_millis(millis.parse().unwrap());
            measure(&device, [key, to], work, threads, window)
        };
        let figure = match words[..] {
            ["Sign", threads, millis] => timed(Work::Sign, &pair, threads, millis),
            ["Issue", threads, millis] => timed(Work::Issue, &pair, threads, millis),
            ["Mac", threads, millis] => timed(Work::Mac, &secret, threads, millis),
            ["Mint", threads, millis] => timed(Work::Mint, &wrapping, threads, millis),
            ["Rewrap", threads, millis] => timed(Work::Rewrap, &wrapping, threads, millis),
            ["Lint"] => Desk::open(admin.as_mut(), &pair).lint().as_secs_f64() * 1e6,
            ["Crl", entries] => {
                let entries = entries.parse().unwrap();
                let desk = Desk::open(admin.as_mut(), &pair);
                desk.crl(admin.as_mut(), &pair, entries).as_secs_f64()
            }
            _ => panic!("not an order: {order}"),
        };
        println!("{figure}");
    }
}

/// Calls per second of some threads.
#[allow(clippy::cast_precision_loss, reason = "a benchmark")]
fn measure(
    device: &Arc<Device>,
    [key, to]: [&KeyRef; 2],
    work: Work,
    threads: usize,
    window: Duration,
) -> f64 {
    let start = Instant::now();
    let workers: Vec<_> = (0..threads)
        .map(|_| {
            let (device, key, to) = (Arc::clone(device), key.clone(), to.clone());
            thread::spawn(move || {
                let mut token = device.connect(Lane::Work).unwrap();
                let desk = (work == Work::Issue).then(|| Desk::open(token.as_mut(), &key));
                let wrapped = (work == Work::Rewrap)
                    .then(|| token.wrap(&key, &AAD, &Dek::take(&mut [7; 32])).unwrap());
                let mut done = 0u64;
                while start.elapsed() < window {
                    match (work, &desk) {
                        (Work::Mac, _) => drop(token.mac(&key, &[0x5a; 64]).unwrap()),
                        (Work::Mint, _) => {
                            let mut dek = [0; Dek::LEN];
                            token.random(&mut dek).unwrap();
                            let _ = token.wrap(&key, &AAD, &Dek::take(&mut dek)).unwrap();
                        }
                        (Work::Rewrap, _) => {
                            let wrapped = wrapped.as_ref().unwrap();
                            let dek = token.unwrap(&key, &AAD, wrapped).unwrap();
                            let _ = token.wrap(&to, &AAD, &dek).unwrap();
                        }
                        (_, Some(desk)) => drop(desk.issue(token.as_mut(), &key)),
                        (_, None) => {
                            drop(token.sign(&key, Signing::Ecdsa, &[0x5a; 32]).unwrap());
                        }
                    }
                    done += 1;
                }
                done
            })
        })
        .collect();
    let done: u64 = workers.into_iter().map(|w| w.join().unwrap()).sum();
    done as f64 / start.elapsed().as_secs_f64()
}
