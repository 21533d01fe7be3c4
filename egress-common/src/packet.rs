//! Reading the headers of a packet that starts at its IP header.
//!
//! The kernel runs the cgroup hooks before it fragments and after it has built the headers, so an ordinary packet is
//! never a fragment and never has options or extension headers. Whatever is not an ordinary packet is refused instead of
//! being walked: each header that is skipped is a chance to read the wrong field.

use crate::{Address, Protocol, Reason};

/// Bytes of a packet from its IP header on.
pub trait Bytes {
    /// `N` bytes from `offset`, or `None` when the packet is shorter.
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;
}

/// Protocol that the frame says it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// EtherType `0x0800`.
    V4,
    /// EtherType `0x86dd`.
    V6,
}

/// The fields of a packet that decisions use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// What it carries.
    pub protocol: Protocol,
    /// Where it comes from.
    pub source: Address,
    /// Source port; 0 for ICMP.
    pub source_port: u16,
    /// Where it goes.
    pub destination: Address,
    /// Destination port; 0 for ICMP.
    pub destination_port: u16,
    /// TCP flags, else 0.
    pub tcp_flags: u8,
    /// Whether it is an echo reply, which only an inbound packet may be.
    pub echo_reply: bool,
}

impl Packet {
    /// Whether it opens a TCP connection: SYN without ACK.
    #[inline(always)]
    pub const fn opens(&self) -> bool {
        self.tcp_flags & (TCP_SYN | TCP_ACK) == TCP_SYN
    }
}

const TCP_SYN: u8 = 0x02;
const TCP_ACK: u8 = 0x10;

const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;

/// Reads the packet, or says why it is not one that a policy can allow.
#[inline(always)]
pub fn parse(family: Family, bytes: &impl Bytes) -> Result<Packet, Reason> {
    match family {
        Family::V4 => parse_v4(bytes),
        Family::V6 => parse_v6(bytes),
    }
}

#[inline(always)]
fn parse_v4(bytes: &impl Bytes) -> Result<Packet, Reason> {
    let Some(header) = bytes.read::<IPV4_HEADER>(0) else {
        return Err(Reason::Malformed);
    };
    let [version_length, _, _, _, _, _, fragment_high, fragment_low, _, protocol, _, _, addresses @ ..] = header;
    if version_length >> 4 != 4 {
        return Err(Reason::Malformed);
    }
    match version_length & 0x0f {
        0..5 => return Err(Reason::Malformed),
        5 => {}
        _ => return Err(Reason::IpOptions),
    }
    // More fragments follow, or this is not the first one; the don't-fragment bit does not matter.
    if fragment_high & 0x3f != 0 || fragment_low != 0 {
        return Err(Reason::Fragment);
    }
    let [s0, s1, s2, s3, d0, d1, d2, d3] = addresses;
    let (source, destination) = (Address::from_v4([s0, s1, s2, s3]), Address::from_v4([d0, d1, d2, d3]));
    match protocol {
        6 => parse_tcp(bytes, IPV4_HEADER, source, destination),
        17 => parse_udp(bytes, IPV4_HEADER, source, destination),
        1 => parse_icmp(bytes, IPV4_HEADER, source, destination, Echo { request: 8, reply: 0 }),
        _ => Err(Reason::Protocol),
    }
}

#[inline(always)]
fn parse_v6(bytes: &impl Bytes) -> Result<Packet, Reason> {
    let Some([version, _, _, _, _, _, next_header, _]) = bytes.read::<8>(0) else {
        return Err(Reason::Malformed);
    };
    if version >> 4 != 6 {
        return Err(Reason::Malformed);
    }
    let Some(source) = bytes.read::<16>(8) else {
        return Err(Reason::Malformed);
    };
    let Some(destination) = bytes.read::<16>(24) else {
        return Err(Reason::Malformed);
    };
    let (source, destination) = (Address::from_v6(source), Address::from_v6(destination));
    // RFC 4038 section 4.2: an IPv4-mapped address is a socket's notation and never stands in an IPv6 header.
    if destination.is_v4() {
        return Err(Reason::Malformed);
    }
    match next_header {
        6 => parse_tcp(bytes, IPV6_HEADER, source, destination),
        17 => parse_udp(bytes, IPV6_HEADER, source, destination),
        58 => parse_icmp(bytes, IPV6_HEADER, source, destination, Echo { request: 128, reply: 129 }),
        44 => Err(Reason::Fragment),
        // Hop-by-hop, routing, encapsulating security, authentication, destination options, mobility, HIP, shim6.
        0 | 43 | 50 | 51 | 60 | 135 | 139 | 140 => Err(Reason::ExtensionHeader),
        _ => Err(Reason::Protocol),
    }
}

#[inline(always)]
fn parse_tcp(bytes: &impl Bytes, offset: usize, source: Address, destination: Address) -> Result<Packet, Reason> {
    let Some([s0, s1, d0, d1, _, _, _, _, _, _, _, _, _, tcp_flags]) = bytes.read::<14>(offset) else {
        return Err(Reason::Malformed);
    };
    Ok(Packet {
        protocol: Protocol::Tcp,
        source,
        source_port: u16::from_be_bytes([s0, s1]),
        destination,
        destination_port: u16::from_be_bytes([d0, d1]),
        tcp_flags,
        echo_reply: false,
    })
}

#[inline(always)]
fn parse_udp(bytes: &impl Bytes, offset: usize, source: Address, destination: Address) -> Result<Packet, Reason> {
    let Some([s0, s1, d0, d1, _, _, _, _]) = bytes.read::<8>(offset) else {
        return Err(Reason::Malformed);
    };
    Ok(Packet {
        protocol: Protocol::Udp,
        source,
        source_port: u16::from_be_bytes([s0, s1]),
        destination,
        destination_port: u16::from_be_bytes([d0, d1]),
        tcp_flags: 0,
        echo_reply: false,
    })
}

/// ICMP types of an echo.
struct Echo {
    request: u8,
    reply: u8,
}

#[inline(always)]
fn parse_icmp(
    bytes: &impl Bytes,
    offset: usize,
    source: Address,
    destination: Address,
    echo: Echo,
) -> Result<Packet, Reason> {
    let Some([kind, code, _, _, _, _, _, _]) = bytes.read::<8>(offset) else {
        return Err(Reason::Malformed);
    };
    if code != 0 || (kind != echo.request && kind != echo.reply) {
        return Err(Reason::Protocol);
    }
    Ok(Packet {
        protocol: Protocol::Icmp,
        source,
        source_port: 0,
        destination,
        destination_port: 0,
        tcp_flags: 0,
        echo_reply: kind == echo.reply,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Bytes for &[u8] {
        fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
            self.get(offset..offset + N)?.try_into().ok()
        }
    }

    /// IPv4, 20 bytes of header, to 192.0.2.9, with the payload of a TCP SYN to port 443.
    fn tcp_v4() -> [u8; 40] {
        let mut bytes = [0; 40];
        bytes[0] = 0x45;
        bytes[6] = 0x40;
        bytes[9] = 6;
        bytes[12..16].copy_from_slice(&[192, 0, 2, 1]);
        bytes[16..20].copy_from_slice(&[192, 0, 2, 9]);
        bytes[20..24].copy_from_slice(&[0x80, 0, 0x01, 0xbb]);
        bytes[33] = 0x02;
        bytes
    }

    /// IPv6, 40 bytes of header, to `2001:db8::9`, with the payload of a UDP datagram to port 53.
    fn udp_v6() -> [u8; 48] {
        let mut bytes = [0; 48];
        bytes[0] = 0x60;
        bytes[6] = 17;
        bytes[24..28].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
        bytes[39] = 9;
        bytes[40..44].copy_from_slice(&[0x90, 0, 0, 53]);
        bytes
    }

    #[test]
    fn an_ordinary_packet_is_read() {
        let packet = parse(Family::V4, &&tcp_v4()[..]).unwrap();
        assert_eq!(packet.destination, Address::from_v4([192, 0, 2, 9]));
        assert_eq!((packet.source_port, packet.destination_port), (0x8000, 443));
        assert!(packet.opens());

        let packet = parse(Family::V6, &&udp_v6()[..]).unwrap();
        assert_eq!((packet.protocol, packet.destination_port), (Protocol::Udp, 53));
        assert!(!packet.opens());
    }

    #[test]
    fn every_packet_out_of_the_ordinary_is_refused_with_its_reason() {
        for (what, offset, value, reason) in [
            ("version 6 in an IPv4 frame", 0, 0x65, Reason::Malformed),
            ("header of 16 bytes", 0, 0x44, Reason::Malformed),
            ("header of 24 bytes", 0, 0x46, Reason::IpOptions),
            ("more fragments", 6, 0x20, Reason::Fragment),
            ("a later fragment", 7, 0x01, Reason::Fragment),
            ("SCTP", 9, 132, Reason::Protocol),
            ("IP in IP", 9, 4, Reason::Protocol),
            ("UDP-Lite", 9, 136, Reason::Protocol),
            ("ICMP with a zero type of TCP's bytes", 9, 1, Reason::Protocol),
        ] {
            let mut bytes = tcp_v4();
            bytes[offset] = value;
            assert_eq!(parse(Family::V4, &&bytes[..]), Err(reason), "{what}");
        }
        for (what, offset, value, reason) in [
            ("version 4 in an IPv6 frame", 0, 0x45, Reason::Malformed),
            ("hop-by-hop options", 6, 0, Reason::ExtensionHeader),
            ("a routing header", 6, 43, Reason::ExtensionHeader),
            ("a fragment header", 6, 44, Reason::Fragment),
            ("destination options", 6, 60, Reason::ExtensionHeader),
            ("no next header", 6, 59, Reason::Protocol),
            ("a neighbour solicitation", 6, 58, Reason::Protocol),
        ] {
            let mut bytes = udp_v6();
            bytes[offset] = value;
            assert_eq!(parse(Family::V6, &&bytes[..]), Err(reason), "{what}");
        }
    }

    #[test]
    fn a_mapped_address_on_the_wire_is_refused() {
        let mut bytes = udp_v6();
        bytes[24..40].copy_from_slice(&Address::from_v4([192, 0, 2, 9]).v6_bytes());
        assert_eq!(parse(Family::V6, &&bytes[..]), Err(Reason::Malformed));
    }

    #[test]
    fn no_length_of_a_cut_packet_is_read() {
        for length in 0..34 {
            assert_eq!(parse(Family::V4, &&tcp_v4()[..length]), Err(Reason::Malformed), "{length}");
        }
        for length in 0..48 {
            assert_eq!(parse(Family::V6, &&udp_v6()[..length]), Err(Reason::Malformed), "{length}");
        }
    }

    #[test]
    fn only_an_echo_of_icmp_is_read() {
        for (kind, code, expected) in [
            (8, 0, Ok(false)),
            (0, 0, Ok(true)),
            (8, 1, Err(Reason::Protocol)),
            (13, 0, Err(Reason::Protocol)),
            (5, 0, Err(Reason::Protocol)),
        ] {
            let mut bytes = tcp_v4();
            bytes[9] = 1;
            bytes[20] = kind;
            bytes[21] = code;
            assert_eq!(parse(Family::V4, &&bytes[..]).map(|packet| packet.echo_reply), expected, "{kind} {code}");
        }
    }
}
