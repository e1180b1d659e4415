//! The door itself: who gets in, what a hostile peer can do, what stays open.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::too_many_lines,
    clippy::useless_vec,
    reason = "this is a test"
)]

mod common;

use std::{fs, sync::Arc, time::Duration};

use common::{Appliance, encrypt, reason};
use keywright_client::{Client, FailureKind, Settings, proto};
use keywright_service::config::Limits;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::{
    Code, Status,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};

async fn first_call(client: &Client) -> Status {
    client
        .crypto()
        .encrypt(encrypt("k", &[b"x"]))
        .await
        .unwrap_err()
}

#[tokio::test]
async fn certificates_that_name_nobody_are_told_why() {
    let it = Appliance::start().await;
    for (name, expected) in [
        ("nameless", "no URI name"),
        ("two", "2 URI names; it must have exactly one"),
        ("foreign", "\"elsewhere.example\" belongs to no tenant"),
    ] {
        let e = first_call(&it.client("red", name).await).await;
        assert_eq!(
            (e.code(), reason(&e).as_str()),
            (Code::Unauthenticated, "UNAUTHENTICATED")
        );
        assert!(e.message().contains(expected), "{name}: {}", e.message());
    }
    let outcome = it.records("Encrypt").pop().unwrap()["outcome"].clone();
    assert_eq!(outcome, "UNAUTHENTICATED");
}

#[tokio::test]
async fn a_client_without_a_certificate_is_told_so() {
    let it = Appliance::start().await;
    let channel = anonymous(&it).await;
    let mut crypto = proto::crypto_client::CryptoClient::new(channel);
    let e = crypto.encrypt(encrypt("k", &[b"x"])).await.unwrap_err();
    assert_eq!(e.code(), Code::Unauthenticated);
    assert!(
        e.message().contains("a client certificate is needed"),
        "{}",
        e.message()
    );
}

/// Another CA, and the CA of one tenant minting an identity of the other.
#[tokio::test]
async fn certificates_of_another_ca_do_not_get_through_the_handshake() {
    let it = Appliance::start().await;
    for settings in [
        Settings {
            cert: Some(it.dir.path().join("stranger-admin.pem")),
            key: Some(it.dir.path().join("stranger-admin.key")),
            ..it.settings("red", "user")
        },
        it.settings("red", "forged"),
        it.settings("blue", "forged"),
    ] {
        // In TLS 1.3 the refusal arrives with the first answer, or while connecting.
        let failure = match Client::connect(&settings).await {
            Ok(client) => first_call(&client).await.into(),
            Err(failure) => failure,
        };
        let shown = failure.to_string();
        assert!(
            matches!(
                failure.kind(),
                FailureKind::Denied | FailureKind::Unavailable
            ),
            "{shown}"
        );
    }
    assert!(it.records("Encrypt").is_empty(), "nobody came so far");
}

async fn anonymous(it: &Appliance) -> Channel {
    let ca = fs::read(it.dir.path().join("server-ca.pem")).unwrap();
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca));
    let endpoint = Endpoint::from_shared(format!("https://{}", it.addr)).unwrap();
    endpoint.tls_config(tls).unwrap().connect().await.unwrap()
}

#[tokio::test]
async fn health_is_open_and_reflection_is_not() {
    use tonic_health::pb::{
        HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
    };
    let it = Appliance::start().await;
    let channel = anonymous(&it).await;
    let mut health = HealthClient::new(channel.clone());
    let check = |service: &str| HealthCheckRequest {
        service: service.into(),
    };
    for service in ["", "keywright.v1.Crypto", "keywright.v1.Keys"] {
        let mut status = ServingStatus::Unknown;
        for _ in 0..50 {
            status = health
                .check(check(service))
                .await
                .map_or(status, |r| r.into_inner().status());
            if status == ServingStatus::Serving {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(status, ServingStatus::Serving, "{service:?}");
    }
    let e = reflect(channel).await.unwrap_err();
    assert_eq!(e.code(), Code::Unauthenticated);
    // With an identity it answers, and the answer is on record.
    let client = it.settings("red", "nobody");
    let services = reflect(mutual(&it, &client).await).await.unwrap();
    assert!(
        services.contains(&"keywright.v1.Crypto".to_owned()),
        "{services:?}"
    );
    assert_eq!(it.records("Reflection").len(), 2);
}

async fn mutual(it: &Appliance, settings: &Settings) -> Channel {
    let read = |path: &Option<std::path::PathBuf>| fs::read(path.as_ref().unwrap()).unwrap();
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(read(&settings.ca)))
        .identity(tonic::transport::Identity::from_pem(
            read(&settings.cert),
            read(&settings.key),
        ));
    let endpoint = Endpoint::from_shared(format!("https://{}", it.addr)).unwrap();
    endpoint.tls_config(tls).unwrap().connect().await.unwrap()
}

async fn reflect(channel: Channel) -> Result<Vec<String>, Status> {
    use tonic_reflection::pb::v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut answers = ServerReflectionClient::new(channel)
        .server_reflection_info(tokio_stream::once(request))
        .await?
        .into_inner();
    match answers.message().await?.and_then(|m| m.message_response) {
        Some(MessageResponse::ListServicesResponse(list)) => {
            Ok(list.service.into_iter().map(|s| s.name).collect())
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_unknown_method_is_refused_and_recorded() {
    let it = Appliance::start().await;
    let channel = mutual(&it, &it.settings("red", "user")).await;
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<proto::GetKeyRequest, proto::GetKeyResponse>::default();
    let path = "/keywright.v1.Keys/ExportKey".parse().unwrap();
    let request = tonic::Request::new(proto::GetKeyRequest::default());
    let e = grpc.unary(request, path, codec).await.unwrap_err();
    assert_eq!(e.code(), Code::Unimplemented);
    assert_eq!(
        it.records("Unknown").pop().unwrap()["outcome"],
        "UNIMPLEMENTED"
    );
}

/// A connection of its own, below gRPC.
async fn raw(it: &Appliance, name: &str) -> TlsStream<TcpStream> {
    let settings = it.settings("red", name);
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(settings.ca.unwrap()).unwrap())
        .unwrap();
    let chain = vec![CertificateDer::from_pem_file(settings.cert.unwrap()).unwrap()];
    let key = PrivateKeyDer::from_pem_file(settings.key.unwrap()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(it.addr).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .unwrap()
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const EMPTY_SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;

/// Type and payload of the next frame; `None` at the end.
async fn frame(stream: &mut TlsStream<TcpStream>) -> Option<(u8, Vec<u8>)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.ok()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let mut payload = vec![0; length as usize];
    stream.read_exact(&mut payload).await.ok()?;
    Some((head[3], payload))
}

#[tokio::test]
async fn settings_carry_the_cap_on_streams() {
    let it = Appliance::start().await;
    let mut stream = raw(&it, "user").await;
    stream.write_all(PREFACE).await.unwrap();
    stream.write_all(&EMPTY_SETTINGS).await.unwrap();
    let (kind, payload) = timeout(Duration::from_secs(5), frame(&mut stream))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(kind, SETTINGS);
    let settings: Vec<(u16, u32)> = payload
        .chunks(6)
        .map(|s| {
            (
                u16::from_be_bytes([s[0], s[1]]),
                u32::from_be_bytes([s[2], s[3], s[4], s[5]]),
            )
        })
        .collect();
    // RFC 9113 §6.5.2: 3 MAX_CONCURRENT_STREAMS, 5 MAX_FRAME_SIZE, 6 MAX_HEADER_LIST_SIZE.
    assert!(settings.contains(&(3, 128)), "{settings:?}");
    assert!(settings.contains(&(5, 256 << 10)), "{settings:?}");
    assert!(settings.contains(&(6, 16 << 10)), "{settings:?}");
}

/// 5,000 requests that are not requests, on one connection: the server ends it.
#[tokio::test]
async fn malformed_streams_end_the_connection() {
    let it = Appliance::start().await;
    it.create("red", "k").await;
    let (mut read, mut write) = tokio::io::split(raw(&it, "user").await);
    let attack = tokio::spawn(async move {
        let mut bytes = [PREFACE, &EMPTY_SETTINGS].concat();
        for n in 0..5000u32 {
            // HEADERS with END_STREAM and END_HEADERS, and in it nothing but ":method: GET".
            let id = (2 * n + 1).to_be_bytes();
            bytes.extend([0, 0, 1, 1, 0x5, id[0], id[1], id[2], id[3], 0x82]);
        }
        // The server may hang up before it has read everything.
        let _ = write.write_all(&bytes).await;
        let _ = write.flush().await;
        write
    });
    let mut resets = 0;
    let mut went_away = None;
    let mut head = [0; 9];
    while let Ok(Ok(_)) = timeout(Duration::from_secs(10), read.read_exact(&mut head)).await {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        if read.read_exact(&mut payload).await.is_err() {
            break;
        }
        match head[3] {
            3 => resets += 1,
            GOAWAY => {
                went_away = Some(u32::from_be_bytes([
                    payload[4], payload[5], payload[6], payload[7],
                ]))
            }
            _ => {}
        }
    }
    drop(attack.await);
    // ENHANCE_YOUR_CALM, after about a thousand.
    assert_eq!(went_away, Some(0xb), "after {resets} resets");
    assert!(resets <= 1100, "{resets}");
    // Others are served as before.
    let user = it.client("red", "user").await;
    user.crypto().encrypt(encrypt("k", &[b"x"])).await.unwrap();
}

#[tokio::test]
async fn a_silent_handshake_is_given_up() {
    let limits = Limits {
        handshake_ms: 200,
        ..Limits::default()
    };
    let it = Appliance::with(limits).await;
    let mut silent = TcpStream::connect(it.addr).await.unwrap();
    let mut byte = [0];
    let closed = timeout(Duration::from_secs(5), silent.read(&mut byte)).await;
    assert!(matches!(closed, Ok(Ok(0) | Err(_))), "{closed:?}");
}

#[tokio::test]
async fn too_many_requests_at_once_are_told_to_come_again() {
    let limits = Limits {
        requests_in_flight: 2,
        ..Limits::default()
    };
    let it = Appliance::with(limits).await;
    it.create("red", "k").await;
    let pause = keywright_hsm::fake::Fault::Slow(Duration::from_millis(300));
    it.device.inject(std::iter::repeat_n(pause, 4));
    let user = it.client("red", "user").await;
    let calls: Vec<_> = (0..10)
        .map(|_| {
            let mut crypto = user.crypto();
            tokio::spawn(async move { crypto.encrypt(encrypt("k", &[b"x"])).await })
        })
        .collect();
    let mut busy = 0;
    for call in calls {
        if let Err(e) = call.await.unwrap() {
            assert_eq!(
                (e.code(), reason(&e).as_str()),
                (Code::ResourceExhausted, "BUSY")
            );
            busy += 1;
        }
    }
    assert!(busy >= 6, "{busy}");
}

#[tokio::test]
async fn only_tls_1_3_is_spoken() {
    let it = Appliance::start().await;
    let mut roots = RootCertStore::empty();
    let ca = it.settings("red", "user").ca.unwrap();
    roots
        .add(CertificateDer::from_pem_file(ca).unwrap())
        .unwrap();
    // A ClientHello of TLS 1.2 by hand would be long: rustls in this build speaks 1.3
    // only, so what is left to see is what was agreed.
    let stream = raw(&it, "user").await;
    let version = stream.get_ref().1.protocol_version();
    assert_eq!(version, Some(rustls::ProtocolVersion::TLSv1_3));
}
