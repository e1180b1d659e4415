//! Asks one recursive resolver, over UDP, and over TCP what does not fit.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

use super::message::{Data, Reply, Type, question, reply};
use crate::acme::{Problem, ProblemKind};

#[derive(Debug)]
pub(super) struct Resolver {
    server: SocketAddr,
}

/// A datagram may get lost; then it is asked again.
const TRIES: usize = 3;
const TRY: Duration = Duration::from_secs(2);
const UDP_BYTES: usize = 4096;

fn failed(text: impl Into<String>) -> Problem {
    Problem::new(ProblemKind::Dns, text)
}

impl Resolver {
    pub(super) fn new(server: SocketAddr) -> Self {
        Self { server }
    }

    /// The addresses of a host.
    pub(super) async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, Problem> {
        let (v4, v6) = tokio::join!(self.records(host, Type::A), self.records(host, Type::Aaaa));
        // A resolver that fails for one family is no reason to miss the other.
        let found: Vec<IpAddr> = match (v4, v6) {
            (Err(e), Err(_)) => return Err(e),
            (v4, v6) => [v4, v6].into_iter().flatten().flatten().collect::<Vec<_>>(),
        }
        .into_iter()
        .filter_map(|data| match data {
            Data::Address(address) => Some(address),
            Data::Text(_) => None,
        })
        .collect();
        if found.is_empty() {
            return Err(failed(format!("{host} has no address")));
        }
        Ok(found)
    }

    /// The TXT records of a name.
    pub(super) async fn texts(&self, name: &str) -> Result<Vec<Vec<u8>>, Problem> {
        let records = self.records(name, Type::Txt).await?;
        let texts = records.into_iter().filter_map(|data| match data {
            Data::Text(text) => Some(text),
            Data::Address(_) => None,
        });
        Ok(texts.collect())
    }

    async fn records(&self, name: &str, kind: Type) -> Result<Vec<Data>, Problem> {
        let unreachable =
            |e: std::io::Error| failed(format!("the resolver cannot be asked: {}", e.kind()));
        for _ in 0..TRIES {
            // A new socket, and with it a new port, for each try (RFC 5452 §9.2).
            let mut id = [0; 2];
            aws_lc_rs::rand::fill(&mut id).map_err(|_| failed("no random bytes for a question"))?;
            let question = question(u16::from_be_bytes(id), name, kind)
                .ok_or_else(|| failed(format!("{name} is no name to ask for")))?;
            let answer = match timeout(TRY, self.over_udp(&question, kind)).await {
                Ok(answer) => answer.map_err(unreachable)?,
                Err(_) => continue,
            };
            let answer = match answer {
                Reply::Truncated => match timeout(TRY, self.over_tcp(&question, kind)).await {
                    Ok(answer) => answer.map_err(unreachable)?,
                    Err(_) => continue,
                },
                answer => answer,
            };
            return match answer {
                Reply::Records(records) => Ok(records),
                Reply::NoName => Err(failed(format!("there is no name {name}"))),
                Reply::Truncated => Err(failed("the resolver truncates over TCP")),
                Reply::Failed(code) => Err(failed(format!(
                    "the resolver answered with RCODE {code} for {name}"
                ))),
            };
        }
        Err(failed(format!("the resolver did not answer for {name}")))
    }

    async fn over_udp(&self, question: &[u8], kind: Type) -> std::io::Result<Reply> {
        let any: SocketAddr = if self.server.is_ipv4() {
            ([0, 0, 0, 0], 0).into()
        } else {
            ([0u16; 8], 0).into()
        };
        let socket = UdpSocket::bind(any).await?;
        socket.connect(self.server).await?;
        socket.send(question).await?;
        let mut bytes = vec![0; UDP_BYTES];
        loop {
            // What is no reply to this question is somebody else's guess: wait on.
            let len = socket.recv(&mut bytes).await?;
            if let Some(reply) = reply(question, kind, bytes.get(..len).unwrap_or_default()) {
                return Ok(reply);
            }
        }
    }

    async fn over_tcp(&self, question: &[u8], kind: Type) -> std::io::Result<Reply> {
        let mut stream = TcpStream::connect(self.server).await?;
        let len = u16::try_from(question.len()).unwrap_or(u16::MAX);
        stream
            .write_all(&[&len.to_be_bytes(), question].concat())
            .await?;
        let len = stream.read_u16().await?;
        let mut bytes = vec![0; usize::from(len)];
        stream.read_exact(&mut bytes).await?;
        reply(question, kind, &bytes).ok_or_else(|| std::io::ErrorKind::InvalidData.into())
    }
}
