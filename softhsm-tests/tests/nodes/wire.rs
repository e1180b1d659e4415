//! A way from a port of this machine to somewhere else, which can be cut: then nothing
//! comes through in either direction, and nobody is told.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

#[derive(Debug)]
pub(crate) struct Wire {
    port: u16,
    cut: Arc<AtomicBool>,
}

impl Wire {
    pub(crate) fn to(end: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let wire = Self {
            port: listener.local_addr().unwrap().port(),
            cut: Arc::default(),
        };
        let cut = Arc::clone(&wire.cut);
        thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                let cut = Arc::clone(&cut);
                thread::spawn(move || connect(near, end, &cut));
            }
        });
        wire
    }

    /// Where the near end is.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn cut(&self) {
        self.cut.store(true, Ordering::Release);
    }

    pub(crate) fn mend(&self) {
        self.cut.store(false, Ordering::Release);
    }
}

fn connect(near: TcpStream, end: SocketAddr, cut: &Arc<AtomicBool>) {
    passes(cut);
    let Ok(far) = TcpStream::connect(end) else {
        return;
    };
    for end in [&near, &far] {
        end.set_nodelay(true).unwrap();
    }
    let (back, there) = (far.try_clone().unwrap(), near.try_clone().unwrap());
    let both = Arc::clone(cut);
    thread::spawn(move || carry(back, there, &both));
    carry(near, far, cut);
}

/// Waits until the wire is whole.
fn passes(cut: &AtomicBool) {
    while cut.load(Ordering::Acquire) {
        thread::sleep(Duration::from_millis(5));
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, cut: &AtomicBool) {
    let mut block = [0; 16 << 10];
    while let Ok(n @ 1..) = from.read(&mut block) {
        passes(cut);
        if to.write_all(&block[..n]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}
