//! A server that takes connections and says nothing.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::Result;
use socket2::Type;

use super::{Service, bind};
use crate::netns::Namespace;

/// Takes every connection, counts it and closes it.
#[derive(Debug)]
pub struct Listener {
    connections: Arc<AtomicU64>,
    _service: Service,
}

impl Listener {
    /// A listener on one address, or with the unspecified address on all of the world.
    pub fn start(world: &Namespace, address: SocketAddr) -> Result<Self> {
        let connections = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&connections);
        let service = Service::start(bind(world, Type::STREAM, address)?, move |socket| {
            drop(socket.accept()?);
            count.fetch_add(1, Ordering::Relaxed);
            Ok(())
        })?;
        Ok(Self { connections, _service: service })
    }

    /// Connections so far.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }
}
