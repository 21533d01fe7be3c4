//! Frames for programs that are run over bytes, without a network.

use std::net::IpAddr;

use egress_common::Protocol;
use egress_user::policy::Flow;

/// The frame with which a flow begins: a SYN, a datagram or an echo request, from port 50000.
pub fn first_of(flow: &Flow) -> Vec<u8> {
    let Flow { protocol, destination, port } = *flow;
    // A socket sends an IPv4 packet to an IPv4-mapped address.
    let destination = destination.to_canonical();
    let payload = payload(protocol, destination, port);
    let length = u16::try_from(payload.len()).unwrap_or(u16::MAX);
    let number = match (protocol, destination) {
        (Protocol::Icmp, IpAddr::V6(_)) => 58,
        (protocol, _) => protocol.wire(),
    };
    let mut frame = vec![0; 12];
    match destination {
        IpAddr::V4(destination) => {
            frame.extend([0x08, 0x00]);
            let [high, low] = (length + 20).to_be_bytes();
            frame.extend([0x45, 0, high, low, 0, 0, 0x40, 0, 64, number, 0, 0, 198, 20, 1, 200]);
            frame.extend(destination.octets());
        }
        IpAddr::V6(destination) => {
            frame.extend([0x86, 0xdd]);
            let [high, low] = length.to_be_bytes();
            frame.extend([0x60, 0, 0, 0, high, low, number, 64, 0x2c, 0x0f, 0xff, 0xf0]);
            frame.extend([0; 12]);
            frame.extend(destination.octets());
        }
    }
    frame.extend(payload);
    frame
}

fn payload(protocol: Protocol, destination: IpAddr, port: u16) -> Vec<u8> {
    let ports = [50_000_u16.to_be_bytes(), port.to_be_bytes()].concat();
    match protocol {
        Protocol::Tcp => [ports, vec![0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0]].concat(),
        Protocol::Udp => [ports, vec![0, 8, 0, 0]].concat(),
        Protocol::Icmp => vec![if destination.is_ipv4() { 8 } else { 128 }, 0, 0, 0, 0, 1, 0, 1],
    }
}
