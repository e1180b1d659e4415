//! Hosts on loopback to look at: a resolver that says what a test wants, web servers and
//! TLS servers that count who comes.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use keywright_pki::{Cidr, San};
use keywright_service::{
    acme::{ChallengeKind, Problem},
    validator::{Claim, Options, Validator},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UdpSocket},
};

pub(crate) const TOKEN: &str = "dG9rZW4";
pub(crate) const SHOWN: &str = "dG9rZW4.thumbprint";

/// Who looks, and what it sees.
pub(crate) struct Hosts {
    /// The port of all web servers and of all TLS servers.
    pub(crate) port: u16,
    resolver: SocketAddr,
    answers: Arc<Mutex<HashMap<String, Vec<IpAddr>>>>,
}

impl Hosts {
    pub(crate) async fn new() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let resolver = socket.local_addr().unwrap();
        let answers = Arc::<Mutex<HashMap<_, _>>>::default();
        tokio::spawn(resolve(socket, Arc::clone(&answers)));
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self {
            port: free.local_addr().unwrap().port(),
            resolver,
            answers,
        }
    }

    /// What is answered for a name: one address for each question, the last one for ever.
    pub(crate) fn name(&self, name: &str, addresses: &[&str]) {
        let all = addresses.iter().map(|a| a.parse().unwrap()).collect();
        self.answers.lock().unwrap().insert(name.to_owned(), all);
    }

    /// A web server there that answers always the same; and how many came.
    pub(crate) async fn web(&self, address: &str, answer: String) -> Arc<AtomicUsize> {
        let listener = TcpListener::bind((address, self.port)).await.unwrap();
        let count = Arc::new(AtomicUsize::new(0));
        let came = Arc::clone(&count);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                came.fetch_add(1, Ordering::SeqCst);
                let answer = answer.clone();
                tokio::spawn(async move {
                    let _ = stream.read(&mut [0; 4096]).await;
                    let _ = stream.write_all(answer.as_bytes()).await;
                });
            }
        });
        count
    }

    /// One look at a host, where `networks` are listed.
    pub(crate) async fn look(
        &self,
        kind: ChallengeKind,
        name: &str,
        networks: &[&str],
    ) -> Result<(), Problem> {
        let validator = Validator::new(Options {
            resolver: self.resolver,
            http01_port: self.port,
            tls_alpn01_port: self.port,
            patience: Duration::from_secs(3),
        });
        let networks: Vec<Cidr> = networks.iter().map(|n| Cidr::parse(n).unwrap()).collect();
        let name: San = name.parse().unwrap();
        let claim = Claim {
            name: &name,
            token: TOKEN,
            key_authorization: SHOWN,
            networks: &networks,
        };
        validator.look(kind, claim).await
    }

    pub(crate) async fn http(&self, name: &str, networks: &[&str]) -> Result<(), Problem> {
        self.look(ChallengeKind::Http01, name, networks).await
    }
}

pub(crate) fn came(count: &AtomicUsize) -> usize {
    count.load(Ordering::SeqCst)
}

pub(crate) fn page(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

pub(crate) fn elsewhere(location: &str) -> String {
    format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\n\r\n")
}

/// The labels of the question and its type.
fn question(bytes: &[u8]) -> (String, u8) {
    let (mut labels, mut at) = (Vec::new(), 12);
    while bytes[at] != 0 {
        let end = at + 1 + usize::from(bytes[at]);
        labels.push(String::from_utf8(bytes[at + 1..end].to_vec()).unwrap());
        at = end;
    }
    (labels.join("."), bytes[at + 2])
}

async fn resolve(socket: UdpSocket, answers: Arc<Mutex<HashMap<String, Vec<IpAddr>>>>) {
    let mut bytes = [0; 512];
    while let Ok((len, from)) = socket.recv_from(&mut bytes).await {
        let (name, kind) = question(&bytes[..len]);
        let data = {
            let mut answers = answers.lock().unwrap();
            let all = answers.get_mut(&name);
            let first = all.as_ref().and_then(|all| all.first().copied());
            let data = match (kind, first) {
                (1, Some(IpAddr::V4(a))) => Some(a.octets().to_vec()),
                (28, Some(IpAddr::V6(a))) => Some(a.octets().to_vec()),
                _ => None,
            };
            if let (Some(all), true) = (all, data.is_some())
                && all.len() > 1
            {
                all.remove(0);
            }
            data
        };
        let mut reply = bytes[..len].to_vec();
        reply[2] |= 0x80;
        if let Some(data) = data {
            reply[7] = 1;
            reply.extend([0xc0, 12, 0, kind, 0, 1, 0, 0, 0, 60, 0]);
            reply.push(u8::try_from(data.len()).unwrap());
            reply.extend(data);
        }
        let _ = socket.send_to(&reply, from).await;
    }
}
