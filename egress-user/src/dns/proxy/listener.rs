//! The sockets of one network namespace, being read from.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd},
    sync::Arc,
};

use egress_common::limits::SERVER_SLOTS;
use tokio::{
    net::{TcpListener, UdpSocket},
    sync::mpsc::Sender,
    task::{AbortHandle, JoinSet},
};

use super::{
    namespace::Sockets,
    tcp::{self, Accepted},
    udp::{self, Datagram},
};

/// Listens in one network namespace until it is dropped.
#[derive(Debug)]
pub struct Listener {
    ports: [u16; SERVER_SLOTS],
    udp: Vec<Arc<UdpSocket>>,
    tcp: Vec<Arc<TcpListener>>,
    tasks: Vec<AbortHandle>,
}

impl Listener {
    /// Reads from these sockets in tasks of `tasks`.
    pub(super) fn start<T: Send + Default + 'static>(
        namespace: u64,
        sockets: Sockets,
        tasks: &mut JoinSet<T>,
        datagrams: &Sender<Datagram>,
        accepted: &Sender<Accepted>,
    ) -> io::Result<Self> {
        let Sockets { ports, udp, tcp } = sockets;
        let mut listener = Self { ports, udp: Vec::new(), tcp: Vec::new(), tasks: Vec::new() };
        for socket in udp {
            let socket = Arc::new(UdpSocket::from_std(socket)?);
            let reading = udp::receive(namespace, Arc::clone(&socket), datagrams.clone());
            listener.udp.push(socket);
            listener.tasks.push(tasks.spawn(async move {
                reading.await;
                T::default()
            }));
        }
        for socket in tcp {
            let socket = Arc::new(TcpListener::from_std(socket)?);
            let accepting = tcp::accept(namespace, Arc::clone(&socket), accepted.clone());
            listener.tcp.push(socket);
            listener.tasks.push(tasks.spawn(async move {
                accepting.await;
                T::default()
            }));
        }
        Ok(listener)
    }

    /// Where questions are to be sent. Connections only to the first.
    pub fn ports(&self) -> [u16; SERVER_SLOTS] {
        self.ports
    }

    /// The sockets themselves: UDP on each port in each family, then TCP in each family.
    pub fn sockets(&self) -> Vec<BorrowedFd<'_>> {
        let udp = self.udp.iter().map(|socket| socket.as_fd());
        udp.chain(self.tcp.iter().map(|socket| socket.as_fd())).collect()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}
