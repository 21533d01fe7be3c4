//! A stand-in for the DNS proxy: it listens where the proxy would, sends back what it gets, and remembers who sent it.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::{AsFd as _, BorrowedFd},
};

use anyhow::{Context as _, Result};
use egress_common::{Protocol, limits::SERVER_SLOTS};
use egress_user::kernel;
use socket2::{Socket, Type};

use super::{Service, Shared, bind};
use crate::netns::Namespace;

/// What came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// How.
    pub protocol: Protocol,
    /// From where.
    pub source: SocketAddr,
    /// To which port.
    pub port: u16,
}

/// Sockets on both loopback addresses that send back what they get.
#[derive(Debug)]
pub struct Reflector {
    services: Vec<Service>,
    ports: [u16; SERVER_SLOTS],
    arrivals: Shared<Vec<Arrival>>,
}

impl Reflector {
    /// Listens on the loopback of a namespace, in which these ports are free.
    pub fn new(namespace: &Namespace, ports: [u16; SERVER_SLOTS]) -> Result<Self> {
        let mut reflector = Self { services: Vec::new(), ports, arrivals: Shared::default() };
        for address in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
            for port in ports {
                let socket = bind(namespace, Type::DGRAM, SocketAddr::new(address, port))?;
                let arrivals = reflector.arrivals.clone();
                reflector.services.push(Service::start(socket, move |socket| datagram(socket, port, &arrivals))?);
            }
            let [port, ..] = ports;
            let socket = bind(namespace, Type::STREAM, SocketAddr::new(address, port))?;
            let arrivals = reflector.arrivals.clone();
            reflector.services.push(Service::start(socket, move |socket| connection(socket, port, &arrivals))?);
        }
        Ok(reflector)
    }

    /// The ports.
    pub fn ports(&self) -> [u16; SERVER_SLOTS] {
        self.ports
    }

    /// Its sockets.
    pub fn sockets(&self) -> Vec<BorrowedFd<'_>> {
        self.services.iter().map(|service| service.socket.as_fd()).collect()
    }

    /// The kernel's number of the namespace.
    pub fn namespace(&self) -> Result<u64> {
        let service = self.services.first().context("a reflector has sockets")?;
        kernel::network_namespace(service.socket.as_fd())
    }

    /// What came so far.
    pub fn arrivals(&self) -> Vec<Arrival> {
        self.arrivals.lock().clone()
    }
}

fn datagram(socket: &Socket, port: u16, arrivals: &Shared<Vec<Arrival>>) -> io::Result<()> {
    let socket = UdpSocket::from(socket.try_clone()?);
    let mut buffer = [0; 512];
    let (length, from) = socket.recv_from(&mut buffer)?;
    note(arrivals, Protocol::Udp, Some(from), port);
    socket.send_to(buffer.get(..length).unwrap_or_default(), from).map(drop)
}

fn connection(socket: &Socket, port: u16, arrivals: &Shared<Vec<Arrival>>) -> io::Result<()> {
    let (mut connection, from) = socket.accept()?;
    note(arrivals, Protocol::Tcp, from.as_socket(), port);
    let mut buffer = [0; 512];
    let length = connection.read(&mut buffer)?;
    connection.write_all(buffer.get(..length).unwrap_or_default())
}

fn note(arrivals: &Shared<Vec<Arrival>>, protocol: Protocol, source: Option<SocketAddr>, port: u16) {
    arrivals.lock().extend(source.map(|source| Arrival { protocol, source, port }));
}
