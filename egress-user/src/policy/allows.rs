//! The plain decision: slow, obvious, and written without a look at how policies are compiled.

use std::{collections::BTreeMap, net::IpAddr};

use egress_common::{Decision, Protocol, Reason};

use super::{Destination, DomainName, Policy, Ports, Rule, Tier, special};

/// What a decision is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flow {
    /// How.
    pub protocol: Protocol,
    /// Where to; an IPv4-mapped address is the IPv4 address.
    pub destination: IpAddr,
    /// Destination port; 0 for ICMP.
    pub port: u16,
}

/// What is known only while a policy is in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Addresses of names, each with the second of `CLOCK_BOOTTIME` from which it no longer counts; 0 for never.
    pub addresses: BTreeMap<DomainName, BTreeMap<IpAddr, u32>>,
}

impl Known {
    /// Forgets the addresses that no longer count. Whoever compiles a policy does this first: what one name once
    /// resolved to would otherwise end the address for the other names that share it.
    pub fn forget_expired(&mut self, now_seconds: u32) {
        for addresses in self.addresses.values_mut() {
            addresses.retain(|_, expires_at| is_live(*expires_at, now_seconds));
        }
        self.addresses.retain(|_, addresses| !addresses.is_empty());
    }
}

pub(super) fn is_live(expires_at: u32, now_seconds: u32) -> bool {
    expires_at == 0 || now_seconds < expires_at
}

impl Policy {
    /// Decides whether the flow may be sent.
    ///
    /// The reason of a refusal is the first of these that holds: the port is blocked; the address is outside the tier;
    /// it was a name's and is expired; it is a name's, or in a rule's network, and the port is not allowed; it is in a
    /// special-purpose network; no rule covers it.
    pub fn allows(&self, flow: &Flow, known: &Known, now_seconds: u32) -> Decision {
        let Flow { protocol, destination, port } = *flow;
        let destination = destination.to_canonical();
        if self.blocked_ports.contains(protocol, port) {
            return Decision::deny(Reason::BlockedPort);
        }
        if !self.has_in_tier(destination) {
            return Decision::deny(Reason::Tier);
        }
        let names = self.names(destination, known, now_seconds);
        if names.live_ports.contains(protocol, port) {
            return Decision::allow(Reason::Rule);
        }
        let mut networks = self.allow.iter().filter(|rule| counts_by_network(rule, destination)).peekable();
        let is_in_network = networks.peek().is_some();
        if networks.any(|rule| rule.ports.contains(protocol, port)) {
            return Decision::allow(Reason::Rule);
        }
        match names.state {
            NameState::Expired => Decision::deny(Reason::Expired),
            NameState::Live => Decision::deny(Reason::PortNotAllowed),
            NameState::Unnamed if is_in_network => Decision::deny(Reason::PortNotAllowed),
            NameState::Unnamed if special::zone(destination).is_some() => Decision::deny(Reason::SpecialPurpose),
            NameState::Unnamed => Decision::deny(Reason::NoRule),
        }
    }

    /// Whether the tier allows the address at all.
    pub(super) fn has_in_tier(&self, destination: IpAddr) -> bool {
        match self.tier {
            None => true,
            Some(Tier::External) => special::zone(destination).is_none(),
            Some(Tier::Internal) => special::zone(destination).is_some(),
        }
    }

    /// What the names that resolve to the address allow.
    ///
    /// The names of an address share one entry of the kernel with one time at which it ends, so they end together: once
    /// the names that are left no longer allow all that the address was open for.
    fn names(&self, destination: IpAddr, known: &Known, now_seconds: u32) -> Names {
        let (mut ports, mut live_ports) = (Ports::NONE, Ports::NONE);
        let mut state = NameState::Unnamed;
        for rule in self.allow.iter().filter(|rule| counts_by_name(rule, destination, known)) {
            state = NameState::Live;
            ports = ports.union(&rule.ports);
            if expiries(rule, destination, known).any(|expires_at| is_live(expires_at, now_seconds)) {
                live_ports = live_ports.union(&rule.ports);
            }
        }
        if live_ports == ports {
            Names { state, live_ports }
        } else {
            Names { state: NameState::Expired, live_ports: Ports::NONE }
        }
    }
}

struct Names {
    state: NameState,
    live_ports: Ports,
}

enum NameState {
    Unnamed,
    Live,
    Expired,
}

/// Whether the rule's network opens the address: an address of a special-purpose network is opened only from inside it.
pub(super) fn counts_by_network(rule: &Rule, destination: IpAddr) -> bool {
    match &rule.destination {
        Destination::Domain(_) => false,
        Destination::Network(network) => {
            let is_inside = special::zone(destination).is_none_or(|zone| zone.network().covers(network));
            is_inside && network.contains(destination)
        }
    }
}

/// Whether a name of the rule resolves to the address. A name never opens an address of a special-purpose network.
pub(super) fn counts_by_name(rule: &Rule, destination: IpAddr, known: &Known) -> bool {
    special::zone(destination).is_none() && expiries(rule, destination, known).next().is_some()
}

/// When the address ends for each name of the rule that resolves to it.
fn expiries(rule: &Rule, destination: IpAddr, known: &Known) -> impl Iterator<Item = u32> {
    known.addresses.iter().filter(|(name, _)| is_about(rule, name)).flat_map(move |(_, addresses)| {
        addresses
            .iter()
            .filter(move |(address, _)| address.to_canonical() == destination)
            .map(|(_, expires_at)| *expires_at)
    })
}

pub(super) fn is_about(rule: &Rule, name: &DomainName) -> bool {
    match &rule.destination {
        Destination::Domain(pattern) => pattern.matches(name),
        Destination::Network(_) => false,
    }
}
