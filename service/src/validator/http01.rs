//! http-01 (RFC 8555 §8.3): GET of a small file, with a few redirects.
//!
//! HTTP/1.0 on purpose: one request, one answer to the end of the connection, no chunks.

use keywright_pki::{Cidr, DnsName, San};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{Claim, Validator, tls_alpn01};
use crate::acme::{Problem, ProblemKind};

/// Redirects that are followed.
const MAX_REDIRECTS: usize = 5;
/// Head and body together; a key authorisation has less than 100 bytes.
const MAX_BYTES: u64 = 16 << 10;

fn incorrect(text: impl Into<String>) -> Problem {
    Problem::new(ProblemKind::IncorrectResponse, text)
}

/// Where to look.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    tls: bool,
    host: San,
    port: Option<u16>,
    path: String,
}

impl Validator {
    pub(super) async fn http01(&self, claim: Claim<'_>) -> Result<(), Problem> {
        let mut place = Place {
            tls: false,
            host: claim.name.clone(),
            port: None,
            path: format!("/.well-known/acme-challenge/{}", claim.token),
        };
        for _ in 0..=MAX_REDIRECTS {
            let answer = self.fetch(&place, claim.networks).await?;
            match read(&answer)? {
                Answer::Body(body)
                    if body.trim_ascii_end() == claim.key_authorization.as_bytes() =>
                {
                    return Ok(());
                }
                Answer::Body(_) => {
                    return Err(incorrect("the file does not hold the key authorisation"));
                }
                Answer::Elsewhere(location) => {
                    place = follow(&place, &location)
                        .ok_or_else(|| incorrect("it redirects to where nobody looks: http on port 80 or https on port 443 of a host"))?;
                }
                Answer::Status(status) => {
                    return Err(incorrect(format!("the host answered with status {status}")));
                }
            }
        }
        Err(incorrect(format!(
            "it redirects more than {MAX_REDIRECTS} times"
        )))
    }

    async fn fetch(&self, place: &Place, networks: &[Cidr]) -> Result<Vec<u8>, Problem> {
        let port = match (place.port, place.tls) {
            (Some(port), _) => port,
            (None, true) => 443,
            (None, false) => self.http01_port,
        };
        let stream = self.connect((&place.host, port), networks).await?;
        let host = match &place.host {
            San::Dns(name) => name.as_str().to_owned(),
            San::Ip(std::net::IpAddr::V6(address)) => format!("[{address}]"),
            San::Ip(address) => address.to_string(),
            San::Uri(_) => return Err(Problem::malformed("a URI is no host")),
        };
        let request = format!(
            "GET {} HTTP/1.0\r\nHost: {host}\r\nUser-Agent: keywright-acme\r\nAccept: */*\r\nConnection: close\r\n\r\n",
            place.path
        );
        if place.tls {
            let stream = tls_alpn01::any_tls(stream, &place.host).await?;
            exchange(stream, &request).await
        } else {
            exchange(stream, &request).await
        }
    }
}

async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    request: &str,
) -> Result<Vec<u8>, Problem> {
    let broken = |e: std::io::Error| {
        Problem::new(
            ProblemKind::Connection,
            format!("the connection broke: {}", e.kind()),
        )
    };
    stream.write_all(request.as_bytes()).await.map_err(broken)?;
    let mut bytes = Vec::new();
    match stream.take(MAX_BYTES).read_to_end(&mut bytes).await {
        // Many servers end TLS without saying so; the body is compared anyway.
        Err(e) if e.kind() != std::io::ErrorKind::UnexpectedEof => Err(broken(e)),
        _ => Ok(bytes),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Body(Vec<u8>),
    Elsewhere(String),
    Status(u16),
}

/// Status line, headers, body (RFC 9112 §2).
fn read(bytes: &[u8]) -> Result<Answer, Problem> {
    let no_http = || incorrect("the answer is no HTTP");
    let end = bytes
        .windows(4)
        .position(|w| w == b"\r\n\r\n")
        .ok_or_else(no_http)?;
    let (head, body) = bytes.split_at_checked(end).ok_or_else(no_http)?;
    let head = std::str::from_utf8(head).map_err(|_| no_http())?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1."));
    let status = status.and_then(|line| line.get(2..5)?.parse().ok());
    let mut headers = lines.filter_map(|line| line.split_once(':'));
    match status.ok_or_else(no_http)? {
        200 => Ok(Answer::Body(body.get(4..).unwrap_or_default().to_vec())),
        301 | 302 | 303 | 307 | 308 => {
            let location = headers.find(|(name, _)| name.eq_ignore_ascii_case("location"));
            let location = location
                .ok_or_else(|| incorrect("it redirects to nowhere"))?
                .1;
            Ok(Answer::Elsewhere(location.trim().to_owned()))
        }
        other => Ok(Answer::Status(other)),
    }
}

/// The place a Location names: absolute, or a path on the same host. Nobody is asked at
/// another port than those of the web.
fn follow(from: &Place, location: &str) -> Option<Place> {
    let legal = |b: u8| b.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&b);
    if location.len() > 2048 || !location.bytes().all(legal) {
        return None;
    }
    let location = location.split('#').next().unwrap_or_default();
    if location.starts_with('/') && !location.starts_with("//") {
        return Some(Place {
            path: location.to_owned(),
            ..from.clone()
        });
    }
    let (scheme, rest) = location.split_once("://")?;
    let (tls, default) = match scheme.to_ascii_lowercase().as_str() {
        "http" => (false, 80),
        "https" => (true, 443),
        _ => return None,
    };
    let at = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at_checked(at)?;
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port.parse::<u16>().ok()?)),
        _ => (authority, None),
    };
    if port.is_some_and(|port| port != default) {
        return None;
    }
    let literal = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let host = match literal {
        Some(v6) => San::Ip(std::net::IpAddr::V6(v6.parse().ok()?)),
        None => match host.parse::<std::net::Ipv4Addr>() {
            Ok(v4) => San::Ip(v4.into()),
            Err(_) => San::Dns(DnsName::parse(host).ok().filter(|n| !n.is_wildcard())?),
        },
    };
    let path = if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("/{path}")
    };
    // A named port is the default one; none at all is the test port where there is one.
    Some(Place {
        tls,
        host,
        port,
        path,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn place() -> Place {
        Place {
            tls: false,
            host: San::dns("a.example").unwrap(),
            port: None,
            path: "/x".into(),
        }
    }

    #[test]
    fn answers_are_read() {
        assert_eq!(
            read(b"HTTP/1.1 200 OK\r\nA: b\r\n\r\nbody").unwrap(),
            Answer::Body(b"body".to_vec())
        );
        assert_eq!(
            read(b"HTTP/1.0 404 No\r\n\r\n").unwrap(),
            Answer::Status(404)
        );
        let moved = read(b"HTTP/1.1 302 Found\r\nLOCATION: /y\r\n\r\n").unwrap();
        assert_eq!(moved, Answer::Elsewhere("/y".into()));
        for bad in [
            &b""[..],
            b"HTTP/1.1 200 OK\r\n",
            b"ICY 200\r\n\r\n",
            b"HTTP/1.1 xyz\r\n\r\n",
            b"HTTP/1.1 302 F\r\n\r\n",
        ] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn redirects_go_to_the_ports_of_the_web_only() {
        assert_eq!(follow(&place(), "/y?z").unwrap().path, "/y?z");
        let other = follow(&place(), "https://b.example/p").unwrap();
        assert!(other.tls && other.host == San::dns("b.example").unwrap());
        assert_eq!(
            follow(&place(), "http://[2001:db8::1]/").unwrap().host,
            "ip:2001:db8::1".parse().unwrap()
        );
        for bad in [
            "http://b.example:8080/",
            "https://b.example:80/",
            "ftp://b.example/",
            "//b.example/",
            "file:///etc/passwd",
            "http://u:p@b.example/",
            "http:///x",
            "http://b..example/",
            "gopher://x",
            "http://b.example:22/",
            "javascript:alert(1)",
            "",
        ] {
            assert_eq!(follow(&place(), bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, location: String) {
            let _ = read(&bytes);
            let _ = read(&[b"HTTP/1.1 302 x\r\n".as_slice(), &bytes, b"\r\n\r\n"].concat());
            let _ = follow(&place(), &location);
        }
    }
}
