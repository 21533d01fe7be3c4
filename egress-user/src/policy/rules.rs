//! The rules of a policy, and what they say of a name or an address without a look at each of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    ops::Deref,
    slice,
};

use super::{Admitted, Destination, DomainName, DomainPattern, Network, Rule, special};

/// Rules in the order of the file, and their destinations sorted: a policy has ten thousand rules, and is asked thousands
/// of times each second.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    list: Vec<Rule>,
    /// Names that are allowed themselves.
    exact: BTreeSet<Box<str>>,
    /// Names below which all are allowed.
    below: BTreeSet<Box<str>>,
    networks: BTreeMap<Prefixes, BTreeSet<Network>>,
}

/// The networks of one family and length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Prefixes {
    is_ipv4: bool,
    length: u8,
}

impl Rules {
    /// Whether a rule is about the name.
    pub(super) fn admits(&self, name: &DomainName) -> Option<Admitted> {
        if self.exact.contains(name.as_str()) {
            Some(Admitted::Exact)
        } else {
            name.parents().any(|parent| self.below.contains(parent)).then_some(Admitted::Below)
        }
    }

    /// Whether a rule's network opens the address: one of a special-purpose network only from inside it.
    pub(super) fn open(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let is_ipv4 = address.is_ipv4();
        // Networks that share an address nest, so those inside the special one are those that are no shorter.
        let shortest = special::zone(address).map_or(0, |zone| zone.network().length());
        let inside = Prefixes { is_ipv4, length: shortest }..=Prefixes { is_ipv4, length: u8::MAX };
        self.networks
            .range(inside)
            .any(|(prefixes, networks)| networks.contains(&Network::containing(address, prefixes.length)))
    }
}

impl From<Vec<Rule>> for Rules {
    fn from(list: Vec<Rule>) -> Self {
        let (mut exact, mut below) = (BTreeSet::new(), BTreeSet::new());
        let mut networks: BTreeMap<Prefixes, BTreeSet<Network>> = BTreeMap::new();
        for rule in &list {
            match &rule.destination {
                Destination::Domain(DomainPattern::Exact(name)) => {
                    exact.insert(name.as_str().into());
                }
                Destination::Domain(DomainPattern::Below(parent)) => {
                    below.insert(parent.as_str().into());
                }
                Destination::Network(network) => {
                    let prefixes = Prefixes { is_ipv4: network.first().is_ipv4(), length: network.length() };
                    networks.entry(prefixes).or_default().insert(*network);
                }
            }
        }
        Self { list, exact, below, networks }
    }
}

impl FromIterator<Rule> for Rules {
    fn from_iter<I: IntoIterator<Item = Rule>>(rules: I) -> Self {
        rules.into_iter().collect::<Vec<_>>().into()
    }
}

impl Deref for Rules {
    type Target = [Rule];

    fn deref(&self) -> &[Rule] {
        &self.list
    }
}

impl<'a> IntoIterator for &'a Rules {
    type Item = &'a Rule;
    type IntoIter = slice::Iter<'a, Rule>;

    fn into_iter(self) -> Self::IntoIter {
        self.list.iter()
    }
}

/// The list says all that the rest is made from.
impl PartialEq for Rules {
    fn eq(&self, other: &Self) -> bool {
        self.list == other.list
    }
}

impl Eq for Rules {}
