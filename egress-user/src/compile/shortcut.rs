//! From the addresses of names that changed to their entries, without a look at the rest of the policy.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use egress_common::Reason;

use super::{
    Changes, CompiledPolicy, PortsId, Prefix, Step, Unions, entry,
    names::{Patterns, Share, together},
    port_sets::to_port_set,
    to_address,
};
use crate::policy::{Destination, DomainName, Network, Policy, Tier, special};

/// What of a policy has to do with the addresses of names. It is made once for each policy, so that an answer costs what
/// its addresses cost and not what the policy costs.
#[derive(Debug)]
pub struct Shortcut {
    patterns: Patterns,
    unions: Unions,
    /// Where sets are in the port sets in force.
    places: BTreeMap<PortsId, u16>,
    /// Addresses that rules name by themselves.
    singles: BTreeSet<IpAddr>,
    /// Whether names open addresses at all.
    opens: bool,
}

impl Shortcut {
    /// The shortcut of a policy.
    pub fn new(policy: &Policy) -> Self {
        let mut unions = Unions::default();
        let patterns = Patterns::new(policy, &mut unions);
        let rules = policy.allow.iter().filter_map(|rule| match &rule.destination {
            Destination::Network(network) if network.is_address() => Some(network.first()),
            Destination::Network(_) | Destination::Domain(_) => None,
        });
        Self {
            patterns,
            unions,
            places: BTreeMap::new(),
            singles: rules.collect(),
            opens: policy.tier != Some(Tier::Internal),
        }
    }

    /// Forgets where port sets are. To be called when anything but its own changes was made.
    pub fn forget_places(&mut self) {
        self.places.clear();
    }

    /// The changes after which each of these addresses has the entry that its names give it, until the time that stands
    /// beside each name. Expired names are to be left out, and addresses are to be in their canonical form.
    ///
    /// `None` where everything has to be compiled: a set of ports is not in force yet, or an address that a rule names by
    /// itself gains or loses its names, and with that moves between the hash and the trie.
    pub fn changes<'a, N>(
        &mut self,
        in_force: &CompiledPolicy,
        changed: impl IntoIterator<Item = (IpAddr, N)>,
    ) -> Option<Changes>
    where
        N: IntoIterator<Item = (&'a DomainName, u32)>,
    {
        let (mut puts, mut removals) = (Vec::new(), Vec::new());
        for (ip, names) in changed {
            // A name never opens a special-purpose address.
            if !self.opens || special::zone(ip).is_some() {
                continue;
            }
            let shares = self.shares(names);
            let address = to_address(ip);
            if self.singles.contains(&ip) {
                let was_named = in_force.networks.contains_key(&Prefix::from(Network::from_address(ip)));
                match (was_named, shares.is_empty()) {
                    (true, false) => {}
                    (false, true) => continue,
                    (true, true) | (false, false) => return None,
                }
            }
            if shares.is_empty() {
                removals.extend(in_force.addresses.contains_key(&address).then_some(Step::RemoveAddress(address)));
                continue;
            }
            let named = together(shares, &mut self.unions);
            let entry = entry(self.place(named.ports, in_force)?, named.expires_at, Reason::PortNotAllowed);
            if in_force.addresses.get(&address) != Some(&entry) {
                puts.push(Step::PutAddress(address, entry));
            }
        }
        // What goes makes room for what comes.
        removals.append(&mut puts);
        Some(Changes { steps: removals })
    }

    fn shares<'a>(&mut self, names: impl IntoIterator<Item = (&'a DomainName, u32)>) -> Vec<Share> {
        let shares = names.into_iter().filter_map(|(name, expires_at)| {
            let ports = self.patterns.ports(name, &mut self.unions)?;
            Some(Share { ports, expires_at })
        });
        shares.collect()
    }

    fn place(&mut self, ports: PortsId, in_force: &CompiledPolicy) -> Option<u16> {
        if let Some(place) = self.places.get(&ports) {
            return Some(*place);
        }
        let set = to_port_set(self.unions.set(ports));
        let place = in_force.port_sets.iter().position(|there| *there == set)?;
        let place = u16::try_from(place).ok()?;
        self.places.insert(ports, place);
        Some(place)
    }
}
