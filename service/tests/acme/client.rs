//! A small ACME client: enough to be honest or hostile with.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use aws_lc_rs::{
    digest, hmac,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use keywright_service::acme::encode64;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

pub(crate) fn sha256(bytes: &[u8]) -> Vec<u8> {
    digest::digest(&digest::SHA256, bytes).as_ref().to_vec()
}

/// The certificates of a PEM file, DER each.
pub(crate) fn pem(text: &str) -> Vec<Vec<u8>> {
    let blocks = text.split("-----BEGIN CERTIFICATE-----\n").skip(1);
    let body = |block: &str| block.split("\n-----END").next().unwrap().replace('\n', "");
    blocks
        .map(|b| BASE64_STANDARD.decode(body(b)).unwrap())
        .collect()
}

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// The last part of the problem's type.
    pub(crate) fn problem(&self) -> String {
        let kind = self.json()["type"].as_str().unwrap_or_default().to_owned();
        kind.rsplit(':').next().unwrap().to_owned()
    }
}

pub(crate) struct Client {
    key: EcdsaKeyPair,
    pub(crate) kid: Option<String>,
    pub(crate) directory: Value,
    address: SocketAddr,
    tls: TlsConnector,
    nonce: Option<String>,
}

fn jwk(key: &EcdsaKeyPair) -> Value {
    let point = key.public_key().as_ref();
    json!({"kty": "EC", "crv": "P-256", "x": encode64(&point[1..33]), "y": encode64(&point[33..])})
}

fn new_key() -> EcdsaKeyPair {
    EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap()
}

fn signed(key: &EcdsaKeyPair, header: &Value, payload: &[u8]) -> Value {
    let (protected, payload) = (encode64(header.to_string().as_bytes()), encode64(payload));
    let message = format!("{protected}.{payload}");
    let signature = key.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
    json!({"protected": protected, "payload": payload, "signature": encode64(signature.as_ref())})
}

impl Client {
    pub(crate) async fn new(
        address: SocketAddr,
        tls: Arc<rustls::ClientConfig>,
        directory: &str,
    ) -> Self {
        let mut client = Self {
            key: new_key(),
            kid: None,
            directory: Value::Null,
            address,
            tls: TlsConnector::from(tls),
            nonce: None,
        };
        client.directory = client.open("GET", directory).await.json();
        client
    }

    pub(crate) fn thumbprint(&self) -> String {
        // Members in the order of RFC 7638.
        let jwk = jwk(&self.key);
        let (x, y) = (&jwk["x"], &jwk["y"]);
        encode64(&sha256(
            format!(r#"{{"crv":"P-256","kty":"EC","x":{x},"y":{y}}}"#).as_bytes(),
        ))
    }

    /// A request without a signature.
    pub(crate) async fn open(&mut self, method: &str, url: &str) -> Reply {
        self.exchange(method, url, "").await
    }

    async fn exchange(&mut self, method: &str, url: &str, body: &str) -> Reply {
        let path = url.splitn(4, '/').nth(3).unwrap();
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let mut stream = self.tls.connect(name, stream).await.unwrap();
        let head = format!(
            "{method} /{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/jose+json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes).await;
        let end = bytes
            .windows(4)
            .position(|w| w == b"\r\n\r\n")
            .expect("a head");
        let text = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let headers = text.lines().skip(1).filter_map(|l| l.split_once(": "));
        let reply = Reply {
            status: text[9..12].parse().unwrap(),
            headers: headers
                .map(|(n, v)| (n.to_lowercase(), v.to_owned()))
                .collect(),
            body: bytes[end + 4..].to_vec(),
        };
        self.nonce = reply.header("replay-nonce").map(str::to_owned);
        assert!(self.nonce.is_some(), "{method} {url} brought no nonce");
        reply
    }

    pub(crate) async fn sign(&mut self, url: &str, payload: &Value) -> Value {
        let bytes = if payload.is_null() {
            Vec::new()
        } else {
            payload.to_string().into_bytes()
        };
        let nonce = match self.nonce.take() {
            Some(nonce) => nonce,
            None => {
                let url = self.directory["newNonce"].as_str().unwrap().to_owned();
                self.open("HEAD", &url)
                    .await
                    .header("replay-nonce")
                    .unwrap()
                    .to_owned()
            }
        };
        let mut header = json!({"alg": "ES256", "nonce": nonce, "url": url});
        match &self.kid {
            Some(kid) => header["kid"] = json!(kid),
            None => header["jwk"] = jwk(&self.key),
        }
        signed(&self.key, &header, &bytes)
    }

    pub(crate) async fn send(&mut self, url: &str, body: &Value) -> Reply {
        self.exchange("POST", url, &body.to_string()).await
    }

    pub(crate) async fn post(&mut self, url: &str, payload: &Value) -> Reply {
        let body = self.sign(url, payload).await;
        self.send(url, &body).await
    }

    /// POST-as-GET.
    pub(crate) async fn get(&mut self, url: &str) -> Reply {
        self.post(url, &Value::Null).await
    }

    /// Until its status is another one.
    pub(crate) async fn wait(&mut self, url: &str, status: &str) -> Value {
        for _ in 0..400 {
            let found = self.get(url).await.json();
            if found["status"] != status {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{url} stays {status}");
    }

    pub(crate) async fn register(&mut self, binding: Option<(&str, &str)>) -> Reply {
        let url = self.directory["newAccount"].as_str().unwrap().to_owned();
        let mut payload = json!({"termsOfServiceAgreed": true, "contact": ["mailto:a@b.example"]});
        if let Some((kid, key)) = binding {
            let key = keywright_service::acme::decode64(key).unwrap();
            let header = json!({"alg": "HS256", "kid": kid, "url": url}).to_string();
            let (protected, inner) = (
                encode64(header.as_bytes()),
                encode64(jwk(&self.key).to_string().as_bytes()),
            );
            let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
            let tag = hmac::sign(&key, format!("{protected}.{inner}").as_bytes());
            payload["externalAccountBinding"] = json!({"protected": protected, "payload": inner, "signature": encode64(tag.as_ref())});
        }
        let kid = self.kid.take();
        let reply = self.post(&url, &payload).await;
        self.kid = reply.header("location").map(str::to_owned).or(kid);
        reply
    }

    pub(crate) async fn change_key(&mut self) -> Reply {
        let url = self.directory["keyChange"].as_str().unwrap().to_owned();
        let new = new_key();
        let header = json!({"alg": "ES256", "jwk": jwk(&new), "url": url});
        let asked = json!({"account": self.kid, "oldKey": jwk(&self.key)}).to_string();
        let reply = self
            .post(&url, &signed(&new, &header, asked.as_bytes()))
            .await;
        self.key = new;
        reply
    }
}
