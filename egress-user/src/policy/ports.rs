//! Sets of ports.

use std::{fmt, num::NonZeroU16};

use egress_common::Protocol;

use super::problem::Shown;

/// Ports from the first to the last, both included. Port 0 is in no range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortRange {
    first: NonZeroU16,
    last: NonZeroU16,
}

impl PortRange {
    /// Every port.
    pub const ALL: Self = Self { first: NonZeroU16::MIN, last: NonZeroU16::MAX };

    /// The range, unless it is reversed or has port 0.
    pub const fn new(first: u16, last: u16) -> Option<Self> {
        match (NonZeroU16::new(first), NonZeroU16::new(last)) {
            (Some(first), Some(last)) if first.get() <= last.get() => Some(Self { first, last }),
            (Some(_) | None, Some(_) | None) => None,
        }
    }

    /// The lowest port.
    pub const fn first(self) -> u16 {
        self.first.get()
    }

    /// The highest port.
    pub const fn last(self) -> u16 {
        self.last.get()
    }

    /// Whether the port is in the range.
    pub const fn contains(self, port: u16) -> bool {
        self.first() <= port && port <= self.last()
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { write!(f, "{}", self.first) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}

/// Ports of TCP, ports of UDP, and whether ICMP echo is among them.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ports {
    /// Sorted, disjoint and not adjacent.
    tcp: Vec<PortRange>,
    /// Sorted, disjoint and not adjacent.
    udp: Vec<PortRange>,
    icmp: bool,
}

impl Ports {
    /// No port, and no echo.
    pub const NONE: Self = Self { tcp: Vec::new(), udp: Vec::new(), icmp: false };

    /// Every port, and echo.
    pub fn every() -> Self {
        Self { tcp: vec![PortRange::ALL], udp: vec![PortRange::ALL], icmp: true }
    }

    /// One port of one protocol; for ICMP, echo.
    pub fn one(protocol: Protocol, port: u16) -> Self {
        let mut ports = Self::NONE;
        match protocol {
            Protocol::Tcp => ports.tcp.extend(PortRange::new(port, port)),
            Protocol::Udp => ports.udp.extend(PortRange::new(port, port)),
            Protocol::Icmp => ports.icmp = true,
        }
        ports
    }

    /// The set of these items.
    pub fn from_items(items: impl IntoIterator<Item = PortItem>) -> Self {
        let mut ports = Self::NONE;
        for item in items {
            match item {
                PortItem::Both(range) => {
                    ports.tcp.push(range);
                    ports.udp.push(range);
                }
                PortItem::Tcp(range) => ports.tcp.push(range),
                PortItem::Udp(range) => ports.udp.push(range),
                PortItem::Icmp => ports.icmp = true,
            }
        }
        merge(&mut ports.tcp);
        merge(&mut ports.udp);
        ports
    }

    /// Whether nothing is in the set.
    pub fn is_empty(&self) -> bool {
        let Self { tcp, udp, icmp } = self;
        tcp.is_empty() && udp.is_empty() && !icmp
    }

    /// Whether the port of the protocol is in the set. An echo has no port.
    pub fn contains(&self, protocol: Protocol, port: u16) -> bool {
        match protocol {
            Protocol::Tcp | Protocol::Udp => self.ranges(protocol).iter().any(|range| range.contains(port)),
            Protocol::Icmp => self.icmp,
        }
    }

    /// The protocol's ports, sorted and disjoint; none for ICMP, which has [`Self::has_icmp`].
    pub fn ranges(&self, protocol: Protocol) -> &[PortRange] {
        match protocol {
            Protocol::Tcp => &self.tcp,
            Protocol::Udp => &self.udp,
            Protocol::Icmp => &[],
        }
    }

    /// Whether ICMP echo is in the set.
    pub fn has_icmp(&self) -> bool {
        self.icmp
    }

    /// What is in either set.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut ports = self.clone();
        ports.tcp.extend_from_slice(&other.tcp);
        ports.udp.extend_from_slice(&other.udp);
        ports.icmp |= other.icmp;
        merge(&mut ports.tcp);
        merge(&mut ports.udp);
        ports
    }

    /// What is in this set and not in the other.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        Self {
            tcp: subtract(&self.tcp, &other.tcp),
            udp: subtract(&self.udp, &other.udp),
            icmp: self.icmp && !other.icmp,
        }
    }

    /// The fewest items that spell the set: what both transports have is written once.
    pub fn items(&self) -> Vec<PortItem> {
        let mut items = Vec::new();
        let (mut tcp, mut udp) = (self.tcp.iter().copied().peekable(), self.udp.iter().copied().peekable());
        loop {
            // Equal ranges are written once; others keep their protocol, which is longer but never wrong.
            let item = match (tcp.peek(), udp.peek()) {
                (None, None) => break,
                (Some(a), Some(b)) if a == b => {
                    udp.next();
                    tcp.next().map(PortItem::Both)
                }
                (Some(a), Some(b)) if a < b => tcp.next().map(PortItem::Tcp),
                (Some(_), None) => tcp.next().map(PortItem::Tcp),
                (Some(_) | None, Some(_)) => udp.next().map(PortItem::Udp),
            };
            items.extend(item);
        }
        items.extend(self.icmp.then_some(PortItem::Icmp));
        items
    }
}

fn merge(ranges: &mut Vec<PortRange>) {
    ranges.sort_unstable();
    ranges.dedup_by(|next, kept| {
        let joins = next.first.get() <= kept.last.get().saturating_add(1);
        if joins {
            kept.last = kept.last.max(next.last);
        }
        joins
    });
}

fn subtract(ranges: &[PortRange], taken: &[PortRange]) -> Vec<PortRange> {
    let mut left = ranges.to_vec();
    for hole in taken {
        let around = |range: &PortRange| {
            let below = PortRange::new(range.first(), range.last().min(hole.first() - 1));
            let above =
                hole.last().checked_add(1).and_then(|next| PortRange::new(range.first().max(next), range.last()));
            below.into_iter().chain(above)
        };
        left = left.iter().flat_map(around).collect();
    }
    left
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, item) in self.items().iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{item}")?;
        }
        Ok(())
    }
}

/// One item of a list of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PortItem {
    /// Of TCP and of UDP.
    Both(PortRange),
    /// Of TCP.
    Tcp(PortRange),
    /// Of UDP.
    Udp(PortRange),
    /// ICMP echo.
    Icmp,
}

impl PortItem {
    /// Reads `443`, `443/tcp`, `8000-8100/udp` or `icmp`.
    pub fn parse(text: &str) -> Result<Self, InvalidPorts> {
        let invalid = |what| InvalidPorts { text: text.to_owned(), what };
        if text == "icmp" {
            return Ok(Self::Icmp);
        }
        let (range, item): (&str, fn(PortRange) -> Self) = match text.split_once('/') {
            None => (text, Self::Both),
            Some((range, "tcp")) => (range, Self::Tcp),
            Some((range, "udp")) => (range, Self::Udp),
            Some((_, _)) => return Err(invalid(Wrong::Form)),
        };
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (port(first).map_err(invalid)?, port(last).map_err(invalid)?);
        match PortRange::new(first, last) {
            Some(range) => Ok(item(range)),
            None => Err(invalid(Wrong::Reversed { first, last })),
        }
    }
}

fn port(digits: &str) -> Result<u16, Wrong> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Wrong::Form);
    }
    match digits.parse() {
        Ok(0) => Err(Wrong::Zero),
        Ok(port) => Ok(port),
        Err(_) => Err(Wrong::Large),
    }
}

impl fmt::Display for PortItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Both(range) => write!(f, "{range}"),
            Self::Tcp(range) => write!(f, "{range}/tcp"),
            Self::Udp(range) => write!(f, "{range}/udp"),
            Self::Icmp => f.write_str("icmp"),
        }
    }
}

/// Text that is not an item of a list of ports, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidPorts {
    text: String,
    what: Wrong,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Wrong {
    Form,
    Zero,
    Large,
    Reversed { first: u16, last: u16 },
}

impl std::error::Error for InvalidPorts {}

impl fmt::Display for InvalidPorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", Shown(&self.text))?;
        match self.what {
            Wrong::Form => {
                f.write_str("expected a port such as `443` or `443/tcp`, a range such as `8000-8100/udp`, or `icmp`")
            }
            Wrong::Zero => f.write_str("port 0 cannot be reached; expected a port from 1 to 65535, such as `443/tcp`"),
            Wrong::Large => f.write_str("expected a port from 1 to 65535, such as `443/tcp`"),
            Wrong::Reversed { first, last } => write!(f, "the range is reversed; expected `{last}-{first}`"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(items: &[&str]) -> Ports {
        Ports::from_items(items.iter().map(|item| PortItem::parse(item).unwrap()))
    }

    #[test]
    fn items_are_merged_into_the_fewest_ranges() {
        for (items, expected) in [
            (&["443"][..], "443"),
            (&["443/tcp", "443/udp"], "443"),
            (&["8000-8100/tcp", "8050-8200/tcp", "8201/tcp"], "8000-8201/tcp"),
            (&["1-65534", "65535"], "1-65535"),
            (&["80/udp", "22/tcp", "icmp"], "22/tcp, 80/udp, icmp"),
            (&["1-10/tcp", "1-5/udp"], "1-5/udp, 1-10/tcp"),
            (&[], ""),
        ] {
            assert_eq!(ports(items).to_string(), expected, "{items:?}");
            let again = Ports::from_items(ports(items).items());
            assert_eq!(again, ports(items), "{items:?}");
        }
    }

    #[test]
    fn a_set_has_its_ports_of_its_protocols_and_no_others() {
        let set = ports(&["443/tcp", "8000-8100/udp"]);
        for (protocol, port, expected) in [
            (Protocol::Tcp, 443, true),
            (Protocol::Udp, 443, false),
            (Protocol::Udp, 7999, false),
            (Protocol::Udp, 8000, true),
            (Protocol::Udp, 8100, true),
            (Protocol::Udp, 8101, false),
            (Protocol::Icmp, 0, false),
        ] {
            assert_eq!(set.contains(protocol, port), expected, "{protocol:?} {port}");
        }
        assert!(Ports::every().contains(Protocol::Icmp, 0));
        assert!(!Ports::every().contains(Protocol::Tcp, 0));
    }

    #[test]
    fn what_is_taken_out_of_a_set_leaves_the_rest() {
        for (from, take, expected) in [
            (&["1-65535"][..], &["22"][..], "1-21, 23-65535"),
            (&["1-65535/tcp"], &["1/tcp", "65535/tcp", "80"], "2-79/tcp, 81-65534/tcp"),
            (&["443", "icmp"], &["400-500/udp"], "443/tcp, icmp"),
            (&["443"], &["1-65535"], ""),
            (&["443"], &["444", "442"], "443"),
        ] {
            assert_eq!(ports(from).difference(&ports(take)).to_string(), expected, "{from:?} {take:?}");
        }
    }

    #[test]
    fn what_is_no_port_is_refused_with_what_would_be_right() {
        for (text, expected) in [
            ("0", "port 0"),
            ("0-10", "port 0"),
            ("65536", "1 to 65535"),
            ("99999999999", "1 to 65535"),
            ("8100-8000/tcp", "`8000-8100`"),
            ("443/sctp", "expected a port such as"),
            ("443/", "expected a port such as"),
            ("-1", "expected a port such as"),
            ("+1", "expected a port such as"),
            ("https", "expected a port such as"),
            ("icmp/tcp", "expected a port such as"),
            ("1-2-3", "expected a port such as"),
            ("", "expected a port such as"),
        ] {
            let message = PortItem::parse(text).unwrap_err().to_string();
            assert!(message.contains(expected), "{text}: {message}");
        }
    }
}
