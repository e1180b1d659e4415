//! Connections of ACME clients, as axum takes them: TLS is done when they come, and none
//! lives for ever.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{extract::connect_info::Connected, serve::IncomingStream};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpListener,
    time::{Sleep, sleep},
};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};

use crate::{
    api::{Conn, Tenants, TlsReloader, accept},
    config::Limits,
};

/// Connections whose handshake is done.
#[derive(Debug)]
pub struct Conns {
    ready: ReceiverStream<io::Result<Conn>>,
    address: SocketAddr,
    life: Duration,
}

/// Accepts TLS without client certificates.
///
/// # Errors
/// When the listener has no address.
pub fn client_conns(listener: TcpListener, tls: &TlsReloader, limits: Limits) -> io::Result<Conns> {
    Ok(Conns {
        address: listener.local_addr()?,
        life: Duration::from_millis(limits.acme_connection_ms),
        // Nobody is known by certificate here.
        ready: accept(
            listener,
            tls.for_anybody(),
            Arc::new(Tenants::default()),
            limits,
        ),
    })
}

impl axum::serve::Listener for Conns {
    type Io = Mortal;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Mortal, SocketAddr) {
        loop {
            match self.ready.next().await {
                Some(Ok(conn)) => {
                    let address = conn.address();
                    let death = Box::pin(sleep(self.life));
                    return (Mortal { conn, death }, address);
                }
                Some(Err(_)) => {}
                // Accepting ends only with the daemon.
                None => std::future::pending().await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

/// Where a request comes from.
#[derive(Debug, Clone, Copy)]
pub(super) struct ClientAddr(pub(super) SocketAddr);

impl Connected<IncomingStream<'_, Conns>> for ClientAddr {
    fn connect_info(stream: IncomingStream<'_, Conns>) -> Self {
        Self(*stream.remote_addr())
    }
}

/// A connection with an end: who sends a byte a minute holds no place for long.
#[derive(Debug)]
pub struct Mortal {
    conn: Conn,
    death: Pin<Box<Sleep>>,
}

impl AsyncRead for Mortal {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.death.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.conn).poll_read(cx, buf)
    }
}

impl AsyncWrite for Mortal {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.conn).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.conn).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.conn).poll_shutdown(cx)
    }
}
