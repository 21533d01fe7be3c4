//! Actions that wait for others.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::{fd::OwnedFd, unix::net::UnixListener},
    time::Duration,
};

use nix::errno::Errno;
use socket2::{Domain, Socket, Type};

use crate::{
    Calls, Failed,
    actions::{CONNECT_MAX, any},
};

pub(crate) fn bind_tcp(calls: &mut Calls, address: SocketAddr) -> Result<(), Failed> {
    bound(calls, address).map(drop)
}

pub(crate) fn bind_udp(calls: &mut Calls, address: SocketAddr) -> Result<(), Failed> {
    calls.call("bind", || UdpSocket::bind(address)).map(drop)
}

pub(crate) fn listen(calls: &mut Calls, address: SocketAddr) -> Result<(), Failed> {
    let socket = bound(calls, address)?;
    calls.call("listen", || socket.listen(8))
}

pub(crate) fn listen_unbound(calls: &mut Calls, seconds: u64) -> Result<(), Failed> {
    let socket = calls.call("socket", || Socket::new(Domain::IPV4, Type::STREAM, None))?;
    calls.call("listen", || socket.listen(8))?;
    calls.call("accept", || {
        socket.set_read_timeout(Some(Duration::from_secs(seconds)))?;
        echo_once(&socket.try_clone()?.into())
    })
}

pub(crate) fn wait_udp(calls: &mut Calls, address: SocketAddr, seconds: u64) -> Result<(), Failed> {
    let socket = calls.call("bind", || UdpSocket::bind(address))?;
    calls.call("write", say_listening)?;
    let mut buffer = [0; 1024];
    let length = calls.call("recv", || {
        socket.set_read_timeout(Some(Duration::from_secs(seconds)))?;
        socket.recv(&mut buffer)
    })?;
    calls.report.reply = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()).into_owned();
    Ok(())
}

pub(crate) fn own_loopback(calls: &mut Calls, address: SocketAddr) -> Result<(), Failed> {
    let listener: TcpListener = {
        let socket = bound(calls, address)?;
        calls.call("listen", || socket.listen(8))?;
        socket.into()
    };
    let address = calls.call("getsockname", || listener.local_addr())?;
    let mut client = calls.call("connect", || TcpStream::connect_timeout(&address, CONNECT_MAX))?;
    calls.call("send", || client.write_all(b"own loopback"))?;
    calls.call("accept", || echo_once(&listener))?;
    calls.call("recv", || client.read_exact(&mut [0; 12]))
}

pub(crate) fn own_datagrams(calls: &mut Calls, address: SocketAddr) -> Result<(), Failed> {
    let (server, mut buffer) = (calls.call("bind", || UdpSocket::bind(address))?, [0; 8]);
    let address = calls.call("getsockname", || server.local_addr())?;
    let client = calls.call("socket", || UdpSocket::bind(any(address)))?;
    calls.call("connect", || client.connect(address))?;
    for socket in [&server, &client] {
        calls.call("setsockopt", || socket.set_read_timeout(Some(Duration::from_secs(2))))?;
    }
    calls.call("send", || client.send(b"question"))?;
    let (_, from) = calls.call("recvfrom", || server.recv_from(&mut buffer))?;
    calls.call("sendto", || server.send_to(b"answer", from))?;
    calls.call("recv", || client.recv(&mut buffer)).map(drop)
}

pub(crate) fn off_loopback(calls: &mut Calls, device: &str, address: SocketAddr, mark: &str) -> Result<(), Failed> {
    let client = calls.call("socket", || Socket::new(Domain::for_address(address), Type::DGRAM, None))?;
    if address.ip().is_loopback() {
        let _server = calls.call("bind", || UdpSocket::bind(address))?;
        calls.call("setsockopt", || client.bind_device(Some(device.as_bytes())))?;
        calls.call("sendto", || client.send_to(mark.as_bytes(), &address.into())).map(drop)
    } else {
        calls.call("connect", || client.connect(&address.into()))?;
        calls.call("setsockopt", || client.bind_device(Some(device.as_bytes())))?;
        calls.call("send", || client.send(mark.as_bytes())).map(drop)
    }
}

pub(crate) fn off_loopback_tcp(calls: &mut Calls, device: &str, address: SocketAddr, mark: &str) -> Result<(), Failed> {
    let listener = calls.call("bind", || TcpListener::bind(address))?;
    let client = calls.call("connect", || TcpStream::connect_timeout(&address, CONNECT_MAX))?;
    let (server, _) = calls.call("accept", || listener.accept())?;
    let client = Socket::from(client);
    calls.call("setsockopt", || {
        client.bind_device(Some(device.as_bytes()))?;
        client.set_linger(Some(Duration::ZERO))
    })?;
    calls.call("send", || client.send(mark.as_bytes()))?;
    // Nothing comes: the data stay in the client's socket, and end with it.
    calls.call("recv", || {
        server.set_read_timeout(Some(Duration::from_millis(500)))?;
        (&server).read_exact(&mut [0])
    })
}

pub(crate) fn take_over(calls: &mut Calls, address: SocketAddr, mark: &str) -> Result<(), Failed> {
    let own = calls.call("socket", || Socket::new(Domain::for_address(address), Type::DGRAM, None))?;
    calls.call("setsockopt", || own.set_reuse_address(true))?;
    calls.call("bind", || own.bind(&address.into()))?;
    let client = calls.call("socket", || UdpSocket::bind(any(address)))?;
    calls.call("connect", || client.connect(address))?;
    calls.call("send", || client.send(b"own"))?;
    drop(own);
    calls.call("send after close", || client.send(mark.as_bytes())).map(drop)
}

pub(crate) fn accept(calls: &mut Calls, address: SocketAddr, seconds: u64) -> Result<(), Failed> {
    let socket = bound(calls, address)?;
    calls.call("listen", || socket.listen(8))?;
    calls.call("write", say_listening)?;
    calls.call("accept", || {
        socket.set_read_timeout(Some(Duration::from_secs(seconds)))?;
        echo_once(&socket.try_clone()?.into())
    })
}

pub(crate) fn unix(calls: &mut Calls, seconds: u64, path: &str) -> Result<(), Failed> {
    let listener = calls.call("bind", || UnixListener::bind(path))?;
    calls.call("write", say_listening)?;
    calls.call("accept", || {
        let socket = Socket::from(OwnedFd::from(listener.try_clone()?));
        socket.set_read_timeout(Some(Duration::from_secs(seconds)))?;
        listener.accept()
    })?;
    Ok(())
}

/// Tells the test that it may connect now.
fn say_listening() -> io::Result<()> {
    let mut stderr = io::stderr().lock();
    writeln!(stderr, "listening")?;
    stderr.flush()
}

fn bound(calls: &mut Calls, address: SocketAddr) -> Result<Socket, Failed> {
    let socket = calls.call("socket", || Socket::new(Domain::for_address(address), Type::STREAM, None))?;
    calls.call("setsockopt", || socket.set_reuse_address(true))?;
    calls.call("bind", || socket.bind(&address.into()))?;
    Ok(socket)
}

fn echo_once(listener: &TcpListener) -> io::Result<()> {
    let (mut connection, _) = listener.accept()?;
    connection.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut buffer = [0; 1024];
    let length = connection.read(&mut buffer)?;
    let bytes = buffer.get(..length).ok_or(Errno::EIO)?;
    connection.write_all(bytes)
}
