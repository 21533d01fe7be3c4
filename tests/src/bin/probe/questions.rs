//! Sockets that ask a server, each in another of the ways in which programs do.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, SocketAddrV6, TcpStream, UdpSocket},
    time::Duration,
};

use socket2::{Domain, Socket, Type};

use crate::{Calls, Failed, actions::CONNECT_MAX};

/// How long an answer may take before it counts as missing.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// How a socket asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// `sendto`.
    Unconnected,
    /// `connect`, then `send`.
    Connected,
    /// `connect`, then `sendto` the same address.
    Both,
}

/// Asks over UDP. The reply tells what came, whom it seems to come from, and whom the socket seems to be connected to.
pub(crate) fn udp(calls: &mut Calls, form: Form, address: SocketAddr, mark: &str) -> Result<(), Failed> {
    let socket = calls.call("socket", || open(Type::DGRAM, address))?;
    if form != Form::Unconnected {
        calls.call("connect", || socket.connect(&address.into()))?;
    }
    match form {
        Form::Connected => calls.call("send", || socket.send(mark.as_bytes()))?,
        Form::Unconnected | Form::Both => calls.call("sendto", || socket.send_to(mark.as_bytes(), &address.into()))?,
    };
    let (text, from) = calls.call("recv", || receive(&socket))?;
    let mut reply = vec![format!("{text} from {from}")];
    if form != Form::Unconnected {
        let peer = calls.call("getpeername", || peer(&socket))?;
        reply.push(format!("peer {}", spell(peer)));
    }
    calls.report.reply = reply.join(" ");
    Ok(())
}

/// Asks two servers with one socket, and tells whom each answer seems to come from, sorted.
pub(crate) fn two(calls: &mut Calls, one: SocketAddr, other: SocketAddr) -> Result<(), Failed> {
    let socket = calls.call("socket", || open(Type::DGRAM, one))?;
    calls.call("sendto", || socket.send_to(b"one", &one.into()))?;
    calls.call("sendto", || socket.send_to(b"other", &other.into()))?;
    let mut answers = Vec::new();
    for _ in 0..2 {
        let (text, from) = calls.call("recv", || receive(&socket))?;
        answers.push(format!("{text} from {from}"));
    }
    answers.sort();
    calls.report.reply = answers.join(", ");
    Ok(())
}

/// Asks over TCP, and tells whom the socket seems to be connected to.
pub(crate) fn tcp(calls: &mut Calls, address: SocketAddr, mark: &str) -> Result<(), Failed> {
    let socket = calls.call("socket", || open(Type::STREAM, address))?;
    calls.call("connect", || socket.connect_timeout(&address.into(), CONNECT_MAX))?;
    let peer = calls.call("getpeername", || peer(&socket))?;
    let mut stream = TcpStream::from(socket);
    calls.call("send", || stream.write_all(mark.as_bytes()))?;
    let mut text = vec![0; 512];
    let length = calls.call("recv", || {
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        stream.read(&mut text)
    })?;
    text.truncate(length);
    calls.report.reply = format!("{} peer {}", String::from_utf8_lossy(&text), spell(peer));
    Ok(())
}

/// Asks with a socket that may only use one device.
pub(crate) fn on_device(calls: &mut Calls, device: &str, address: SocketAddr, mark: &str) -> Result<(), Failed> {
    let socket = calls.call("socket", || open(Type::DGRAM, address))?;
    calls.call("setsockopt", || socket.bind_device(Some(device.as_bytes())))?;
    calls.call("sendto", || socket.send_to(mark.as_bytes(), &address.into()))?;
    let (text, from) = calls.call("recv", || receive(&socket))?;
    calls.report.reply = format!("{text} from {from}");
    Ok(())
}

/// Asks from a port that other sockets may have too, and keeps the socket for some time after the answer.
pub(crate) fn shared_port(calls: &mut Calls, seconds: u64, from: SocketAddr, to: SocketAddr) -> Result<(), Failed> {
    let socket = calls.call("socket", || open(Type::DGRAM, from))?;
    calls.call("bind", || {
        socket.set_reuse_address(true)?;
        socket.bind(&from.into())
    })?;
    calls.call("sendto", || socket.send_to(b"shared", &to.into()))?;
    calls.call("recv", || receive(&socket))?;
    // Nothing more comes; that is how it waits.
    calls.call("recv", || {
        socket.set_read_timeout(Some(Duration::from_secs(seconds)))?;
        receive(&socket)
    })?;
    Ok(())
}

fn open(kind: Type, address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, None)?;
    socket.set_read_timeout(Some(ANSWER_MAX))?;
    Ok(socket)
}

fn receive(socket: &Socket) -> io::Result<(String, String)> {
    let socket = UdpSocket::from(socket.try_clone()?);
    let mut buffer = [0; 512];
    let (length, from) = socket.recv_from(&mut buffer)?;
    Ok((String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()).into_owned(), spell(from)))
}

/// An address as the socket has it: an IPv4-mapped one stays one.
fn spell(address: SocketAddr) -> String {
    match address {
        SocketAddr::V6(address) => SocketAddrV6::new(*address.ip(), address.port(), 0, 0).to_string(),
        SocketAddr::V4(address) => address.to_string(),
    }
}

fn peer(socket: &Socket) -> io::Result<SocketAddr> {
    socket.peer_addr()?.as_socket().ok_or_else(|| io::Error::other("no Internet address"))
}
