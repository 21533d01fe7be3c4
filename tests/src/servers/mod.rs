//! Servers that the world has. Each stops when it is dropped.

use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use anyhow::{Context as _, Result};
use socket2::{Domain, Socket, Type};

use std::net::{Shutdown, SocketAddr};

use crate::netns::Namespace;

mod certificate;
pub mod dns;
pub mod dnsmasq;
pub mod echo;
pub mod https;
pub mod listener;
pub mod misbehaving;
pub mod reflector;
mod reply;
pub mod unbound;

/// A thread that serves one socket.
#[derive(Debug)]
struct Service {
    socket: Socket,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Service {
    /// Starts a thread that calls `serve` until it fails, which it does when the service is dropped.
    fn start(socket: Socket, mut serve: impl FnMut(&Socket) -> io::Result<()> + Send + 'static) -> Result<Self> {
        let (stop, own) = (Arc::new(AtomicBool::new(false)), socket.try_clone().context("share a socket")?);
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            // One bad peer does not end a server; the stop flag does.
            while !stopped.load(Ordering::Acquire) {
                drop(serve(&own));
            }
        });
        Ok(Self { socket, stop, thread: Some(thread) })
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // Wakes the thread, also where the kernel answers that the socket is not connected.
        drop(self.socket.shutdown(Shutdown::Both));
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn bind(world: &Namespace, kind: Type, address: SocketAddr) -> Result<Socket> {
    world
        .enter(|| {
            let socket = Socket::new(Domain::for_address(address), kind, None)?;
            socket.set_reuse_address(true)?;
            if address.is_ipv6() {
                socket.set_only_v6(true)?;
            }
            socket.bind(&address.into())?;
            if kind == Type::STREAM {
                socket.listen(128)?;
            }
            Ok(socket)
        })
        .with_context(|| format!("listen on `{address}`"))
}

/// What a server thread writes and a test reads.
#[derive(Debug, Default)]
struct Shared<T>(Arc<Mutex<T>>);

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, T> {
        // What a panicking thread left is still what arrived.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}
