//! Connections: accepted here, not by tonic, so that a slow handshake blocks nobody, an
//! accept error ends nothing, and every connection knows who it is before its first
//! request.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;
use tracing::{debug, warn};

use super::{Peer, Tenants, TlsReloader};
use crate::{config::Limits, metrics};

/// A connection whose handshake is done.
pub struct Conn {
    stream: TlsStream<TcpStream>,
    peer: Arc<Peer>,
    _open: metrics::OpenConnection,
    _slot: OwnedSemaphorePermit,
}

/// After an accept error (out of file descriptors, say) a short pause, then on.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);
/// How long, and for how many bytes, a refused peer may take to hear so.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 64 << 10;
/// Connections that are ready and not yet taken up.
const READY: usize = 64;

/// Accepts until the receiver is dropped.
#[must_use]
pub fn accept(
    listener: TcpListener,
    tls: TlsReloader,
    tenants: Arc<Tenants>,
    limits: Limits,
) -> ReceiverStream<io::Result<Conn>> {
    let (ready, conns) = mpsc::channel(READY);
    tokio::spawn(async move {
        let slots = Arc::new(Semaphore::new(limits.connections));
        loop {
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
                return;
            };
            let (stream, address) = tokio::select! {
                () = ready.closed() => return,
                accepted = listener.accept() => match accepted {
                    Ok(accepted) => accepted,
                    Err(e) => {
                        warn!(error = %e, "a connection could not be accepted");
                        sleep(ACCEPT_PAUSE).await;
                        continue;
                    }
                },
            };
            let (ready, tls, tenants) = (ready.clone(), tls.clone(), Arc::clone(&tenants));
            let patience = Duration::from_millis(limits.handshake_ms);
            tokio::spawn(async move {
                if let Some(conn) = handshake(stream, address, &tls, &tenants, slot, patience).await
                {
                    let _ = ready.send(Ok(conn)).await;
                }
            });
        }
    });
    ReceiverStream::new(conns)
}

async fn handshake(
    stream: TcpStream,
    address: SocketAddr,
    tls: &TlsReloader,
    tenants: &Tenants,
    slot: OwnedSemaphorePermit,
    patience: Duration,
) -> Option<Conn> {
    if let Err(e) = stream.set_nodelay(true) {
        debug!(peer = %address, error = %e, "no TCP_NODELAY");
    }
    let accept = TlsAcceptor::from(tls.current())
        .accept(stream)
        .into_fallible();
    let stream = match timeout(patience, accept).await {
        Ok(Ok(stream)) => stream,
        Ok(Err((e, stream))) => {
            metrics::handshake("refused");
            warn!(peer = %address, error = %e, "TLS handshake refused");
            let _ = timeout(LINGER, linger(stream)).await;
            return None;
        }
        Err(_) => {
            metrics::handshake("late");
            warn!(peer = %address, "TLS handshake took too long");
            return None;
        }
    };
    metrics::handshake("ok");
    let peer = tenants.peer(address, stream.get_ref().1.peer_certificates());
    Some(Conn {
        stream,
        peer: Arc::new(peer),
        _open: metrics::OpenConnection::new(),
        _slot: slot,
    })
}

/// The alert is on its way. Closing at once, with bytes of the peer unread, would make
/// the kernel send a reset that overtakes it, and the peer would never hear why.
async fn linger(mut stream: TcpStream) -> io::Result<()> {
    stream.shutdown().await?;
    let mut rest = [0; 1024];
    let mut left = LINGER_BYTES;
    while left > 0 {
        match stream.read(&mut rest).await? {
            0 => break,
            n => left = left.saturating_sub(n),
        }
    }
    Ok(())
}

impl Conn {
    /// The other end.
    pub(super) fn address(&self) -> SocketAddr {
        self.peer.address
    }
}

impl Connected for Conn {
    type ConnectInfo = Arc<Peer>;

    fn connect_info(&self) -> Self::ConnectInfo {
        Arc::clone(&self.peer)
    }
}

impl std::fmt::Debug for Conn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Conn({})", self.peer.address)
    }
}

impl AsyncRead for Conn {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Conn {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
