//! Three daemons, each with a data directory and a way to the database of its own, on one
//! token.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use keywright_client::{Client, Settings};
use keywright_softhsm_tests::daemon::{Daemon, binary, ok};
use rustix::process::{Pid, Signal, kill_process};

use crate::{place, place::Place, postgres::Postgres, tls, wire::Wire};

pub(crate) struct Node {
    pub(crate) name: &'static str,
    pub(crate) dir: PathBuf,
    pub(crate) place: Place,
    /// To where it listens.
    clients: Wire,
    softhsm: PathBuf,
    port: u16,
    child: Option<Child>,
}

impl Node {
    fn config(&self) -> PathBuf {
        self.dir.join("keywrightd.toml")
    }

    fn daemon(&self, verb: &[&str]) -> Command {
        let mut command = self.place.command(&binary("keywrightd"));
        command.args(verb).arg("--config").arg(self.config());
        command.env("SOFTHSM2_CONF", &self.softhsm);
        command
    }

    pub(crate) fn start(&mut self) {
        let mut options = fs::File::options();
        let log = options.create(true).append(true);
        let log = log.open(self.dir.with_extension("log")).unwrap();
        let mut serve = self.daemon(&["serve"]);
        serve.stdout(Stdio::null()).stderr(log);
        self.child = Some(serve.spawn().unwrap());
    }

    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// In good order.
    pub(crate) fn stop(&mut self) {
        self.signal(Signal::TERM);
        let status = self.child.take().unwrap().wait().unwrap();
        assert!(status.success(), "{status}: {}", self.log());
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(self.child.as_ref().unwrap());
        kill_process(pid, signal).unwrap();
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.with_extension("log")).unwrap_or_default()
    }

    pub(crate) fn cli(&self) -> Command {
        let settings = self.settings();
        let mut command = Command::new(binary("keywright"));
        command
            .env("KEYWRIGHT_ADDR", settings.addr.unwrap())
            .env("KEYWRIGHT_CA", settings.ca.unwrap())
            .env("KEYWRIGHT_CERT", settings.cert.unwrap())
            .env("KEYWRIGHT_KEY", settings.key.unwrap());
        command
    }

    fn settings(&self) -> Settings {
        Settings {
            addr: Some(format!("127.0.0.1:{}", self.clients.port())),
            ca: Some(self.dir.join("ca.pem")),
            cert: Some(self.dir.join("certs/developer.pem")),
            key: Some(self.dir.join("certs/developer.key")),
        }
    }

    /// A connection, as soon as it answers.
    pub(crate) async fn client(&self) -> Client {
        for _ in 0..400 {
            if let Ok(client) = Client::connect(&self.settings()).await {
                return client;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("node {} does not come up: {}", self.name, self.log())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A developer's appliance on PostgreSQL, two more nodes that join it, and the server.
pub(crate) fn three(dir: &Path, database: &str) -> (Vec<Node>, Postgres) {
    let apart = place::namespaces();
    println!(
        "{}",
        if apart {
            "each node in a network namespace of its own, TLS to the database"
        } else {
            "NO NETWORK NAMESPACES (that takes root and iproute2): nodes on this machine, wires that are cut"
        }
    );
    let places: Vec<Place> = match apart {
        true => (1..=3).map(Place::namespace).collect(),
        false => Vec::new(),
    };
    let ends: Vec<_> = (1..=3).map(place::database).collect();
    let (settings, ca) = tls::certified(dir, &ends);
    let server = Postgres::start(&settings);
    server.create_database(database);
    let here = SocketAddr::from(([127, 0, 0, 1], server.port()));
    let mut places = places.into_iter();
    let mut nodes: Vec<Node> = Vec::new();
    for name in ["a", "b", "c"] {
        let own = dir.join(name);
        let place = places.next().unwrap_or_else(|| Place::here(here));
        let port = free_port();
        let node = Node {
            name,
            softhsm: dir.join("a/softhsm2.conf"),
            clients: Wire::to(SocketAddr::new(place.address(), port)),
            port,
            dir: own,
            child: None,
            place,
        };
        let end = node.place.database(server.port());
        let mut url = format!("postgres://postgres@{end}/{database}");
        if apart {
            url += &format!("?sslmode=verify-full&sslrootcert={}", ca.display());
        }
        match nodes.first() {
            None => begin(&node, &url),
            Some(first) => join(&node, first, &url),
        }
        nodes.push(node);
    }
    nodes.iter_mut().for_each(Node::start);
    (nodes, server)
}

fn begin(node: &Node, url: &str) {
    assert!(Daemon::start_on(&node.dir, url).stop().success());
    settle(node, &fs::read_to_string(node.config()).unwrap());
}

fn join(node: &Node, first: &Node, url: &str) {
    let text = fs::read_to_string(first.config()).unwrap();
    let theirs = text.lines().find(|l| l.starts_with("postgres = ")).unwrap();
    let text = text.replace(theirs, &format!("postgres = {url:?}"));
    for folder in ["", "certs", "policies"] {
        fs::create_dir_all(node.dir.join(folder)).unwrap();
    }
    for folder in ["certs", "policies"] {
        for file in fs::read_dir(first.dir.join(folder)).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), node.dir.join(folder).join(file.file_name())).unwrap();
        }
    }
    for file in ["ca.pem", "hsm-pin"] {
        fs::copy(first.dir.join(file), node.dir.join(file)).unwrap();
    }
    settle(node, &text);
    // It is not this machine that begins, and it cannot serve before it has joined.
    let refused = node.daemon(&["init"]).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("init --join"), "{said}");
    assert_eq!(
        node.daemon(&["serve"]).output().unwrap().status.code(),
        Some(6)
    );
    let _ = ok(&mut node.daemon(&["init", "--join"]));
    let again = node.daemon(&["init", "--join"]).output().unwrap();
    let said = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(said.contains("initialised already"), "{said}");
}

/// An address that stays.
fn settle(node: &Node, text: &str) {
    let listen = format!("grpc = \"{}:{}\"", node.place.address(), node.port);
    let before = text.lines().find(|l| l.starts_with("grpc = ")).unwrap();
    fs::write(node.config(), text.replace(before, &listen)).unwrap();
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}
