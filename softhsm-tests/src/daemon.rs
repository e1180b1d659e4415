//! The real daemon and the real command line, as processes.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use keywright_client::Settings;
use rustix::process::{Pid, Signal, kill_process};

/// Where the binaries under test lie, if not beside the tests: tests with the feature
/// `vectors` cannot be built as a release, and a soak wants a daemon that is one.
const BINARIES: &str = "KEYWRIGHT_BINARIES";

/// A binary that was built with these tests.
///
/// # Panics
/// When it was not built.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    let here = std::env::current_exe().unwrap();
    let beside = here.parent().and_then(Path::parent).unwrap();
    let dir = std::env::var_os(BINARIES).map_or_else(|| beside.to_owned(), PathBuf::from);
    let path = dir.join(name);
    assert!(
        path.exists(),
        "{} is missing; run: cargo build, or make test",
        path.display()
    );
    path
}

/// `keywrightd dev` on a directory.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    /// Its data directory.
    pub dir: PathBuf,
    /// gRPC.
    pub addr: SocketAddr,
    /// Metrics and health.
    pub admin: SocketAddr,
    log: PathBuf,
}

impl Daemon {
    /// What a client of `keywrightd dev` needs, as the developer.
    #[must_use]
    pub fn settings(&self) -> Settings {
        Settings {
            addr: Some(self.addr.to_string()),
            ca: Some(self.dir.join("ca.pem")),
            cert: Some(self.dir.join("certs/developer.pem")),
            key: Some(self.dir.join("certs/developer.key")),
        }
    }

    /// Starts and waits until it is ready.
    ///
    /// # Panics
    /// When it ends instead, with its log.
    #[must_use]
    pub fn start(dir: &Path) -> Self {
        Self::start_with(dir, Command::new(binary("keywrightd")))
    }

    /// The same through another command, which is given the arguments of `dev`.
    ///
    /// # Panics
    /// As for [`Daemon::start`].
    #[must_use]
    pub fn start_with(dir: &Path, command: Command) -> Self {
        match Self::try_start(dir, command) {
            Ok(daemon) => daemon,
            Err((status, log)) => panic!("the daemon ended with {status}: {log}"),
        }
    }

    /// Starts; when it ends instead: how, and what it said.
    ///
    /// # Errors
    /// Exit status and standard error.
    pub fn try_start(dir: &Path, command: Command) -> Result<Self, (ExitStatus, String)> {
        Self::try_start_on(dir, command, None)
    }

    /// With its store in this PostgreSQL database.
    ///
    /// # Panics
    /// As for [`Daemon::start`].
    #[must_use]
    pub fn start_on(dir: &Path, postgres: &str) -> Self {
        match Self::try_start_on(dir, Command::new(binary("keywrightd")), Some(postgres)) {
            Ok(daemon) => daemon,
            Err((status, log)) => panic!("the daemon ended with {status}: {log}"),
        }
    }

    fn try_start_on(
        dir: &Path,
        mut command: Command,
        postgres: Option<&str>,
    ) -> Result<Self, (ExitStatus, String)> {
        fs::create_dir_all(dir).unwrap();
        let log = dir.with_extension("log");
        let mut child = spawn(&mut command, dir, postgres, &log);
        let (mut addr, mut admin) = (None, None);
        let stdout = BufReader::new(child.stdout.take().unwrap());
        for line in stdout.lines().map_while(Result::ok) {
            if let Some(rest) = line.trim_start().strip_prefix("metrics") {
                let url = rest
                    .trim()
                    .trim_start_matches("http://")
                    .trim_end_matches("/metrics");
                admin = url.parse().ok();
            }
            if let Some(rest) = line.strip_prefix("ready on ") {
                addr = rest.parse().ok();
                break;
            }
        }
        match (addr, admin) {
            (Some(addr), Some(admin)) => Ok(Self {
                child,
                dir: dir.to_owned(),
                addr,
                admin,
                log,
            }),
            _ => Err((
                child.wait().unwrap(),
                fs::read_to_string(&log).unwrap_or_default(),
            )),
        }
    }

    /// `keywright` with the settings of `client.env`.
    #[must_use]
    pub fn cli(&self) -> Command {
        self.cli_as("developer")
    }

    /// `keywright` as another identity.
    #[must_use]
    pub fn cli_as(&self, identity: &str) -> Command {
        let mut command = Command::new(binary("keywright"));
        command
            .env("KEYWRIGHT_ADDR", self.addr.to_string())
            .env("KEYWRIGHT_CA", self.dir.join("ca.pem"))
            .env(
                "KEYWRIGHT_CERT",
                self.dir.join(format!("certs/{identity}.pem")),
            )
            .env(
                "KEYWRIGHT_KEY",
                self.dir.join(format!("certs/{identity}.key")),
            );
        command
    }

    /// GET from the admin listener: status line and body.
    #[must_use]
    pub fn get(&self, path: &str) -> (String, String) {
        let mut stream = TcpStream::connect(self.admin).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (
            head.lines().next().unwrap_or_default().to_owned(),
            body.to_owned(),
        )
    }

    /// Its log so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).unwrap();
    }

    /// Ends it in good order.
    #[must_use]
    pub fn stop(mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.child.wait().unwrap()
    }

    /// `kill -9`.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(command: &mut Command, dir: &Path, postgres: Option<&str>, log: &Path) -> Child {
    command
        .args(["dev", "--listen", "127.0.0.1:0", "--data"])
        .arg(dir)
        .args(postgres.map(|url| format!("--store-postgres={url}")))
        .stdout(Stdio::piped())
        .stderr(fs::File::create(log).unwrap())
        .spawn()
        .unwrap()
}

/// Starts a daemon and kills it after a while, wherever it is then.
pub fn start_and_kill(dir: &Path, after: Duration) {
    let mut command = Command::new(binary("keywrightd"));
    let mut child = spawn(&mut command, dir, None, &dir.with_extension("log"));
    thread::sleep(after);
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Runs a command with bytes on its standard input.
#[must_use]
pub fn feed(command: &mut Command, input: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = thread::spawn(move || {
        // The command may end without reading everything.
        let _ = stdin.write_all(&input);
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

/// Runs a command that must succeed.
#[must_use]
pub fn ok(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// Runs a command that must fail with this exit code; gives its standard error.
#[must_use]
pub fn fails(command: &mut Command, code: i32) -> String {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{command:?}: {text}");
    text
}

/// Makes the time of every scheduled destruction one that has come, in the store of a daemon
/// that is stopped: nobody waits seven days for a test. The row has no seal then, which
/// somebody has to accept.
///
/// # Panics
/// When it cannot be done.
pub fn destruction_is_due(data: &Path) {
    let moved = "import sqlite3,sys; c=sqlite3.connect(sys.argv[1]); c.execute('UPDATE key_versions SET destroy_at_ms = 1 WHERE destroy_at_ms > 0'); c.commit()";
    let mut python = Command::new("python3");
    let _ = ok(python.args(["-c", moved]).arg(data.join("keywright.db")));
    let _ = ok(&mut recover_store(data, "a test moved the time"));
}

/// `keywrightd recover-store` of a daemon that is stopped.
#[must_use]
pub fn recover_store(data: &Path, reason: &str) -> Command {
    let mut command = Command::new(binary("keywrightd"));
    command
        .args(["recover-store", "--reason", reason, "--config"])
        .arg(data.join("keywrightd.toml"))
        .env("SOFTHSM2_CONF", data.join("softhsm2.conf"));
    command
}

/// Waits until something is so.
///
/// # Panics
/// When it is not so for ten seconds.
pub fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !so() {
        assert!(Instant::now() < end, "{what} did not come");
        thread::sleep(Duration::from_millis(20));
    }
}
