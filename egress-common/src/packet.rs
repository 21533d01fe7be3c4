//! Reading the headers of a packet that starts at its IP header.
//!
//! The kernel runs the cgroup hooks before it fragments and after it has built the headers, so an ordinary packet is
//! never a fragment and never has options or extension headers. Whatever is not an ordinary packet is refused instead of
//! being walked: each header that is skipped is a chance to read the wrong field.

use crate::{Address, Protocol, Reason};

/// A packet from its IP header on.
pub trait Headers {
    /// `N` words of 32 bits from `offset`, their bytes in the order of the packet, or `None` when the packet is shorter.
    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]>;
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
pub fn parse(family: Family, headers: &impl Headers) -> Result<Packet, Reason> {
    match family {
        Family::V4 => parse_v4(headers),
        Family::V6 => parse_v6(headers),
    }
}

#[inline(always)]
fn parse_v4(headers: &impl Headers) -> Result<Packet, Reason> {
    let Some([first, fragment, protocol, source, destination]) = headers.words(0) else {
        return Err(Reason::Malformed);
    };
    let [version_length, _, _, _] = first.to_ne_bytes();
    if version_length >> 4 != 4 {
        return Err(Reason::Malformed);
    }
    match version_length & 0x0f {
        0..5 => return Err(Reason::Malformed),
        5 => {}
        _ => return Err(Reason::IpOptions),
    }
    // More fragments follow, or this is not the first one; the don't-fragment bit does not matter.
    if fragment & u32::from_ne_bytes([0, 0, 0x3f, 0xff]) != 0 {
        return Err(Reason::Fragment);
    }
    let ends = (Address::from_v4(source.to_ne_bytes()), Address::from_v4(destination.to_ne_bytes()));
    let [_, protocol, _, _] = protocol.to_ne_bytes();
    match protocol {
        TCP => parse_tcp(headers, IPV4_HEADER, ends),
        UDP => parse_udp(headers, IPV4_HEADER, ends),
        ICMP => parse_icmp(headers, IPV4_HEADER, ends, Echo { request: 8, reply: 0 }),
        _ => Err(Reason::Protocol),
    }
}

/// IP protocol numbers (IANA "Assigned Internet Protocol Numbers").
const HOP_BY_HOP: u8 = 0;
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const FRAGMENT: u8 = 44;
const ICMPV6: u8 = 58;

#[inline(always)]
fn parse_v6(headers: &impl Headers) -> Result<Packet, Reason> {
    let Some([first, next, s0, s1, s2, s3, d0, d1, d2, d3]) = headers.words(0) else {
        return Err(Reason::Malformed);
    };
    let [version, _, _, _] = first.to_ne_bytes();
    if version >> 4 != 6 {
        return Err(Reason::Malformed);
    }
    let ends = (Address::from_words([s0, s1, s2, s3]), Address::from_words([d0, d1, d2, d3]));
    // RFC 4038 section 4.2: an IPv4-mapped address is a socket's notation and never stands in an IPv6 header.
    if ends.1.is_v4() {
        return Err(Reason::Malformed);
    }
    let [_, _, next_header, _] = next.to_ne_bytes();
    match next_header {
        TCP => parse_tcp(headers, IPV6_HEADER, ends),
        UDP => parse_udp(headers, IPV6_HEADER, ends),
        ICMPV6 => parse_icmp(headers, IPV6_HEADER, ends, Echo { request: 128, reply: 129 }),
        HOP_BY_HOP => parse_jumbo(headers, next, ends),
        FRAGMENT => Err(Reason::Fragment),
        // Routing, encapsulating security, authentication, destination options, mobility, HIP, shim6.
        43 | 50 | 51 | 60 | 135 | 139 | 140 => Err(Reason::ExtensionHeader),
        _ => Err(Reason::Protocol),
    }
}

/// Reads the one hop-by-hop header that the kernel itself writes: a jumbo payload (RFC 2675) alone, before TCP.
///
/// It marks a TCP segment above 64 KiB that the device will cut (BIG TCP, `ip6_xmit` since Linux 5.19), which is the
/// ordinary case on loopback and never reaches a wire.
#[inline(always)]
fn parse_jumbo(headers: &impl Headers, next: u32, ends: (Address, Address)) -> Result<Packet, Reason> {
    const JUMBO_HEADER: usize = 8;
    let Some([options]) = headers.words(IPV6_HEADER) else { return Err(Reason::Malformed) };
    let has_length = next & u32::from_ne_bytes([0xff, 0xff, 0, 0]) != 0;
    if has_length || options != u32::from_ne_bytes([TCP, 0, 0xc2, 4]) {
        return Err(Reason::ExtensionHeader);
    }
    parse_tcp(headers, IPV6_HEADER + JUMBO_HEADER, ends)
}

#[inline(always)]
fn parse_tcp(
    headers: &impl Headers,
    offset: usize,
    (source, destination): (Address, Address),
) -> Result<Packet, Reason> {
    let Some([ports, _, _, flags, _]) = headers.words(offset) else { return Err(Reason::Malformed) };
    let ([s0, s1, d0, d1], [_, tcp_flags, _, _]) = (ports.to_ne_bytes(), flags.to_ne_bytes());
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
fn parse_udp(
    headers: &impl Headers,
    offset: usize,
    (source, destination): (Address, Address),
) -> Result<Packet, Reason> {
    let Some([ports, _]) = headers.words(offset) else { return Err(Reason::Malformed) };
    let [s0, s1, d0, d1] = ports.to_ne_bytes();
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
    headers: &impl Headers,
    offset: usize,
    (source, destination): (Address, Address),
    echo: Echo,
) -> Result<Packet, Reason> {
    let Some([first, _]) = headers.words(offset) else { return Err(Reason::Malformed) };
    let [kind, code, _, _] = first.to_ne_bytes();
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

    impl Headers for &[u8] {
        fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
            let bytes = self.get(offset..offset + 4 * N)?;
            let mut words = bytes.chunks_exact(4).map(|word| u32::from_ne_bytes(word.try_into().unwrap()));
            Some(core::array::from_fn(|_| words.next().unwrap()))
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
    fn a_tcp_segment_above_64_kib_is_read_and_no_other_hop_by_hop_header_is() {
        let mut bytes = [0; 68];
        bytes[..48].copy_from_slice(&udp_v6());
        bytes[6] = 0;
        bytes[40..48].copy_from_slice(&[6, 0, 0xc2, 4, 0, 1, 0x80, 0]);
        bytes[48..52].copy_from_slice(&[0x90, 0, 0x01, 0xbb]);
        let packet = parse(Family::V6, &&bytes[..]).unwrap();
        assert_eq!((packet.protocol, packet.destination_port), (Protocol::Tcp, 443));
        for (what, offset, value) in [
            ("UDP after it", 40, 17),
            ("a routing header after it", 40, 43),
            ("two options", 41, 1),
            ("a router alert", 42, 5),
            ("a length in the IPv6 header too", 5, 22),
        ] {
            let mut bytes = bytes;
            bytes[offset] = value;
            assert_eq!(parse(Family::V6, &&bytes[..]), Err(Reason::ExtensionHeader), "{what}");
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
        for length in 0..40 {
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
