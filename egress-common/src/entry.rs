//! Keys and values of the maps. Plain bytes; layouts are asserted here.

use bytemuck::{Pod, Zeroable};

use crate::{Protocol, Reason};

/// Key of an allowed IPv4 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Pod, Zeroable)]
#[repr(C)]
pub struct AddressKeyV4 {
    /// The policy's slot.
    pub policy: u32,
    /// The address in network order.
    pub address: [u8; 4],
}

/// Key of an allowed IPv6 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Pod, Zeroable)]
#[repr(C)]
pub struct AddressKeyV6 {
    /// The policy's slot.
    pub policy: u32,
    /// The address in network order.
    pub address: [u8; 16],
}

/// Key of an IPv4 network in a longest-prefix trie, without the leading prefix length.
pub type NetworkKeyV4 = AddressKeyV4;

/// Key of an IPv6 network in a longest-prefix trie, without the leading prefix length.
pub type NetworkKeyV6 = AddressKeyV6;

/// Bits of a trie key before the address: the policy's slot.
pub const POLICY_BITS: u32 = 32;

/// What may be reached at an address or network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Pod, Zeroable)]
#[repr(C)]
pub struct DestinationEntry {
    /// Second of `CLOCK_BOOTTIME` from which the entry no longer counts; 0 for never.
    pub expires_at: u32,
    /// Index of the [`PortSet`].
    pub port_set: u16,
    /// The [`Reason`] of a refusal whose port is not in the set.
    pub otherwise: u8,
    /// Zero.
    pub reserved: u8,
}

/// One bit for each of the 65,536 ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Pod, Zeroable)]
#[repr(C)]
pub struct PortBits {
    words: [u64; 1024],
}

impl PortBits {
    /// No port.
    pub const NONE: Self = Self { words: [0; 1024] };

    /// Whether the port is in the set.
    #[inline(always)]
    pub fn contains(&self, port: u16) -> bool {
        let word = usize::from(port >> 6);
        self.words.get(word & 1023).is_some_and(|word| word >> (port & 63) & 1 == 1)
    }

    /// Adds the ports from `first` to `last`, both included.
    pub fn insert_range(&mut self, first: u16, last: u16) {
        let (first_word, last_word) = (usize::from(first >> 6), usize::from(last >> 6));
        for (index, word) in self.words.iter_mut().enumerate().take(last_word + 1).skip(first_word) {
            let from = if index == first_word { u64::MAX << (first & 63) } else { u64::MAX };
            let to = if index == last_word { u64::MAX >> (63 - (last & 63)) } else { u64::MAX };
            *word |= from & to;
        }
    }
}

/// Ports of both transports and whether ICMP echo is in the set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Pod, Zeroable)]
#[repr(C)]
pub struct PortSet {
    /// 1 if ICMP echo is in the set, else 0.
    pub icmp: u64,
    /// Ports of TCP.
    pub tcp: PortBits,
    /// Ports of UDP.
    pub udp: PortBits,
}

impl PortSet {
    /// Nothing: the set with index 0.
    pub const EMPTY: Self = Self { icmp: 0, tcp: PortBits::NONE, udp: PortBits::NONE };

    /// Whether the set has the port of this protocol.
    #[inline(always)]
    pub fn contains(&self, protocol: Protocol, port: u16) -> bool {
        match protocol {
            Protocol::Tcp => self.tcp.contains(port),
            Protocol::Udp => self.udp.contains(port),
            Protocol::Icmp => self.icmp == 1,
        }
    }
}

/// The slot of a policy: everything of it that is not a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Pod, Zeroable)]
#[repr(C)]
pub struct PolicyEntry {
    /// Bits `PolicyEntry::BOUND`, `AUDIT`, `LISTEN`.
    pub flags: u32,
    /// The errno of a refused `connect` or `sendto`, positive; 0 means `EPERM`.
    pub refuse_errno: u32,
    /// Ports that no rule can allow.
    pub blocked: PortSet,
}

impl PolicyEntry {
    /// The slot holds a policy. A slot without this bit denies everything.
    pub const BOUND: u32 = 1;
    /// Decide and record, but let through.
    pub const AUDIT: u32 = 2;
    /// The workload may listen and accept.
    pub const LISTEN: u32 = 4;

    /// A slot that denies everything.
    pub const UNBOUND: Self = Self { flags: 0, refuse_errno: 0, blocked: PortSet::EMPTY };
}

/// Storage of a governed cgroup: which policy it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Pod, Zeroable)]
#[repr(C)]
pub struct Binding {
    /// The policy's slot. Slot 0 never holds a policy on a node, so a cgroup without a binding is denied everything.
    pub policy: u32,
    /// Which workload this is; sockets of one workload may talk to each other on loopback.
    pub workload: u32,
}

/// Storage of a socket: the cached decision and the flow's counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Pod, Zeroable)]
#[repr(C)]
pub struct SocketState {
    /// Generation of the policy for which the decision holds; 0 for no decision.
    pub generation: u32,
    /// The policy's slot.
    pub policy: u32,
    /// Destination of the decision.
    pub destination: crate::Address,
    /// Destination port, host order.
    pub port: u16,
    /// Protocol number.
    pub protocol: u8,
    /// Why it was allowed: a [`Reason`].
    pub reason: u8,
    /// The workload that made the socket.
    pub workload: u32,
    /// Bits `SocketState::ACCEPTS`, `STARTED`, `RELEASED`.
    pub flags: u32,
    /// Process that made the socket, or that last called `connect` or `sendto` on it.
    pub pid: u32,
    /// Packets out of the current flow.
    pub tx_packets: u64,
    /// Bytes out, IP headers included.
    pub tx_bytes: u64,
    /// Packets in.
    pub rx_packets: u64,
    /// Bytes in, IP headers included.
    pub rx_bytes: u64,
    /// Bytes, both ways, at the last report.
    pub reported_bytes: u64,
    /// Kernel ticks at the last report.
    pub reported_jiffies: u64,
    /// Command name of that process.
    pub command: [u8; 16],
    /// This end of the current flow.
    pub local: crate::Address,
    /// This end's port, host order.
    pub local_port: u16,
    /// 1 when the far end opened the flow.
    pub inbound: u8,
    /// Zero.
    pub reserved: u8,
    /// Flows that began on the socket; 2 stands for more.
    pub flows: u32,
}

impl SocketState {
    /// A listener that may accept, or a connection that it accepted.
    pub const ACCEPTS: u32 = 1;
    /// The flow's start was reported.
    pub const STARTED: u32 = 2;
    /// The socket was closed; what is still in its queue is reported packet by packet.
    pub const RELEASED: u32 = 4;
}

const _: () = assert!(size_of::<AddressKeyV4>() == 8);
const _: () = assert!(size_of::<AddressKeyV6>() == 20);
const _: () = assert!(size_of::<DestinationEntry>() == 8);
const _: () = assert!(size_of::<PortSet>() == 16_392);
const _: () = assert!(size_of::<PolicyEntry>() == 16_400);
const _: () = assert!(size_of::<Binding>() == 8);
const _: () = assert!(size_of::<SocketState>() == 128);

impl DestinationEntry {
    /// The reason of a refusal whose port is not in the set.
    #[inline(always)]
    pub const fn otherwise(self) -> Reason {
        match Reason::from_wire(self.otherwise) {
            Some(reason) => reason,
            None => Reason::NoRule,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_range_holds_its_ends_and_nothing_beside_them() {
        let mut bits = PortBits::NONE;
        bits.insert_range(8000, 8100);
        bits.insert_range(65_535, 65_535);
        for (port, expected) in [(7999, false), (8000, true), (8100, true), (8101, false), (65_535, true), (0, false)] {
            assert_eq!(bits.contains(port), expected, "{port}");
        }
        for (first, last) in [(0, 65_535), (0, 0), (1, 63), (64, 127), (63, 64), (100, 90), (65_472, 65_535)] {
            let mut bits = PortBits::NONE;
            bits.insert_range(first, last);
            for port in 0..=u16::MAX {
                assert_eq!(bits.contains(port), first <= port && port <= last, "{port} in {first}-{last}");
            }
        }
    }
}
