//! Addresses and protocols as both halves know them.

use bytemuck::{Pod, Zeroable};

/// An IP address of either family as 16 bytes in network order; IPv4 in its IPv4-mapped form `::ffff:a.b.c.d`.
///
/// One form for both families means that an IPv4-mapped IPv6 address *is* the IPv4 address, so no rule can be passed by
/// spelling it the other way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct Address {
    /// The address in 32-bit words whose bytes are in network order.
    words: [u32; 4],
}

/// The third word of an IPv4-mapped address.
const MAPPED: u32 = u32::from_be(0xffff);

impl Address {
    /// `::`, which no packet goes to.
    pub const UNSPECIFIED: Self = Self { words: [0; 4] };

    /// An IPv4 address from its four bytes.
    #[inline(always)]
    pub const fn from_v4(bytes: [u8; 4]) -> Self {
        Self { words: [0, 0, MAPPED, u32::from_ne_bytes(bytes)] }
    }

    /// An IPv6 address from its sixteen bytes; an IPv4-mapped one becomes the IPv4 address.
    #[inline(always)]
    pub const fn from_v6(bytes: [u8; 16]) -> Self {
        Self { words: bytemuck::must_cast(bytes) }
    }

    /// An address from four words whose bytes are in network order, as the kernel's contexts hold them.
    #[inline(always)]
    pub const fn from_words(words: [u32; 4]) -> Self {
        Self { words }
    }

    /// Four words whose bytes are in network order.
    #[inline(always)]
    pub const fn words(&self) -> [u32; 4] {
        self.words
    }

    /// Whether it is an IPv4 address.
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        let [first, second, third, _] = self.words;
        first == 0 && second == 0 && third == MAPPED
    }

    /// The last four bytes: the whole address of an IPv4 address.
    #[inline(always)]
    pub const fn v4_bytes(&self) -> [u8; 4] {
        let [_, _, _, last] = self.words;
        last.to_ne_bytes()
    }

    /// All sixteen bytes in network order.
    #[inline(always)]
    pub const fn v6_bytes(&self) -> [u8; 16] {
        bytemuck::must_cast(self.words)
    }

    /// Whether it is in `127.0.0.0/8` or `::1`.
    #[inline(always)]
    pub const fn is_loopback(&self) -> bool {
        if self.is_v4() {
            let [first, _, _, _] = self.v4_bytes();
            return first == 127;
        }
        let [first, second, third, last] = self.words;
        first == 0 && second == 0 && third == 0 && last == u32::from_be(1)
    }

    /// Whether it is `0.0.0.0` or `::`, which `connect` takes for loopback.
    #[inline(always)]
    pub const fn is_unspecified(&self) -> bool {
        let [first, second, third, last] = self.words;
        first == 0 && second == 0 && last == 0 && (third == 0 || third == MAPPED)
    }
}

/// The protocols that a policy can allow. Everything else is denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Protocol {
    /// TCP, over either family.
    Tcp = 6,
    /// UDP, over either family.
    Udp = 17,
    /// An echo request of ICMP or of ICMPv6; its port is 0.
    Icmp = 1,
}

impl Protocol {
    /// The number in maps and events. ICMPv6 echo has the number of ICMP.
    #[inline(always)]
    pub const fn wire(self) -> u8 {
        self as u8
    }

    /// The protocol with this number, if a policy can allow it.
    #[inline(always)]
    pub const fn from_wire(wire: u8) -> Option<Self> {
        match wire {
            6 => Some(Self::Tcp),
            17 => Some(Self::Udp),
            1 => Some(Self::Icmp),
            _ => None,
        }
    }

    /// Its name in policies and records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Icmp => "icmp",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_address_is_the_ipv4_address() {
        let mut mapped = [0; 16];
        mapped[10..].copy_from_slice(&[0xff, 0xff, 10, 1, 2, 3]);
        assert_eq!(Address::from_v6(mapped), Address::from_v4([10, 1, 2, 3]));
        assert_eq!(Address::from_v6(mapped).v4_bytes(), [10, 1, 2, 3]);
        assert_eq!(Address::from_v4([10, 1, 2, 3]).v6_bytes(), mapped);
        assert!(Address::from_v6(mapped).is_v4());
    }

    #[test]
    fn loopback_is_127_8_and_one_address_of_ipv6() {
        let one = u128::to_be_bytes(1);
        let two = u128::to_be_bytes(2);
        for (address, expected) in [
            (Address::from_v4([127, 0, 0, 1]), true),
            (Address::from_v4([127, 255, 0, 9]), true),
            (Address::from_v4([128, 0, 0, 1]), false),
            (Address::from_v6(one), true),
            (Address::from_v6(two), false),
            (Address::UNSPECIFIED, false),
        ] {
            assert_eq!(address.is_loopback(), expected, "{address:?}");
        }
    }

    #[test]
    fn both_spellings_of_unspecified_are_known() {
        assert!(Address::UNSPECIFIED.is_unspecified());
        assert!(Address::from_v4([0; 4]).is_unspecified());
        assert!(!Address::from_v4([0, 0, 0, 1]).is_unspecified());
    }
}
