//! A kernel event, understood.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use egress_common::{
    Address, Protocol, Reason, Verdict,
    event::{Event, Hook, Kind},
};

/// What an event says, in types that cannot be wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// Nanoseconds of `CLOCK_BOOTTIME`.
    pub time_nanoseconds: u64,
    /// What happened.
    pub kind: Kind,
    /// Which hook saw it.
    pub hook: Hook,
    /// What was decided; in audit mode a refusal that was let through is `Allow`.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// The kernel's number of the socket; 0 where the hook knows no socket.
    pub socket: u64,
    /// The protocol's number, as the packet or call had it.
    pub protocol: u8,
    /// Whether the far end opened the flow.
    pub inbound: bool,
    /// This end, where the hook knows it.
    pub local: Option<SocketAddr>,
    /// The far end; of a refused `bind` the address that was asked for.
    pub remote: SocketAddr,
    /// The process.
    pub pid: u32,
    /// Its command name, with everything that could steer a terminal escaped.
    pub command: String,
    /// What has gone over the flow so far.
    pub traffic: Traffic,
}

/// Packets and bytes each way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Packets out.
    pub tx_packets: u64,
    /// Bytes out, IP headers included.
    pub tx_bytes: u64,
    /// Packets in.
    pub rx_packets: u64,
    /// Bytes in, IP headers included.
    pub rx_bytes: u64,
}

impl Traffic {
    /// What came on top of `before`. Events of one flow may arrive out of order, and then nothing did.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            tx_packets: self.tx_packets.saturating_sub(before.tx_packets),
            tx_bytes: self.tx_bytes.saturating_sub(before.tx_bytes),
            rx_packets: self.rx_packets.saturating_sub(before.rx_packets),
            rx_bytes: self.rx_bytes.saturating_sub(before.rx_bytes),
        }
    }

    /// The greater of each count.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self {
            tx_packets: self.tx_packets.max(other.tx_packets),
            tx_bytes: self.tx_bytes.max(other.tx_bytes),
            rx_packets: self.rx_packets.max(other.rx_packets),
            rx_bytes: self.rx_bytes.max(other.rx_bytes),
        }
    }

    /// Adds what another flow carried.
    pub fn add(&mut self, more: Self) {
        self.tx_packets = self.tx_packets.saturating_add(more.tx_packets);
        self.tx_bytes = self.tx_bytes.saturating_add(more.tx_bytes);
        self.rx_packets = self.rx_packets.saturating_add(more.rx_packets);
        self.rx_bytes = self.rx_bytes.saturating_add(more.rx_bytes);
    }

    /// Bytes both ways.
    pub fn bytes(self) -> u64 {
        self.tx_bytes.saturating_add(self.rx_bytes)
    }
}

impl Observation {
    /// Reads an event; `None` if a number in it has no meaning, as from another version of the kernel half.
    pub fn read(event: &Event) -> Option<Self> {
        let local = SocketAddr::new(ip_address(event.local), event.local_port);
        Some(Self {
            time_nanoseconds: event.time_nanoseconds,
            kind: Kind::from_wire(event.kind)?,
            hook: Hook::from_wire(event.hook)?,
            verdict: verdict(event.verdict)?,
            reason: Reason::from_wire(event.reason)?,
            socket: event.socket,
            protocol: event.protocol,
            inbound: event.inbound != 0,
            local: (event.local_port != 0 || !event.local.is_unspecified()).then_some(local),
            remote: SocketAddr::new(ip_address(event.remote), event.remote_port),
            pid: event.pid,
            command: printable(&event.command),
            traffic: Traffic {
                tx_packets: event.tx_packets,
                tx_bytes: event.tx_bytes,
                rx_packets: event.rx_packets,
                rx_bytes: event.rx_bytes,
            },
        })
    }
}

/// An address as the standard library knows it.
pub fn ip_address(address: Address) -> IpAddr {
    if address.is_v4() {
        IpAddr::V4(Ipv4Addr::from(address.v4_bytes()))
    } else {
        IpAddr::V6(Ipv6Addr::from(address.v6_bytes()))
    }
}

/// The name of a protocol; its number where a policy cannot allow it.
pub fn protocol_name(protocol: u8) -> String {
    match Protocol::from_wire(protocol) {
        Some(known) => known.name().to_owned(),
        None => format!("protocol {protocol}"),
    }
}

fn verdict(wire: u8) -> Option<Verdict> {
    [Verdict::Deny, Verdict::Allow].into_iter().find(|verdict| *verdict as u8 == wire)
}

/// Processes choose their command name, so it may hold any bytes.
pub fn printable(command: &[u8; 16]) -> String {
    let end = command.iter().position(|byte| *byte == 0).unwrap_or(command.len());
    let text = String::from_utf8_lossy(command.get(..end).unwrap_or_default());
    text.chars().flat_map(Spelling::of).collect()
}

/// A character as it is, or escaped where it would steer a terminal or hide.
enum Spelling {
    Plain(std::iter::Once<char>),
    Escaped(std::char::EscapeUnicode),
}

impl Spelling {
    fn of(character: char) -> Self {
        // Marks that turn the direction of writing hide what is there, as control characters do.
        let turns = matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if character.is_control() || turns {
            Self::Escaped(character.escape_unicode())
        } else {
            Self::Plain(std::iter::once(character))
        }
    }
}

impl Iterator for Spelling {
    type Item = char;

    fn next(&mut self) -> Option<char> {
        match self {
            Self::Plain(one) => one.next(),
            Self::Escaped(many) => many.next(),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use bytemuck::Zeroable as _;

    use super::*;

    #[test]
    fn an_event_is_understood_in_both_families() {
        let mut event = refusal("curl");
        event.local = Address::from_v4([192, 0, 2, 9]);
        event.local_port = 40_000;
        let observation = Observation::read(&event).unwrap();
        assert_eq!(observation.remote, "192.0.2.1:443".parse().unwrap());
        assert_eq!(observation.local, Some("192.0.2.9:40000".parse().unwrap()));
        assert_eq!((observation.kind, observation.hook), (Kind::Refusal, Hook::Connect));
        assert_eq!((observation.verdict, observation.reason), (Verdict::Deny, Reason::NoRule));
        assert_eq!((observation.command.as_str(), observation.pid), ("curl", 7));
        event.remote = Address::from_v6("2001:db8::1".parse::<Ipv6Addr>().unwrap().octets());
        assert_eq!(Observation::read(&event).unwrap().remote, "[2001:db8::1]:443".parse().unwrap());
    }

    #[test]
    fn an_end_that_no_hook_knew_is_absent() {
        for unknown in [Address::UNSPECIFIED, Address::from_v4([0; 4])] {
            let event = Event { local: unknown, ..refusal("curl") };
            assert_eq!(Observation::read(&event).unwrap().local, None, "{unknown:?}");
        }
    }

    #[test]
    fn a_number_without_meaning_makes_the_event_unreadable() {
        let good = refusal("curl");
        assert!(Observation::read(&good).is_some());
        for bad in [
            Event { kind: 0, ..good },
            Event { kind: 99, ..good },
            Event { hook: 99, ..good },
            Event { verdict: 2, ..good },
            Event { reason: 200, ..good },
        ] {
            assert_eq!(Observation::read(&bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_command_name_cannot_steer_a_terminal() {
        for (bytes, expected) in [
            (*b"curl\0\0\0\0\0\0\0\0\0\0\0\0", "curl"),
            (*b"exactly16bytes!!", "exactly16bytes!!"),
            (*b"\x1b[2Jx\n\0\0\0\0\0\0\0\0\0\0", r"\u{1b}[2Jx\u{a}"),
            (*b"\xff\xfe\0\0\0\0\0\0\0\0\0\0\0\0\0\0", "\u{fffd}\u{fffd}"),
            (*b"\xe2\x80\xaeab\0\0\0\0\0\0\0\0\0\0\0", r"\u{202e}ab"),
        ] {
            assert_eq!(printable(&bytes), expected, "{bytes:?}");
        }
    }

    pub(crate) fn refusal(command: &str) -> Event {
        let mut event = Event {
            time_nanoseconds: 5_000_000_000,
            remote: Address::from_v4([192, 0, 2, 1]),
            remote_port: 443,
            policy: 1,
            workload: 1,
            pid: 7,
            kind: Kind::Refusal as u8,
            hook: Hook::Connect as u8,
            verdict: Verdict::Deny as u8,
            reason: Reason::NoRule.wire(),
            protocol: Protocol::Tcp.wire(),
            ..Event::zeroed()
        };
        event.command[..command.len()].copy_from_slice(command.as_bytes());
        event
    }
}
