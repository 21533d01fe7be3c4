//! [`Policy`] and what is known → the entries of the kernel's maps.
//!
//! The kernel looks an address up twice: in a hash of addresses, and for the longest network that has it. So every
//! network entry carries the ports of the wider networks that count for it too, and every special-purpose network has
//! an entry of its own, in which only what rules open inside it counts.

mod diff;
mod names;
mod networks;
mod port_sets;

use std::{collections::BTreeMap, fmt, net::IpAddr};

use egress_common::{
    Address, Decision, Lookup, Protocol, Reason,
    entry::{DestinationEntry, PolicyEntry, PortSet},
    limits::PORT_SETS_MAX,
};

use self::port_sets::{PortSetTable, PortsId, Unions, to_port_set};
use crate::policy::{Flow, Known, Mode, Network, Policy};

pub use self::diff::{Changes, Step, Update, diff};

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
    for (network, ports, otherwise) in networks::destinations(policy, known, &mut unions) {
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
