//! Special-purpose networks: what a rule opens only by naming a network inside them.
//!
//! The IANA special-purpose address registries (RFC 6890 and its updates) without the blocks that they list as globally
//! reachable like any other unicast (AS112 and AMT), with multicast, with the addresses at which clouds hand out
//! credentials, and with the forms of IPv6 addresses that lead to IPv4 ones.
//!
//! IPv4-mapped addresses are IPv4 addresses here and everywhere. Translators to IPv4 are in use, so their well-known prefix
//! has each special-purpose network of IPv4 again. The other forms (6to4, Teredo, IPv4-compatible, IPv4-translated) are
//! closed as a whole.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::LazyLock,
};

/// A network that is not part of the public internet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpecialNetwork {
    /// What it is for.
    pub name: &'static str,
    /// The document that says so.
    pub source: &'static str,
    address: IpAddr,
    length: u8,
}

impl SpecialNetwork {
    /// The addresses.
    pub fn network(&self) -> super::Network {
        super::Network::containing(self.address, self.length)
    }

    fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.length)).unwrap_or(0);
                u32::from(address) & mask == u32::from(network)
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.length)).unwrap_or(0);
                u128::from(address) & mask == u128::from(network)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

const fn v4(bytes: [u8; 4], length: u8, name: &'static str, source: &'static str) -> SpecialNetwork {
    SpecialNetwork { name, source, address: IpAddr::V4(Ipv4Addr::from_octets(bytes)), length }
}

const fn v6(words: [u16; 8], length: u8, name: &'static str, source: &'static str) -> SpecialNetwork {
    SpecialNetwork { name, source, address: IpAddr::V6(Ipv6Addr::from_segments(words)), length }
}

const AWS: &str = "Amazon EC2 user guide, instance metadata";
const EKS: &str = "Amazon EKS user guide, pod identity";
const ECS: &str = "Amazon ECS developer guide, task metadata";

/// Every special-purpose network.
pub static SPECIAL_NETWORKS: LazyLock<Vec<SpecialNetwork>> =
    LazyLock::new(|| LISTED.iter().copied().chain(LISTED.iter().filter_map(translated)).collect());

/// The prefix under which translators reach IPv4 addresses: RFC 6052 section 2.1.
const TRANSLATION: Ipv6Addr = Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0);

/// An IPv4 network as a translator is asked for it. RFC 6052 section 3.1 forbids that, and translators do it all the same.
fn translated(special: &SpecialNetwork) -> Option<SpecialNetwork> {
    match special.address {
        IpAddr::V4(four) => {
            let address = IpAddr::V6(Ipv6Addr::from(u128::from(TRANSLATION) | u128::from(u32::from(four))));
            Some(SpecialNetwork { address, length: special.length.saturating_add(96), ..*special })
        }
        IpAddr::V6(_) => None,
    }
}

const LISTED: &[SpecialNetwork] = &[
    v4([0, 0, 0, 0], 8, "this network", "RFC 791 section 3.2"),
    v4([10, 0, 0, 0], 8, "private use", "RFC 1918"),
    v4([100, 64, 0, 0], 10, "shared address space of carriers", "RFC 6598"),
    v4([100, 100, 100, 200], 32, "cloud metadata", "Alibaba Cloud ECS user guide, instance metadata"),
    v4([127, 0, 0, 0], 8, "loopback", "RFC 1122 section 3.2.1.3"),
    v4([168, 63, 129, 16], 32, "cloud platform", "Azure virtual network, what is IP address 168.63.129.16"),
    v4([169, 254, 0, 0], 16, "link local", "RFC 3927"),
    v4([169, 254, 169, 254], 32, "cloud metadata", AWS),
    v4([169, 254, 170, 2], 32, "cloud credentials", ECS),
    v4([169, 254, 170, 23], 32, "cloud credentials", EKS),
    v4([172, 16, 0, 0], 12, "private use", "RFC 1918"),
    v4([192, 0, 0, 0], 24, "protocol assignments", "RFC 6890 section 2.1"),
    v4([192, 0, 2, 0], 24, "documentation (TEST-NET-1)", "RFC 5737"),
    v4([192, 88, 99, 0], 24, "6to4 relay", "RFC 7526"),
    v4([192, 168, 0, 0], 16, "private use", "RFC 1918"),
    v4([198, 18, 0, 0], 15, "benchmarking", "RFC 2544"),
    v4([198, 51, 100, 0], 24, "documentation (TEST-NET-2)", "RFC 5737"),
    v4([203, 0, 113, 0], 24, "documentation (TEST-NET-3)", "RFC 5737"),
    v4([224, 0, 0, 0], 4, "multicast", "RFC 5771"),
    v4([240, 0, 0, 0], 4, "reserved", "RFC 1112 section 4"),
    v4([255, 255, 255, 255], 32, "limited broadcast", "RFC 8190"),
    v6([0, 0, 0, 0, 0, 0, 0, 0], 96, "IPv4-compatible", "RFC 4291 section 2.5.5.1"),
    v6([0, 0, 0, 0, 0, 0, 0, 0], 128, "unspecified", "RFC 4291"),
    v6([0, 0, 0, 0, 0, 0, 0, 1], 128, "loopback", "RFC 4291"),
    v6([0, 0, 0, 0, 0xffff, 0, 0, 0], 96, "IPv4-translated", "RFC 2765 section 2.1"),
    v6([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96, "translation to IPv4", "RFC 6052"),
    v6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48, "local translation to IPv4", "RFC 8215"),
    v6([0x100, 0, 0, 0, 0, 0, 0, 0], 64, "discard only", "RFC 6666"),
    v6([0x100, 0, 0, 1, 0, 0, 0, 0], 64, "dummy prefix", "RFC 9780"),
    v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23, "protocol assignments", "RFC 2928"),
    v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32, "documentation", "RFC 3849"),
    v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16, "6to4", "RFC 3056"),
    v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20, "documentation", "RFC 9637"),
    v6([0x5f00, 0, 0, 0, 0, 0, 0, 0], 16, "segment routing", "RFC 9602"),
    v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7, "unique local", "RFC 4193"),
    v6([0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe], 128, "cloud metadata", "Oracle Cloud compute, instance metadata"),
    v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23], 128, "cloud credentials", EKS),
    v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254], 128, "cloud metadata", AWS),
    v6([0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254], 128, "cloud metadata", "Google Compute Engine, VM metadata"),
    v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10, "link local", "RFC 4291"),
    v6([0xfe80, 0, 0, 0, 0, 0, 0xa9fe, 0xa9fe], 128, "cloud metadata", "OpenStack Nova, metadata service"),
    v6([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10, "site local", "RFC 3879"),
    v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8, "multicast", "RFC 4291"),
];

/// The smallest special-purpose network that has the address.
pub fn zone(address: IpAddr) -> Option<&'static SpecialNetwork> {
    let address = address.to_canonical();
    SPECIAL_NETWORKS.iter().filter(|special| special.contains(address)).max_by_key(|special| special.length)
}

/// The smallest special-purpose network that has all of the network.
pub fn zone_of(network: &super::Network) -> Option<&'static SpecialNetwork> {
    SPECIAL_NETWORKS
        .iter()
        .filter(|special| special.length <= network.length() && special.contains(network.first()))
        .max_by_key(|special| special.length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Network;

    #[test]
    fn every_special_network_is_canonical_and_listed_once() {
        for (index, special) in SPECIAL_NETWORKS.iter().enumerate() {
            assert_eq!(special.network().first(), special.address, "{}", special.network());
            assert_eq!(special.network().length(), special.length, "{}", special.network());
            let before = &SPECIAL_NETWORKS[..index];
            assert!(before.iter().all(|other| other.network() != special.network()), "{}", special.network());
        }
    }

    #[test]
    fn an_address_is_in_the_smallest_network_that_has_it() {
        for (address, expected) in [
            ("10.255.255.255", Some("private use")),
            ("11.0.0.0", None),
            ("172.15.255.255", None),
            ("172.16.0.0", Some("private use")),
            ("172.32.0.0", None),
            ("100.63.255.255", None),
            ("100.127.255.255", Some("shared address space of carriers")),
            ("169.254.169.253", Some("link local")),
            ("169.254.169.254", Some("cloud metadata")),
            ("::ffff:169.254.169.254", Some("cloud metadata")),
            ("255.255.255.254", Some("reserved")),
            ("255.255.255.255", Some("limited broadcast")),
            ("8.8.8.8", None),
            ("::1", Some("loopback")),
            ("::2", Some("IPv4-compatible")),
            ("::1:0:0:2", None),
            ("fd00:ec2::254", Some("cloud metadata")),
            ("fd00:ec2::253", Some("unique local")),
            ("2606:4700::1111", None),
            ("fe80::5efe:10.0.0.1", Some("link local")),
        ] {
            assert_eq!(zone(address.parse().unwrap()).map(|special| special.name), expected, "{address}");
        }
    }

    #[test]
    fn an_ipv4_address_in_ipv6_form_is_special_whatever_the_form() {
        for (address, expected) in [
            ("::ffff:10.0.0.1", "private use"),
            ("::ffff:169.254.169.254", "cloud metadata"),
            ("::ffff:0:10.0.0.1", "IPv4-translated"),
            ("::10.0.0.1", "IPv4-compatible"),
            ("::169.254.169.254", "IPv4-compatible"),
            ("64:ff9b::8.8.8.8", "translation to IPv4"),
            ("64:ff9b::10.0.0.1", "private use"),
            ("64:ff9b::127.0.0.1", "loopback"),
            ("64:ff9b::169.254.169.254", "cloud metadata"),
            ("64:ff9b::255.255.255.255", "limited broadcast"),
            ("64:ff9b:1::10.0.0.1", "local translation to IPv4"),
            ("64:ff9b:1:a00:0:100::", "local translation to IPv4"),
            ("2002:a00:1::1", "6to4"),
            ("2002:808:808::1", "6to4"),
            // Teredo: the client's address 10.0.0.1 stands inverted at the end (RFC 4380 section 4).
            ("2001:0:4136:e378:8000:63bf:f5ff:fffe", "protocol assignments"),
        ] {
            assert_eq!(zone(address.parse().unwrap()).map(|special| special.name), Some(expected), "{address}");
        }
    }

    #[test]
    fn a_network_is_in_a_zone_only_with_all_of_its_addresses() {
        for (network, expected) in [
            ("10.0.0.0/8", Some("private use")),
            ("10.20.0.0/16", Some("private use")),
            ("8.0.0.0/6", None),
            ("169.254.0.0/16", Some("link local")),
            ("0.0.0.0/0", None),
            ("fd00::/8", Some("unique local")),
            ("64:ff9b::/96", Some("translation to IPv4")),
            ("64:ff9b::10.0.0.0/104", Some("private use")),
            ("64:ff9b::8.0.0.0/102", Some("translation to IPv4")),
        ] {
            let network = Network::parse(network).unwrap();
            assert_eq!(zone_of(&network).map(|special| special.name), expected, "{network}");
        }
    }
}
