//! The TLS connection: ours and not tonic's, to hear a refusal where it is said.
//!
//! In TLS 1.3 the client is done before the server has looked at the client's
//! certificate, so a refusal comes as the first thing to read. An HTTP/2 server speaks
//! first (RFC 9113 §3.4): whoever waits for its first byte knows.

use std::{io, path::Path, sync::Arc, time::Duration};

use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{ClientConfig, RootCertStore},
};

/// Long enough for any server that speaks first; one that does not is taken as it is.
const FIRST_WORD: Duration = Duration::from_secs(2);
const READ_BUFFER: usize = 64 << 10;

/// A connection on which the server has spoken.
pub(crate) type Connection = BufReader<TlsStream<TcpStream>>;

/// Our side: the CA of the server, our chain, our key. PEM files.
pub(crate) fn config(
    ca: (&str, &Path),
    cert: (&str, &Path),
    key: (&str, &Path),
) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    for root in certificates(ca)? {
        roots
            .add(root)
            .map_err(|e| format!("{}: {}: {e}", ca.0, ca.1.display()))?;
    }
    let chain = certificates(cert)?;
    let private = PrivateKeyDer::from_pem_file(key.1)
        .map_err(|e| format!("{}: {}: no private key: {e}", key.0, key.1.display()))?;
    let mut config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, private)
        .map_err(|e| format!("{} and {} do not fit: {e}", cert.0, key.0))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

fn certificates((name, path): (&str, &Path)) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| format!("{name}: {}: {e}", path.display()))?;
    if certificates.is_empty() {
        return Err(format!("{name}: {}: no certificate", path.display()));
    }
    Ok(certificates)
}

/// Connects and waits for the server's first word.
pub(crate) async fn connect(
    config: Arc<ClientConfig>,
    host: &str,
    port: u16,
) -> io::Result<Connection> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    let stream = TlsConnector::from(config).connect(name, stream).await?;
    let mut stream = BufReader::with_capacity(READ_BUFFER, stream);
    if let Ok(first) = timeout(FIRST_WORD, stream.fill_buf()).await
        && first?.is_empty()
    {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the server closed the connection without a word",
        ));
    }
    Ok(stream)
}
