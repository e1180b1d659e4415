//! Where a node lives: in a network namespace with one link to its clients and another one
//! to the database. Where the kernel does not let us make namespaces, on this machine, with
//! a wire to the database that can be cut.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    process::Command,
};

use keywright_softhsm_tests::daemon::ok;

use crate::wire::Wire;

#[derive(Debug)]
pub(crate) enum Place {
    Namespace(Namespace),
    Here(Wire),
}

#[derive(Debug)]
pub(crate) struct Namespace {
    name: String,
    number: u8,
}

/// For measurements between networks (RFC 2544): nobody else is there.
fn address(link: u8, node: u8, end: u8) -> Ipv4Addr {
    Ipv4Addr::new(198, 18 + link, node, end)
}

const CLIENTS: u8 = 0;
const DATABASE: u8 = 1;

fn ip(words: &str) -> bool {
    let done = Command::new("ip").args(words.split(' ')).output();
    done.is_ok_and(|done| done.status.success())
}

fn must(words: &str) {
    let _ = ok(Command::new("ip").args(words.split(' ')));
}

/// May we make network namespaces?
pub(crate) fn namespaces() -> bool {
    let name = format!("keywright-{}", std::process::id());
    let may = ip(&format!("netns add {name}"));
    may && ip(&format!("netns del {name}"))
}

/// This machine's end of the link from the database to a node.
pub(crate) fn database(number: u8) -> IpAddr {
    address(DATABASE, number, 1).into()
}

impl Place {
    /// A namespace for the node with this number, from 1, and its two links.
    pub(crate) fn namespace(number: u8) -> Self {
        let name = format!("keywright-{}-{number}", std::process::id());
        must(&format!("netns add {name}"));
        let made = Self::Namespace(Namespace {
            name: name.clone(),
            number,
        });
        must(&format!("-n {name} link set lo up"));
        for link in [CLIENTS, DATABASE] {
            let (here, there) = (interface(number, link), format!("link{link}"));
            must(&format!(
                "link add {here} type veth peer name {there} netns {name}"
            ));
            must(&format!(
                "address add {}/30 dev {here}",
                address(link, number, 1)
            ));
            must(&format!("link set {here} up"));
            let inside = address(link, number, 2);
            must(&format!("-n {name} address add {inside}/30 dev {there}"));
            must(&format!("-n {name} link set {there} up"));
        }
        made
    }

    /// On this machine, with a wire to the database.
    pub(crate) fn here(database: SocketAddr) -> Self {
        Self::Here(Wire::to(database))
    }

    /// Where a node in this place listens.
    pub(crate) fn address(&self) -> IpAddr {
        match self {
            Self::Namespace(n) => address(CLIENTS, n.number, 2).into(),
            Self::Here(_) => Ipv4Addr::LOCALHOST.into(),
        }
    }

    /// Where it finds the database.
    pub(crate) fn database(&self, port: u16) -> SocketAddr {
        match self {
            Self::Namespace(n) => SocketAddr::new(database(n.number), port),
            Self::Here(wire) => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), wire.port()),
        }
    }

    /// To be run in this place.
    pub(crate) fn command(&self, program: &Path) -> Command {
        match self {
            Self::Namespace(n) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", &n.name]).arg(program);
                command
            }
            Self::Here(_) => Command::new(program),
        }
    }

    /// Nothing goes to the database or comes from it.
    pub(crate) fn cut(&self) {
        match self {
            Self::Namespace(n) => must(&format!("link set {} down", interface(n.number, DATABASE))),
            Self::Here(wire) => wire.cut(),
        }
    }

    pub(crate) fn mend(&self) {
        match self {
            Self::Namespace(n) => must(&format!("link set {} up", interface(n.number, DATABASE))),
            Self::Here(wire) => wire.mend(),
        }
    }
}

/// This machine's end of a link; fifteen characters at most.
fn interface(number: u8, link: u8) -> String {
    format!("kw{}-{number}-{link}", std::process::id() % 100_000)
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // The links go with it.
        let _ = ip(&format!("netns del {}", self.name));
    }
}
