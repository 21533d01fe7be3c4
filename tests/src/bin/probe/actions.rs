//! Actions that send.

use std::{
    fs::OpenOptions,
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    os::{fd::RawFd, unix::net::UnixStream},
    time::Duration,
};

use nix::{libc, sys::socket::MsgFlags};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{Calls, Failed};

/// How long an answer may take before it counts as missing.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// How long a connection may take that nobody refuses.
pub(crate) const CONNECT_MAX: Duration = Duration::from_secs(3);

pub(crate) fn tcp(calls: &mut Calls, address: SocketAddr, mark: &str) -> Result<(), Failed> {
    let mut connection = calls.call("connect", || TcpStream::connect_timeout(&address, CONNECT_MAX))?;
    if mark.is_empty() {
        return Ok(());
    }
    // The report keeps the time of the connection.
    let microseconds = calls.report.microseconds;
    calls.call("send", || connection.write_all(mark.as_bytes()))?;
    let mut reply = vec![0; mark.len()];
    calls.call("recv", || {
        connection.set_read_timeout(Some(ANSWER_MAX))?;
        connection.read_exact(&mut reply)
    })?;
    calls.report.reply = String::from_utf8_lossy(&reply).into_owned();
    calls.report.microseconds = microseconds;
    Ok(())
}

pub(crate) fn udp(calls: &mut Calls, address: SocketAddr, mark: &str, size: usize) -> Result<(), Failed> {
    let socket = calls.call("socket", || UdpSocket::bind(any(address)))?;
    let bytes: Vec<u8> = mark.bytes().cycle().take(size).collect();
    calls.call("sendto", || socket.send_to(&bytes, address))?;
    receive(calls, &socket)
}

pub(crate) fn udp_connected(calls: &mut Calls, address: SocketAddr, mark: &str) -> Result<(), Failed> {
    let socket = calls.call("socket", || UdpSocket::bind(any(address)))?;
    calls.call("connect", || socket.connect(address))?;
    calls.call("send", || socket.send(mark.as_bytes()))?;
    receive(calls, &socket)
}

pub(crate) fn udp_elsewhere(
    calls: &mut Calls,
    address: SocketAddr,
    other: SocketAddr,
    mark: &str,
) -> Result<(), Failed> {
    let socket = calls.call("socket", || UdpSocket::bind(any(address)))?;
    calls.call("connect", || socket.connect(address))?;
    calls.call("sendto", || socket.send_to(mark.as_bytes(), other))?;
    Ok(())
}

fn receive(calls: &mut Calls, socket: &UdpSocket) -> Result<(), Failed> {
    let microseconds = calls.report.microseconds;
    let mut reply = vec![0; 1 << 16];
    let length = calls.call("recv", || {
        socket.set_read_timeout(Some(ANSWER_MAX))?;
        socket.recv(&mut reply)
    })?;
    reply.truncate(length);
    calls.report.reply = String::from_utf8_lossy(&reply).into_owned();
    calls.report.microseconds = microseconds;
    Ok(())
}

pub(crate) fn fast_open(calls: &mut Calls, address: SocketAddr, mark: &str) -> Result<(), Failed> {
    let socket = calls.call("socket", || Socket::new(Domain::for_address(address), Type::STREAM, None))?;
    calls.call("sendto", || socket.send_to_with_flags(mark.as_bytes(), &address.into(), libc::MSG_FASTOPEN))?;
    Ok(())
}

pub(crate) fn ping(calls: &mut Calls, address: IpAddr, mark: &str) -> Result<(), Failed> {
    let (domain, protocol, kind) = match address {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4, 8),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6, 128),
    };
    let socket = calls.call("socket", || Socket::new(domain, Type::DGRAM, Some(protocol)))?;
    // Type, code, and the checksum, identifier and sequence that the kernel fills in or does not mind.
    let message = [&[kind, 0, 0, 0, 0, 0, 0, 1], mark.as_bytes()].concat();
    calls.call("sendto", || socket.send_to(&message, &SocketAddr::new(address, 0).into()))?;
    let microseconds = calls.report.microseconds;
    let mut reply = [0; 1024];
    let length = calls.call("recv", || {
        socket.set_read_timeout(Some(ANSWER_MAX))?;
        (&socket).read(&mut reply)
    })?;
    calls.report.reply = String::from_utf8_lossy(reply.get(8..length).unwrap_or_default()).into_owned();
    calls.report.microseconds = microseconds;
    Ok(())
}

pub(crate) fn socket(calls: &mut Calls, domain: i32, kind: i32, protocol: i32) -> Result<(), Failed> {
    calls.call("socket", || Socket::new_raw(domain.into(), kind.into(), Some(protocol.into())))?;
    Ok(())
}

pub(crate) fn inherited(calls: &mut Calls, descriptor: RawFd, mark: &str) -> Result<(), Failed> {
    let sent = || Ok(nix::sys::socket::send(descriptor, mark.as_bytes(), MsgFlags::empty())?);
    calls.call("send", sent).map(drop)
}

pub(crate) fn write(calls: &mut Calls, path: &str) -> Result<(), Failed> {
    calls.call("open", || OpenOptions::new().append(true).open(path))?;
    Ok(())
}

pub(crate) fn unix(calls: &mut Calls, path: &str) -> Result<(), Failed> {
    calls.call("connect", || UnixStream::connect(path))?;
    Ok(())
}

/// Any own address and port of the same family.
pub(crate) fn any(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

/// Connects, sends the mark and waits for its echo, as one attempt.
pub(crate) fn exchange(address: SocketAddr, mark: &[u8]) -> io::Result<()> {
    let mut connection = TcpStream::connect_timeout(&address, CONNECT_MAX)?;
    connection.set_read_timeout(Some(ANSWER_MAX))?;
    connection.write_all(mark)?;
    connection.read_exact(&mut vec![0; mark.len()])
}
