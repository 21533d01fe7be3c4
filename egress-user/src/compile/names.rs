//! Addresses of names: what the names that share an address allow together, and until when.

use std::{cmp::Reverse, collections::BTreeMap, net::IpAddr};

use super::{PortsId, Unions};
use crate::policy::{Destination, DomainName, DomainPattern, Known, Policy, Tier, special};

/// What the names of an address allow.
pub(super) struct Named {
    pub(super) ports: PortsId,
    /// Second of `CLOCK_BOOTTIME` from which it no longer counts; 0 for never.
    pub(super) expires_at: u32,
}

/// Each address that an allowed name resolves to.
pub(super) fn destinations(policy: &Policy, known: &Known, unions: &mut Unions) -> BTreeMap<IpAddr, Named> {
    // A name never opens a special-purpose address, and the internal tier has no others.
    if policy.tier == Some(Tier::Internal) {
        return BTreeMap::new();
    }
    let patterns = Patterns::new(policy, unions);
    let mut shares: BTreeMap<IpAddr, Vec<Share>> = BTreeMap::new();
    for (name, addresses) in &known.addresses {
        let Some(ports) = patterns.ports(name, unions) else {
            continue;
        };
        for (address, expires_at) in addresses {
            let address = address.to_canonical();
            if special::zone(address).is_none() {
                shares.entry(address).or_default().push(Share { ports, expires_at: *expires_at });
            }
        }
    }
    shares.into_iter().map(|(address, shares)| (address, together(shares, unions))).collect()
}

/// What one name allows at an address.
pub(super) struct Share {
    pub(super) ports: PortsId,
    pub(super) expires_at: u32,
}

/// The address allows what any of its names allows, until the names that are left no longer allow all of that.
pub(super) fn together(mut shares: Vec<Share>, unions: &mut Unions) -> Named {
    shares.sort_by_key(|share| Reverse(share.expires_at.wrapping_sub(1)));
    let ports = shares.iter().fold(PortsId::NONE, |ports, share| unions.union(ports, share.ports));
    let mut so_far = PortsId::NONE;
    let mut expires_at = 0;
    for share in shares {
        if so_far == ports {
            break;
        }
        so_far = unions.union(so_far, share.ports);
        expires_at = share.expires_at;
    }
    Named { ports, expires_at }
}

/// The domains of the rules, by name.
#[derive(Debug)]
pub(super) struct Patterns {
    exact: BTreeMap<String, PortsId>,
    below: BTreeMap<String, PortsId>,
}

impl Patterns {
    pub(super) fn new(policy: &Policy, unions: &mut Unions) -> Self {
        let mut patterns = Self { exact: BTreeMap::new(), below: BTreeMap::new() };
        for rule in &policy.allow {
            let (map, name) = match &rule.destination {
                Destination::Network(_) => continue,
                Destination::Domain(DomainPattern::Exact(name)) => (&mut patterns.exact, name),
                Destination::Domain(DomainPattern::Below(name)) => (&mut patterns.below, name),
            };
            let id = unions.intern(&rule.ports);
            let ports = map.entry(name.as_str().to_owned()).or_insert(id);
            *ports = unions.union(*ports, id);
        }
        patterns
    }

    /// What the rules about the name allow, or `None` when there are none.
    pub(super) fn ports(&self, name: &DomainName, unions: &mut Unions) -> Option<PortsId> {
        let exact = self.exact.get(name.as_str());
        let below = name.parents().filter_map(|parent| self.below.get(parent));
        exact.into_iter().chain(below).copied().reduce(|one, other| unions.union(one, other))
    }
}
