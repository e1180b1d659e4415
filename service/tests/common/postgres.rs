//! A private PostgreSQL for tests: its own directory, port and socket, gone with whoever
//! started it, also when that is killed.
//!
//! For any crate, by `#[path]`: nothing but std and tempfile. One server for a process,
//! one database for a test.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "this is for tests, and not every one uses all of it"
)]

use std::{
    fs,
    net::TcpListener,
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
    thread::sleep,
    time::{Duration, Instant},
};

/// Who is called like this has to give the password; everybody else is trusted.
pub const GUARDED: &str = "guarded";

/// A running server. Dropping it stops the server and removes its directory.
#[derive(Debug)]
pub struct Postgres {
    bin: PathBuf,
    port: u16,
    keeper: Child,
}

/// Stops the server and clears up as soon as its standard input ends, which it does
/// whatever way the other side ends.
const KEEPER: &str = r#"
"$1/postgres" -D "$2/data" -k "$2" -p "$3" >"$2/log" 2>&1 &
server=$!
cat >/dev/null
kill -QUIT $server
wait $server
rm -rf "$2"
"#;

impl Postgres {
    /// The server of this process; started when it is asked for first.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Postgres> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(""))
    }

    /// A server of one's own. `settings` are lines for postgresql.conf; files they name
    /// must be readable for whom [`Self::owner`] names.
    pub fn start(settings: &str) -> Self {
        // Somebody else may take the port in between.
        (0..5)
            .find_map(|_| Self::try_start(settings))
            .expect("PostgreSQL does not start; its log is above")
    }

    fn try_start(settings: &str) -> Option<Self> {
        let (bin, port) = (bin(), free_port());
        let mut builder = tempfile::Builder::new();
        let dir = builder.prefix("keywright-postgres-").tempdir().unwrap();
        // The keeper removes it.
        let dir = dir.keep();
        if let Some((uid, gid)) = Self::owner() {
            chown(&dir, Some(uid), Some(gid)).unwrap();
        }
        let data = dir.join("data");
        let mut initdb = as_owner(&bin.join("initdb"));
        initdb.args(["-A", "trust", "-U", "postgres", "-E", "UTF8"]);
        initdb.args(["--no-sync", "--locale=C", "-D"]).arg(&data);
        let made = initdb.output().unwrap();
        assert!(made.status.success(), "initdb: {made:?}");
        let edit = |name: &str, change: &dyn Fn(String) -> String| {
            let path = data.join(name);
            let text = change(fs::read_to_string(&path).unwrap());
            fs::write(&path, text).unwrap();
        };
        edit("pg_hba.conf", &|trust| {
            format!("host all {GUARDED} all scram-sha-256\nhostssl all all samenet trust\n{trust}")
        });
        edit("postgresql.conf", &|defaults| {
            format!("{defaults}\nlisten_addresses = '127.0.0.1'\n{settings}\n")
        });
        let mut keeper = as_owner(Path::new("sh"));
        keeper.args(["-c", KEEPER, "sh"]).arg(&bin).arg(&dir);
        keeper.arg(port.to_string()).stdin(Stdio::piped());
        // Ctrl-C is for us; the keeper hears of our end in its own way.
        let keeper = keeper.process_group(0).spawn().unwrap();
        let server = Self { bin, port, keeper };
        server.answers(&dir).then_some(server)
    }

    /// User and group the server runs as: root must not.
    pub fn owner() -> Option<(u32, u32)> {
        if !fs::read_to_string("/proc/self/status")
            .unwrap()
            .contains("\nUid:\t0\t")
        {
            return None;
        }
        let users = fs::read_to_string("/etc/passwd").unwrap();
        let line = users.lines().find(|l| l.starts_with("postgres:"));
        let mut ids = line.unwrap_or_else(|| missing()).split(':').skip(2);
        let mut id = || ids.next().unwrap().parse().unwrap();
        Some((id(), id()))
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Of the administrator's own database.
    pub fn url(&self) -> String {
        self.url_of("postgres", "postgres")
    }

    /// Of any database and user.
    pub fn url_of(&self, user: &str, database: &str) -> String {
        format!("postgres://{user}@127.0.0.1:{}/{database}", self.port)
    }

    /// Makes an empty database and says where it is.
    pub fn create_database(&self, name: &str) -> String {
        self.sql("postgres", &format!("CREATE DATABASE \"{name}\""));
        self.url_of("postgres", name)
    }

    /// What `psql` answers, without decoration.
    pub fn sql(&self, database: &str, text: &str) -> String {
        let mut psql = Command::new(self.bin.join("psql"));
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", text]);
        psql.arg(self.url_of("postgres", database));
        let said = psql.output().unwrap();
        assert!(said.status.success(), "{text}: {said:?}");
        String::from_utf8(said.stdout).unwrap().trim().to_owned()
    }

    fn answers(&self, dir: &Path) -> bool {
        let end = Instant::now() + Duration::from_secs(30);
        while Instant::now() < end {
            let mut ready = Command::new(self.bin.join("pg_isready"));
            ready.args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()]);
            // Another server on this port would answer as well.
            let ours = dir.join(format!(".s.PGSQL.{}", self.port)).exists();
            if ours && ready.status().unwrap().success() {
                return true;
            }
            let log = fs::read_to_string(dir.join("log")).unwrap_or_default();
            if log.contains("FATAL") && !log.contains("starting up") {
                eprintln!("{log}");
                return false;
            }
            sleep(Duration::from_millis(20));
        }
        false
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

fn missing() -> ! {
    panic!("PostgreSQL is missing; run: apt-get install postgresql")
}

/// The folder with `initdb`: that of the PATH, else the newest of Debian's.
fn bin() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().path())
        .collect();
    let version = |p: &PathBuf| p.file_name()?.to_str()?.parse::<u32>().ok();
    folders.sort_by_key(version);
    let installed = folders.into_iter().rev().map(|folder| folder.join("bin"));
    // A link to one program is not yet a folder with all of them.
    let real = |folder: PathBuf| {
        let initdb = fs::canonicalize(folder.join("initdb")).ok()?;
        initdb.parent().map(Path::to_owned)
    };
    let all = ["postgres", "pg_isready", "psql"];
    std::env::split_paths(&path)
        .chain(installed)
        .filter_map(real)
        .find(|folder| all.iter().all(|name| folder.join(name).exists()))
        .unwrap_or_else(|| missing())
}

/// In a folder that this user can enter, whatever ours is.
fn as_owner(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir("/");
    if let Some((uid, gid)) = Postgres::owner() {
        command.uid(uid).gid(gid);
    }
    command
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}
