//! What the benchmarks share: a daemon on SoftHSM2 in a process of its own, an echo of the
//! same bytes on the same stack, and a token without Keywright.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::too_many_lines,
    clippy::useless_vec,
    reason = "a benchmark"
)]

pub mod aead;
pub mod desk;
pub mod load;
pub mod raw;

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    pin::Pin,
    process::{Child, Command, Stdio},
    sync::Arc,
};

use keywright_client::{Client, Settings};
use keywright_proto::v1::{
    self as proto, DecryptRequest, DecryptResponse, DecryptStreamRequest, DecryptStreamResponse,
    EncryptRequest, EncryptResponse, EncryptStreamRequest, EncryptStreamResponse, RewrapRequest,
    RewrapResponse,
    crypto_server::{Crypto, CryptoServer},
    decrypt_stream_response, encrypt_stream_response,
};
use keywright_service::{
    api::{Tenants, TlsReloader, accept, grpc},
    config::{Config, Limits},
};
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

/// The allocator of the daemon, so that the echo has the same.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A server in a process of its own; ends with this value.
#[derive(Debug)]
pub struct Server {
    child: Child,
    /// Where it listens.
    pub addr: SocketAddr,
    /// Where it shows its metrics.
    pub metrics: Option<String>,
}

impl Server {
    fn spawn(command: &mut Command) -> Self {
        Self::start(command).unwrap_or_else(|e| panic!("{e}: {command:?}"))
    }

    /// Waits until it says where it is.
    ///
    /// # Errors
    /// It cannot be started, or ended before it said so.
    pub fn start(command: &mut Command) -> std::io::Result<Self> {
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let stdout = child.stdout.take().map(BufReader::new);
        let mut metrics = None;
        for line in stdout.into_iter().flat_map(BufRead::lines) {
            let line = line?;
            let mut words = line.split_whitespace();
            match (words.next(), words.next(), words.next()) {
                (Some("metrics"), Some(addr), None) => metrics = Some(addr.to_owned()),
                (Some("ready"), Some("on"), Some(addr)) => {
                    let addr = addr.parse().map_err(std::io::Error::other)?;
                    return Ok(Self {
                        child,
                        addr,
                        metrics,
                    });
                }
                _ => {}
            }
        }
        let status = child.wait()?;
        Err(std::io::Error::other(format!(
            "the server ended before it was ready, {status}"
        )))
    }

    /// `keywrightd dev` on a fresh SoftHSM2 token under `dir`.
    #[must_use]
    pub fn daemon(dir: &Path) -> Self {
        let daemon = beside("keywrightd");
        assert!(
            daemon.exists(),
            "{} is missing; run: cargo build --release",
            daemon.display()
        );
        Self::spawn(
            Command::new(daemon)
                .args(["dev", "--listen", "127.0.0.1:0", "--data"])
                .arg(dir)
                .env("KEYWRIGHT_LOG", "warn"),
        )
    }

    /// The same with another PKCS#11 module, and what that reads of the environment.
    #[must_use]
    pub fn daemon_on(dir: &Path, module: &Path, environment: &[(&str, String)]) -> Self {
        Self::spawn(
            Command::new(beside("keywrightd"))
                .args(["dev", "--listen", "127.0.0.1:0", "--data"])
                .arg(dir)
                .arg("--module")
                .arg(module)
                .envs(environment.iter().map(|(k, v)| (k, v)))
                .env("KEYWRIGHT_LOG", "warn"),
        )
    }

    /// The echo, with the certificates a daemon has made under `dir`.
    #[must_use]
    pub fn echo(dir: &Path) -> Self {
        Self::spawn(
            Command::new(std::env::current_exe().unwrap())
                .arg("--echo")
                .arg(dir),
        )
    }

    /// CPU time of the process in seconds, user and system.
    #[must_use]
    pub fn cpu_seconds(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        // utime and stime are fields 14 and 15; the name before may hold blanks.
        let after = stat.rsplit(')').next().unwrap();
        let ticks: f64 = after
            .split_whitespace()
            .skip(11)
            .take(2)
            .map(|t| t.parse::<f64>().unwrap())
            .sum();
        ticks / 100.0
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A binary that was built with this one: target/release/NAME.
fn beside(name: &str) -> PathBuf {
    let deps = std::env::current_exe().unwrap();
    deps.parent().and_then(Path::parent).unwrap().join(name)
}

/// A connection as the developer of a dev directory.
pub async fn connect(dir: &Path, addr: SocketAddr) -> Client {
    let settings = Settings {
        addr: Some(addr.to_string()),
        ca: Some(dir.join("ca.pem")),
        cert: Some(dir.join("certs/developer.pem")),
        key: Some(dir.join("certs/developer.key")),
    };
    Client::connect(&settings).await.unwrap()
}

/// Serves the echo until killed: the listener, TLS, HTTP/2 settings and allocator of the
/// daemon, and no work.
pub fn serve_echo(dir: &Path) {
    serve_echo_as(&dir.join("keywrightd.toml"), "127.0.0.1:0");
}

/// The same with the configuration of any appliance.
pub fn serve_echo_as(config: &Path, listen: &str) {
    let config = Config::read(config).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let tls = TlsReloader::new(&config).unwrap();
        let listener = tokio::net::TcpListener::bind(listen).await.unwrap();
        println!("ready on {}", listener.local_addr().unwrap());
        let limits = Limits::default();
        let conns = accept(listener, tls, Arc::new(Tenants::default()), limits);
        grpc::server(&limits)
            .add_service(CryptoServer::new(Echo).max_decoding_message_size(limits.message_bytes))
            .serve_with_incoming(conns)
            .await
            .unwrap();
    });
}

type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Gives back what it is given.
#[derive(Debug)]
struct Echo;

/// The calls that echo, and those that nobody measures against an echo.
macro_rules! echo {
    (
        { $($real:tt)* }
        refused { $($rpc:ident($request:ident) -> $response:ident;)* }
        streams { $($stream:ident($piece:ident) -> $kind:ident = $reply:ident;)* }
    ) => {
        #[tonic::async_trait]
        impl Crypto for Echo {
            $($real)*

            $(async fn $rpc(
                &self,
                _: Request<proto::$request>,
            ) -> Result<Response<proto::$response>, Status> {
                Err(Status::unimplemented("the echo"))
            })*

            $(type $kind = tokio_stream::Empty<Result<proto::$reply, Status>>;

            async fn $stream(
                &self,
                _: Request<Streaming<proto::$piece>>,
            ) -> Result<Response<Self::$kind>, Status> {
                Err(Status::unimplemented("the echo"))
            })*
        }
    };
}

echo! {
    {
    async fn encrypt(
        &self,
        request: Request<EncryptRequest>,
    ) -> Result<Response<EncryptResponse>, Status> {
        let request = request.into_inner();
        Ok(Response::new(EncryptResponse {
            items: request.plaintexts,
            packed_items: request.packed_plaintexts,
            ..Default::default()
        }))
    }

    async fn decrypt(
        &self,
        request: Request<DecryptRequest>,
    ) -> Result<Response<DecryptResponse>, Status> {
        let request = request.into_inner();
        Ok(Response::new(DecryptResponse {
            plaintexts: request.items,
            packed_plaintexts: request.packed_items,
            ..Default::default()
        }))
    }

    async fn rewrap(
        &self,
        request: Request<RewrapRequest>,
    ) -> Result<Response<RewrapResponse>, Status> {
        let request = request.into_inner();
        Ok(Response::new(RewrapResponse {
            envelopes: request.envelopes,
            packed_envelopes: request.packed_envelopes,
            ..Default::default()
        }))
    }

    type EncryptStreamStream = Replies<EncryptStreamResponse>;

    async fn encrypt_stream(
        &self,
        pieces: Request<Streaming<EncryptStreamRequest>>,
    ) -> Result<Response<Self::EncryptStreamStream>, Status> {
        let replies = pieces.into_inner().map(|piece| {
            let EncryptStreamRequest { reference, batch } = piece?;
            let batch = batch.unwrap_or_default();
            let answer = EncryptResponse {
                items: batch.plaintexts,
                packed_items: batch.packed_plaintexts,
                ..Default::default()
            };
            let result = Some(encrypt_stream_response::Result::Batch(answer));
            Ok(EncryptStreamResponse { reference, result })
        });
        Ok(Response::new(Box::pin(replies)))
    }

    type DecryptStreamStream = Replies<DecryptStreamResponse>;

    async fn decrypt_stream(
        &self,
        pieces: Request<Streaming<DecryptStreamRequest>>,
    ) -> Result<Response<Self::DecryptStreamStream>, Status> {
        let replies = pieces.into_inner().map(|piece| {
            let DecryptStreamRequest { reference, batch } = piece?;
            let batch = batch.unwrap_or_default();
            let answer = DecryptResponse {
                plaintexts: batch.items,
                packed_plaintexts: batch.packed_items,
                ..Default::default()
            };
            let result = Some(decrypt_stream_response::Result::Batch(answer));
            Ok(DecryptStreamResponse { reference, result })
        });
        Ok(Response::new(Box::pin(replies)))
    }

    type LeaseDataKeyStream = tokio_stream::Empty<Result<proto::LeaseDataKeyResponse, Status>>;

    async fn lease_data_key(
        &self,
        _: Request<proto::LeaseDataKeyRequest>,
    ) -> Result<Response<Self::LeaseDataKeyStream>, Status> {
        Err(Status::unimplemented("the echo"))
    }
    }
    refused {
        reencrypt(ReencryptRequest) -> ReencryptResponse;
        generate_random(GenerateRandomRequest) -> GenerateRandomResponse;
        sign(SignRequest) -> SignResponse;
        verify(VerifyRequest) -> VerifyResponse;
        mac(MacRequest) -> MacResponse;
        verify_mac(VerifyMacRequest) -> VerifyMacResponse;
        asymmetric_decrypt(AsymmetricDecryptRequest) -> AsymmetricDecryptResponse;
        generate_data_keys(GenerateDataKeysRequest) -> GenerateDataKeysResponse;
        decrypt_data_keys(DecryptDataKeysRequest) -> DecryptDataKeysResponse;
        forget_data_keys(ForgetDataKeysRequest) -> ForgetDataKeysResponse;
    }
    streams {
        rewrap_stream(RewrapStreamRequest) -> RewrapStreamStream = RewrapStreamResponse;
        sign_stream(SignStreamRequest) -> SignStreamStream = SignStreamResponse;
    }
}
