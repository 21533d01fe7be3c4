//! A packet whose first destination is not the one that the application names.

use std::{
    io,
    net::{Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::AsRawFd as _,
};

use nix::{errno::Errno, libc};

use crate::{Calls, Failed, actions::any};

pub(crate) fn send(calls: &mut Calls, via: Ipv6Addr, address: SocketAddr, mark: &str) -> Result<(), Failed> {
    let socket = calls.call("socket", || UdpSocket::bind(any(address)))?;
    calls.call("setsockopt", || set_routing_header(&socket, via))?;
    calls.call("sendto", || socket.send_to(mark.as_bytes(), address))?;
    Ok(())
}

/// A segment routing header (RFC 8754) of two segments: the last is filled in by the kernel, the first is `via`.
#[expect(unsafe_code, reason = "no library sets this option")]
fn set_routing_header(socket: &UdpSocket, via: Ipv6Addr) -> io::Result<()> {
    // Next header, length in units of 8 bytes, type, segments left, last entry, flags and tag.
    let header = [&[0, 4, 4, 1, 1, 0, 0, 0][..], &[0; 16], &via.octets()].concat();
    let length = libc::socklen_t::try_from(header.len()).map_err(io::Error::other)?;
    // SAFETY: the pointer is valid for `length` bytes, which the kernel copies before the call returns.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IPV6,
            libc::IPV6_RTHDR,
            header.as_ptr().cast::<libc::c_void>(),
            length,
        )
    };
    Ok(Errno::result(result).map(drop)?)
}
