//! Networks: what each allows, with what the wider ones that count for it allow.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use egress_common::Reason;

use super::{PortsId, Unions};
use crate::policy::{Destination, Network, Policy, Tier, special::SPECIAL_NETWORKS};

/// What stands in the policy and in the table of special-purpose networks about one network.
#[derive(Default)]
struct Own {
    rules: Option<PortsId>,
    is_zone: bool,
}

/// Each network that needs an entry, with its ports and the reason for refusing all others.
pub(super) fn destinations(policy: &Policy, unions: &mut Unions) -> Vec<(Network, PortsId, Reason)> {
    let mut sweep = Sweep { tier: policy.tier, enclosing: Vec::new() };
    gather(policy, unions).into_iter().map(|(key, own)| sweep.visit(key, &own, unions)).collect()
}

/// Family, first address, length: in this order a network comes after every wider one that has it.
type Key = (Family, u128, u8);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Family {
    V4,
    V6,
}

/// Bits of an IPv4 address stand at the top, so that prefixes of both families are the same bits.
const V4_SHIFT: u32 = 96;

fn key(network: &Network) -> Key {
    match network.first() {
        IpAddr::V4(address) => (Family::V4, u128::from(u32::from(address)) << V4_SHIFT, network.length()),
        IpAddr::V6(address) => (Family::V6, u128::from(address), network.length()),
    }
}

fn network((family, bits, length): Key) -> Network {
    let address = match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::from(u32::try_from(bits >> V4_SHIFT).unwrap_or(u32::MAX))),
        Family::V6 => IpAddr::V6(Ipv6Addr::from(bits)),
    };
    Network::containing(address, length)
}

fn gather(policy: &Policy, unions: &mut Unions) -> BTreeMap<Key, Own> {
    let mut networks: BTreeMap<Key, Own> = BTreeMap::new();
    for special in SPECIAL_NETWORKS.iter() {
        networks.entry(key(&special.network())).or_default().is_zone = true;
    }
    for rule in &policy.allow {
        match &rule.destination {
            Destination::Domain(_) => {}
            Destination::Network(network) => {
                let id = unions.intern(&rule.ports);
                let own = networks.entry(key(network)).or_default();
                own.rules = Some(own.rules.map_or(id, |before| unions.union(before, id)));
            }
        }
    }
    if policy.tier == Some(Tier::Internal) {
        networks.entry((Family::V4, 0, 0)).or_default();
        networks.entry((Family::V6, 0, 0)).or_default();
    }
    networks
}

/// Walks the networks in order; those that have the current one are on a stack.
struct Sweep {
    tier: Option<Tier>,
    enclosing: Vec<Enclosing>,
}

#[derive(Clone, Copy)]
struct Enclosing {
    key: Key,
    /// Ports of all rules that count here.
    ports: PortsId,
    has_rules: bool,
    is_special: bool,
}

impl Sweep {
    fn visit(&mut self, key: Key, own: &Own, unions: &mut Unions) -> (Network, PortsId, Reason) {
        while self.enclosing.pop_if(|outer| !covers(outer.key, key)).is_some() {}
        let outer = self.enclosing.last().copied();
        // Rules for wider networks do not reach into a special-purpose network.
        let reaching = outer.filter(|_| !own.is_zone);
        let outer_ports = reaching.map_or(PortsId::NONE, |outer| outer.ports);
        let here = Enclosing {
            key,
            ports: own.rules.map_or(outer_ports, |rules| unions.union(outer_ports, rules)),
            has_rules: own.rules.is_some() || reaching.is_some_and(|outer| outer.has_rules),
            is_special: own.is_zone || outer.is_some_and(|outer| outer.is_special),
        };
        self.enclosing.push(here);
        let is_in_tier = match self.tier {
            None => true,
            Some(Tier::External) => !here.is_special,
            Some(Tier::Internal) => here.is_special,
        };
        let (ports, otherwise) = match (is_in_tier, here.has_rules, here.is_special) {
            (false, _, _) => (PortsId::NONE, Reason::Tier),
            (true, true, _) => (here.ports, Reason::PortNotAllowed),
            (true, false, true) => (here.ports, Reason::SpecialPurpose),
            (true, false, false) => (here.ports, Reason::NoRule),
        };
        (network(key), ports, otherwise)
    }
}

fn covers((outer_family, outer, length): Key, (family, inner, inner_length): Key) -> bool {
    let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
    outer_family == family && length <= inner_length && inner & mask == outer
}
