//! [`Policy`] and what is known → the entries of the kernel's maps.
//!
//! The kernel looks an address up twice: in a hash of addresses, and for the longest network that has it. So every
//! network entry carries the ports of the wider networks that count for it too, and every special-purpose network has
//! an entry of its own, in which only what rules open inside it counts.

mod diff;
mod names;
mod networks;
mod port_sets;
mod shortcut;

use std::{collections::BTreeMap, fmt, net::IpAddr};

use egress_common::{
    Address, Decision, Lookup, Protocol, Reason,
    entry::{DestinationEntry, PolicyEntry, PortSet},
    limits::PORT_SETS_MAX,
};

use self::port_sets::{PortSetTable, PortsId, Unions, to_port_set};
use crate::policy::{Flow, Known, Mode, Network, Policy};

pub use self::{
    diff::{Changes, Step, Update, diff},
    shortcut::Shortcut,
};

/// The entries of the kernel's maps for one policy. The same policy gives the same bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompiledPolicy {
    /// The policy's slot.
    pub policy: Box<PolicyEntry>,
    /// The port sets that entries name by their index; the first is empty.
    pub port_sets: Vec<PortSet>,
    /// Single addresses: those of names, and those that rules name.
    pub addresses: BTreeMap<Address, DestinationEntry>,
    /// Networks, of which the longest that has an address counts.
    pub networks: BTreeMap<Prefix, DestinationEntry>,
}

/// A network as the kernel's tries know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Prefix {
    /// The first address, which also tells the family.
    pub address: Address,
    /// Bits of the prefix: 0 to 32 for IPv4, 0 to 128 for IPv6.
    pub length: u8,
}

impl From<Network> for Prefix {
    fn from(network: Network) -> Self {
        Self { address: to_address(network.first()), length: network.length() }
    }
}

/// The address as maps hold it.
pub fn to_address(address: IpAddr) -> Address {
    match address {
        IpAddr::V4(address) => Address::from_v4(address.octets()),
        IpAddr::V6(address) => Address::from_v6(address.octets()),
    }
}

/// The address as the standard library has it.
pub fn to_ip(address: &Address) -> IpAddr {
    if address.is_v4() { IpAddr::from(address.v4_bytes()) } else { IpAddr::from(address.v6_bytes()) }
}

/// Why a policy has no entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompileError {
    /// More distinct port sets than the kernel's map holds.
    PortSets {
        /// How many there would be.
        count: usize,
    },
}

impl std::error::Error for CompileError {}

impl fmt::Display for CompileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PortSets { count } => write!(
                f,
                "the policy combines ports to {count} different sets; expected at most {PORT_SETS_MAX}, so let more \
                 rules have the same `ports`"
            ),
        }
    }
}

/// Compiles a policy with what is known. Addresses that have expired are to be forgotten before.
pub fn compile(policy: &Policy, known: &Known) -> Result<CompiledPolicy, CompileError> {
    let mut unions = Unions::default();
    let mut table = PortSetTable::default();
    // Sets that stand in the policy come first, so they keep their place whatever is known.
    for rule in &policy.allow {
        let id = unions.intern(&rule.ports);
        table.index(id)?;
    }
    let named = names::destinations(policy, known, &mut unions);
    let mut addresses = BTreeMap::new();
    let mut networks = BTreeMap::new();
    for (network, ports, otherwise) in networks::destinations(policy, &mut unions) {
        let entry = entry(table.index(ports)?, 0, otherwise);
        let address = to_address(network.first());
        // An address that a name has too is in the trie, so that it stays when the name's time ends. A special-purpose
        // address is in the trie, because only a trie's entry hides the wider ones.
        let is_special = crate::policy::special::zone(network.first()).is_some_and(|zone| zone.network() == network);
        if network.is_address() && !is_special && !named.contains_key(&network.first()) {
            addresses.insert(address, entry);
        } else {
            networks.insert(Prefix::from(network), entry);
        }
    }
    for (address, named) in named {
        let entry = entry(table.index(named.ports)?, named.expires_at, Reason::PortNotAllowed);
        addresses.insert(to_address(address), entry);
    }
    Ok(CompiledPolicy { policy: policy_entry(policy), port_sets: table.port_sets(&unions), addresses, networks })
}

fn entry(port_set: u16, expires_at: u32, otherwise: Reason) -> DestinationEntry {
    DestinationEntry { expires_at, port_set, otherwise: otherwise.wire(), reserved: 0 }
}

fn policy_entry(policy: &Policy) -> Box<PolicyEntry> {
    let audit = match policy.mode {
        Mode::Enforce => 0,
        Mode::Audit => PolicyEntry::AUDIT,
    };
    let listen = if policy.listen { PolicyEntry::LISTEN } else { 0 };
    Box::new(PolicyEntry {
        flags: PolicyEntry::BOUND | audit | listen,
        refuse_errno: policy.refuse.errno(),
        blocked: to_port_set(&policy.blocked_ports),
    })
}

impl CompiledPolicy {
    /// What the kernel decides with these entries.
    pub fn decide(&self, flow: &Flow, now_seconds: u32) -> Decision {
        let Flow { protocol, destination, port } = *flow;
        egress_common::decide(&At { compiled: self, now_seconds }, &to_address(destination), protocol, port)
    }

    /// The entry of the longest network that has the address.
    fn longest(&self, destination: &Address) -> Option<(Prefix, DestinationEntry)> {
        let ip = to_ip(destination);
        let longest = if ip.is_ipv4() { 32 } else { 128 };
        (0..=longest).rev().find_map(|length| {
            let prefix = Prefix::from(Network::containing(ip, length));
            self.networks.get(&prefix).map(|entry| (prefix, *entry))
        })
    }
}

/// A compiled policy at one time.
struct At<'a> {
    compiled: &'a CompiledPolicy,
    now_seconds: u32,
}

impl Lookup for At<'_> {
    fn blocks(&self, protocol: Protocol, port: u16) -> Option<bool> {
        let PolicyEntry { flags, refuse_errno: _, blocked } = &*self.compiled.policy;
        (flags & PolicyEntry::BOUND != 0).then(|| blocked.contains(protocol, port))
    }

    fn address(&self, destination: &Address) -> Option<DestinationEntry> {
        self.compiled.addresses.get(destination).copied()
    }

    fn network(&self, destination: &Address) -> Option<DestinationEntry> {
        self.compiled.longest(destination).map(|(_, entry)| entry)
    }

    fn port_set_contains(&self, index: u16, protocol: Protocol, port: u16) -> Option<bool> {
        self.compiled.port_sets.get(usize::from(index)).map(|set| set.contains(protocol, port))
    }

    fn now_seconds(&self) -> u32 {
        self.now_seconds
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{DomainName, parse};

    fn policy(keys: &str) -> Policy {
        parse("test.yaml", format!("version: 1\nname: test\n{keys}").as_bytes()).unwrap()
    }

    fn known(names: &[(&str, &str, u32)]) -> Known {
        let mut known = Known::default();
        for (name, address, expires_at) in names {
            let addresses = known.addresses.entry(DomainName::parse(name).unwrap()).or_default();
            addresses.insert(address.parse().unwrap(), *expires_at);
        }
        known
    }

    fn decide(policy: &CompiledPolicy, address: &str, port: u16, now_seconds: u32) -> Reason {
        let flow = Flow { protocol: Protocol::Tcp, destination: address.parse().unwrap(), port };
        policy.decide(&flow, now_seconds).reason
    }

    #[test]
    fn special_purpose_networks_are_opened_only_from_inside() {
        let policy = policy("allow: [0.0.0.0/0, '::/0', 169.254.0.0/16, 10.20.0.0/16:443, fd00::/8, api.example.com]");
        let known = known(&[("api.example.com", "192.168.1.1", 0), ("api.example.com", "::1", 0)]);
        let compiled = compile(&policy, &known).unwrap();
        for (address, expected) in [
            ("8.8.8.8", Reason::Rule),
            ("2606:4700::1111", Reason::Rule),
            ("169.254.169.253", Reason::Rule),
            ("169.254.169.254", Reason::SpecialPurpose),
            ("::ffff:169.254.169.254", Reason::SpecialPurpose),
            ("10.19.255.255", Reason::SpecialPurpose),
            ("10.20.0.0", Reason::PortNotAllowed),
            ("192.168.1.1", Reason::SpecialPurpose),
            ("fd12::1", Reason::Rule),
            ("fd00:ec2::254", Reason::SpecialPurpose),
            ("::1", Reason::SpecialPurpose),
            ("224.0.0.1", Reason::SpecialPurpose),
        ] {
            assert_eq!(decide(&compiled, address, 80, 0), expected, "{address}");
        }
    }

    #[test]
    fn an_entry_carries_the_ports_of_the_wider_networks() {
        let compiled = compile(&policy("allow: [11.0.0.0/8:80, 11.1.0.0/16:443, 11.1.1.1:22]"), &Known::default());
        let compiled = compiled.unwrap();
        for (address, allowed) in [
            ("11.0.0.1", &[80][..]),
            ("11.1.0.1", &[80, 443]),
            ("11.1.1.1", &[80, 443, 22]),
            ("11.2.0.1", &[80]),
            ("12.0.0.1", &[]),
        ] {
            for port in [22, 80, 443] {
                let is_allowed = decide(&compiled, address, port, 0) == Reason::Rule;
                assert_eq!(is_allowed, allowed.contains(&port), "{address}:{port}");
            }
        }
    }

    #[test]
    fn an_address_ends_with_the_first_name_that_the_others_do_not_make_up_for() {
        let policy = policy("allow: ['a.example:80', 'b.example:443', 'c.example:443']");
        for (names, ends_at) in [
            (&[("a.example", 100)][..], 100),
            (&[("a.example", 0)], 0),
            (&[("a.example", 100), ("b.example", 200)], 100),
            (&[("a.example", 100), ("b.example", 0)], 100),
            (&[("b.example", 100), ("c.example", 200)], 200),
            (&[("b.example", 100), ("c.example", 0)], 0),
            (&[("a.example", 150), ("b.example", 100), ("c.example", 200)], 150),
        ] {
            let names: Vec<(&str, &str, u32)> = names.iter().map(|(name, end)| (*name, "8.8.8.8", *end)).collect();
            let compiled = compile(&policy, &known(&names)).unwrap();
            let entry = compiled.addresses.get(&Address::from_v4([8, 8, 8, 8])).unwrap();
            assert_eq!(entry.expires_at, ends_at, "{names:?}");
        }
    }

    #[test]
    fn what_a_rule_allows_outlives_the_name_at_the_same_address() {
        let policy = policy("allow: ['a.example:80', '8.8.8.8:443']");
        let compiled = compile(&policy, &known(&[("a.example", "8.8.8.8", 100)])).unwrap();
        for (port, now, expected) in [
            (80, 99, Reason::Rule),
            (80, 100, Reason::Expired),
            (443, 99, Reason::Rule),
            (443, 100, Reason::Rule),
            (22, 99, Reason::PortNotAllowed),
        ] {
            assert_eq!(decide(&compiled, "8.8.8.8", port, now), expected, "{port} at {now}");
        }
    }

    #[test]
    fn the_port_sets_of_rules_keep_their_places_whatever_is_known() {
        let policy = policy("allow: ['a.example:80', 'b.example:443', '11.0.0.0/8:22']");
        let before = compile(&policy, &Known::default()).unwrap();
        let names = [("a.example", "11.0.0.1", 9), ("b.example", "11.0.0.1", 9)];
        let after = compile(&policy, &known(&names)).unwrap();
        assert!(after.port_sets.len() > before.port_sets.len());
        assert_eq!(after.port_sets[..before.port_sets.len()], before.port_sets);
    }

    #[test]
    fn the_slot_says_what_the_policy_says() {
        for (keys, flags, errno) in [
            ("allow: []", PolicyEntry::BOUND, 1),
            ("mode: audit\nrefuse: ECONNREFUSED", PolicyEntry::BOUND | PolicyEntry::AUDIT, 111),
            ("listen: true\nrefuse: EHOSTUNREACH", PolicyEntry::BOUND | PolicyEntry::LISTEN, 113),
        ] {
            let entry = compile(&policy(keys), &Known::default()).unwrap().policy;
            assert_eq!((entry.flags, entry.refuse_errno), (flags, errno), "{keys}");
        }
    }
}
