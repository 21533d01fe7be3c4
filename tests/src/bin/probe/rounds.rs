//! Actions that go on for a while.

use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs as _, UdpSocket},
    thread,
    time::Duration,
};

use egress_tests::deadline::Deadline;
use socket2::{Domain, Socket, Type};

use crate::{
    Calls, Failed,
    actions::{CONNECT_MAX, any, exchange},
    errno,
};

/// Pause between rounds, so that a round more or less is not a load.
const PAUSE: Duration = Duration::from_millis(2);

pub(crate) fn resolve(calls: &mut Calls, name: &str) -> Result<(), Failed> {
    let found = calls.call("getaddrinfo", || (name, 0).to_socket_addrs())?;
    let addresses: BTreeSet<IpAddr> = found.map(|address| address.ip()).collect();
    let addresses: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
    calls.report.reply = addresses.join(" ");
    Ok(())
}

pub(crate) fn repeat(calls: &mut Calls, seconds: u64, destination: &str) {
    let end = Deadline::after(Duration::from_secs(seconds));
    while !end.has_passed() {
        let addresses: Vec<SocketAddr> = match destination.to_socket_addrs() {
            Ok(addresses) => addresses.collect(),
            Err(error) => {
                fail(calls, "getaddrinfo", &error);
                continue;
            }
        };
        for address in addresses {
            match exchange(address, b"repeated") {
                Ok(()) => calls.report.successes += 1,
                Err(error) => fail(calls, &format!("exchange with {address}"), &error),
            }
        }
        thread::sleep(PAUSE);
    }
}

/// Notes the first failure and counts all.
fn fail(calls: &mut Calls, call: &str, error: &std::io::Error) {
    if calls.report.failures == 0 {
        call.clone_into(&mut calls.report.call);
        calls.report.errno = errno(error) as i32;
    }
    calls.report.failures += 1;
}

/// How long one answer on a kept connection may take.
const KEPT_ANSWER_MAX: Duration = Duration::from_millis(500);

pub(crate) fn keep_tcp(calls: &mut Calls, seconds: u64, address: SocketAddr) -> Result<(), Failed> {
    let mut connection = calls.call("connect", || TcpStream::connect_timeout(&address, CONNECT_MAX))?;
    calls.call("setsockopt", || connection.set_read_timeout(Some(KEPT_ANSWER_MAX)))?;
    let end = Deadline::after(Duration::from_secs(seconds));
    while !end.has_passed() {
        calls.call("send", || connection.write_all(b"kept"))?;
        calls.call("recv", || connection.read_exact(&mut [0; 4]))?;
        calls.report.successes += 1;
        thread::sleep(PAUSE);
    }
    Ok(())
}

pub(crate) fn keep_udp(calls: &mut Calls, seconds: u64, address: SocketAddr) -> Result<(), Failed> {
    let socket = calls.call("socket", || UdpSocket::bind(any(address)))?;
    calls.call("connect", || socket.connect(address))?;
    calls.call("setsockopt", || socket.set_read_timeout(Some(KEPT_ANSWER_MAX)))?;
    let end = Deadline::after(Duration::from_secs(seconds));
    while !end.has_passed() {
        calls.call("send", || socket.send(b"kept"))?;
        // The answer to the last datagram that may leave may come when it may no longer.
        if socket.recv(&mut [0; 4]).is_ok() {
            calls.report.successes += 1;
        }
        thread::sleep(PAUSE);
    }
    Ok(())
}

pub(crate) fn flood(calls: &mut Calls, seconds: u64, mark: &str, addresses: &[SocketAddr]) {
    let end = Deadline::after(Duration::from_secs(seconds));
    while !end.has_passed() {
        for address in addresses {
            for sent in [send(*address, mark), connect(*address)] {
                match sent {
                    Ok(()) => calls.report.successes += 1,
                    Err(_) => calls.report.failures += 1,
                }
            }
        }
        thread::sleep(PAUSE);
    }
}

fn send(address: SocketAddr, mark: &str) -> std::io::Result<()> {
    UdpSocket::bind(any(address))?.send_to(mark.as_bytes(), address).map(drop)
}

/// Sends a SYN and does not wait for what comes of it.
fn connect(address: SocketAddr) -> std::io::Result<()> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() == Some(nix::libc::EINPROGRESS) => Ok(()),
        other => other,
    }
}
