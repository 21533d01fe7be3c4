//! The sockets on which workloads of one network namespace are listened to.

use std::{
    fs::File,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    os::fd::{AsFd as _, BorrowedFd},
    thread,
};

use anyhow::{Context as _, anyhow};
use egress_common::limits::SERVER_SLOTS;
use nix::sched::{CloneFlags, setns};
use socket2::{Domain, Socket, Type};

/// Ports that are tried before it is given up: the kernel chooses one that is free in one family, and it may be taken in
/// the other.
const TRIES: usize = 64;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;

/// Sockets that are bound and not yet read from.
#[derive(Debug)]
pub struct Sockets {
    pub(super) ports: [u16; SERVER_SLOTS],
    pub(super) udp: Vec<UdpSocket>,
    pub(super) tcp: Vec<TcpListener>,
}

impl Sockets {
    /// Makes them in the network namespace of this process.
    pub fn open() -> anyhow::Result<Self> {
        let (mut udp, mut tcp) = (Vec::new(), Vec::new());
        let mut ports = [0; SERVER_SLOTS];
        for (place, port) in ports.iter_mut().enumerate() {
            // Connections keep the peer that they have, so one port is enough for them.
            let bound = Bound::find(if place == 0 { &[Type::DGRAM, Type::STREAM] } else { &[Type::DGRAM] })?;
            *port = bound.port;
            for (kind, socket) in bound.sockets {
                if kind == Type::STREAM {
                    socket.listen(BACKLOG).context("listen for DNS questions over TCP")?;
                    tcp.push(socket.into());
                } else {
                    udp.push(socket.into());
                }
            }
        }
        Ok(Self { ports, udp, tcp })
    }

    /// Makes them in another network namespace, which is an open `/proc/PID/ns/net`.
    pub fn open_in(namespace: File) -> anyhow::Result<Self> {
        // A thread belongs to one namespace, and the threads of the runtime stay in theirs.
        let thread = thread::Builder::new().name("namespace".to_owned()).spawn(move || {
            setns(namespace, CloneFlags::CLONE_NEWNET).context("enter the network namespace of a process")?;
            Self::open()
        });
        let joined = thread.context("start a thread")?.join();
        joined.unwrap_or_else(|_panic| Err(anyhow!("the thread that makes sockets panicked")))
    }

    /// One of them, which tells in which namespace all of them are.
    pub fn any(&self) -> anyhow::Result<BorrowedFd<'_>> {
        Ok(self.udp.first().context("no socket was made")?.as_fd())
    }
}

/// Sockets with one port number.
struct Bound {
    port: u16,
    sockets: Vec<(Type, Socket)>,
}

impl Bound {
    /// Finds a port that is free for these kinds of sockets in both families. A machine may have no IPv6.
    fn find(kinds: &[Type]) -> anyhow::Result<Self> {
        let mut taken = None;
        for _ in 0..TRIES {
            match Self::bind(kinds) {
                Ok(bound) => return Ok(bound),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => taken = Some(error),
                Err(error) => return Err(error).context("bind a port on the loopback addresses"),
            }
        }
        let error = taken.map_or_else(|| anyhow!("no port is free"), anyhow::Error::from);
        Err(error.context(format!("find a port that is free on both loopback addresses, in {TRIES} tries")))
    }

    fn bind(kinds: &[Type]) -> io::Result<Self> {
        let mut sockets = Vec::new();
        let mut port = 0;
        for kind in kinds {
            let socket = bind(Domain::IPV4, *kind, SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
            if port == 0 {
                port = socket.local_addr()?.as_socket().map_or(0, |address| address.port());
            }
            sockets.push((*kind, socket));
            match bind(Domain::IPV6, *kind, SocketAddr::from((Ipv6Addr::LOCALHOST, port))) {
                Ok(socket) => sockets.push((*kind, socket)),
                Err(error) if is_without_ipv6(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self { port, sockets })
    }
}

fn bind(family: Domain, kind: Type, address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(family, kind.nonblocking().cloexec(), None)?;
    // A namespace is made with its loopback interface down, and has no addresses until it is up.
    if family == Domain::IPV6 {
        socket.set_only_v6(true)?;
        socket.set_freebind_v6(true)?;
    } else {
        socket.set_freebind_v4(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

fn is_without_ipv6(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_port_is_one_number_in_both_families_and_the_first_takes_connections() {
        let sockets = Sockets::open().unwrap();
        for port in sockets.ports {
            let both = sockets.udp.iter().filter(|socket| socket.local_addr().unwrap().port() == port);
            let addresses: Vec<_> = both.map(|socket| socket.local_addr().unwrap().ip()).collect();
            assert!(addresses.iter().all(std::net::IpAddr::is_loopback), "{addresses:?}");
            assert!((1..=2).contains(&addresses.len()), "{addresses:?}");
        }
        assert!(sockets.tcp.iter().all(|socket| socket.local_addr().unwrap().port() == sockets.ports[0]));
    }

    #[test]
    fn sockets_are_made_in_the_namespace_that_is_named_or_not_at_all() {
        // Entering a namespace takes a right that a test may not have; the own one shows as much as can be shown.
        match Sockets::open_in(File::open("/proc/self/ns/net").unwrap()) {
            Ok(sockets) => assert!(sockets.ports.iter().all(|port| *port != 0)),
            Err(error) => assert_eq!(error.to_string(), "enter the network namespace of a process"),
        }
        let error = Sockets::open_in(File::open("/proc/self/status").unwrap()).unwrap_err();
        assert_eq!(error.to_string(), "enter the network namespace of a process");
    }
}
