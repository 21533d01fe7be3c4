//! Questions about names on their way to the proxy: what the maps about them hold. Plain bytes; layouts are asserted here.

use bytemuck::{Pod, Zeroable};

use crate::{Address, limits::SERVER_SLOTS};

/// The port of DNS, over UDP as over TCP.
pub const DNS_PORT: u16 = 53;

/// The workload number of the proxy's own sockets. No workload has it.
pub const PROXY_WORKLOAD: u32 = u32::MAX;

/// Where the proxy listens in one network namespace: on loopback of both families.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Listener {
    /// One port for each name server that a socket asks, host order. Connections go to the first.
    pub ports: [u16; SERVER_SLOTS],
}

/// A name server that a socket asked, and where its questions went instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Pod, Zeroable)]
#[repr(C)]
pub struct Server {
    /// The address that was asked; its port is [`DNS_PORT`].
    pub address: Address,
    /// The proxy's port, host order; 0 where no server was asked.
    pub proxy_port: u16,
    /// Zero.
    pub reserved: u16,
}

/// Storage of a socket that asked name servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Pod, Zeroable)]
#[repr(C)]
pub struct Questions {
    /// What the socket is known as to the proxy, once it has sent a question.
    pub key: AskerKey,
    /// The servers that it asked.
    pub servers: [Server; SERVER_SLOTS],
    /// Servers that it asked so far; the next new one takes the place of the oldest.
    pub count: u32,
    /// [`Questions::KNOWN`] when there is an entry under `key`, [`Questions::CLOSED`] when there is never to be one again.
    pub known: u32,
}

/// Key of an [`Asker`]: what the proxy sees of whoever sends to it, in one network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Pod, Zeroable)]
#[repr(C)]
pub struct AskerKey {
    /// The kernel's number of the network namespace.
    pub namespace: u64,
    /// The source address.
    pub address: Address,
    /// The source port, host order.
    pub port: u16,
    /// Protocol number.
    pub protocol: u8,
    /// Zero.
    pub reserved: [u8; 5],
}

/// Who sends questions from an address and port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Pod, Zeroable)]
#[repr(C)]
pub struct Asker {
    /// The kernel's number of the socket.
    pub socket: u64,
    /// The workload.
    pub workload: u32,
    /// Process that made the socket, or that last called `connect` or `sendto` on it.
    pub pid: u32,
    /// Its command name, ended by a zero byte.
    pub command: [u8; 16],
    /// The servers that it asked.
    pub servers: [Server; SERVER_SLOTS],
}

const _: () = assert!(size_of::<Listener>() == 8);
const _: () = assert!(size_of::<Server>() == 20);
const _: () = assert!(size_of::<AskerKey>() == 32);
const _: () = assert!(size_of::<Questions>() == 120);
const _: () = assert!(size_of::<Asker>() == 112);

impl Questions {
    /// There is an entry under `key`.
    pub const KNOWN: u32 = 1;
    /// The socket is closed.
    pub const CLOSED: u32 = 2;

    /// The server in whose place the proxy's port stands, if there is one.
    #[inline(always)]
    pub fn server_at(&self, proxy_port: u16) -> Option<&Server> {
        self.servers.iter().find(|server| server.proxy_port == proxy_port && proxy_port != 0)
    }
}
