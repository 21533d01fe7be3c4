//! The decision about a destination. Both halves run this function: the kernel over its maps, tests and `explain` over
//! the compiled policy.

use crate::{Address, Protocol, Reason, Verdict, entry::DestinationEntry};

/// A verdict with its reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Decision {
    /// What happens.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
}

impl Decision {
    /// A refusal.
    #[inline(always)]
    pub const fn deny(reason: Reason) -> Self {
        Self { verdict: Verdict::Deny, reason }
    }

    /// A permission.
    #[inline(always)]
    pub const fn allow(reason: Reason) -> Self {
        Self { verdict: Verdict::Allow, reason }
    }
}

/// The look-ups that a decision needs, for one policy.
pub trait Lookup {
    /// Whether the policy blocks the port whatever the rules say; `None` when there is no policy.
    fn blocks(&self, protocol: Protocol, port: u16) -> Option<bool>;
    /// The entry of exactly this address.
    fn address(&self, destination: &Address) -> Option<DestinationEntry>;
    /// The entry of the longest network that contains the address.
    fn network(&self, destination: &Address) -> Option<DestinationEntry>;
    /// Whether the port set with this index has the port; `None` when there is no such set.
    fn port_set_contains(&self, index: u16, protocol: Protocol, port: u16) -> Option<bool>;
    /// Seconds of `CLOCK_BOOTTIME`.
    fn now_seconds(&self) -> u32;
}

/// Decides whether a policy lets the protocol and port of the destination be reached.
///
/// The exact address counts first, because most destinations are addresses of names and a hash is cheaper than a trie.
/// An address that does not allow falls through to the networks, so an entry of a name can add to what a network
/// allows but never take from it. What neither of them allows is denied with the reason of the more exact one.
#[inline(always)]
pub fn decide(maps: &impl Lookup, destination: &Address, protocol: Protocol, port: u16) -> Decision {
    match maps.blocks(protocol, port) {
        None => return Decision::deny(Reason::Unbound),
        Some(true) => return Decision::deny(Reason::BlockedPort),
        Some(false) => {}
    }
    let exact = match maps.address(destination) {
        None => None,
        Some(entry) if has_expired(maps, &entry) => Some(Reason::Expired),
        Some(entry) if allows(maps, &entry, protocol, port) => return Decision::allow(Reason::Rule),
        Some(entry) => Some(entry.otherwise()),
    };
    let wide = match maps.network(destination) {
        None => None,
        Some(entry) if allows(maps, &entry, protocol, port) => return Decision::allow(Reason::Rule),
        Some(entry) => Some(entry.otherwise()),
    };
    Decision::deny(exact.or(wide).unwrap_or(Reason::NoRule))
}

#[inline(always)]
fn has_expired(maps: &impl Lookup, entry: &DestinationEntry) -> bool {
    entry.expires_at != 0 && maps.now_seconds() >= entry.expires_at
}

#[inline(always)]
fn allows(maps: &impl Lookup, entry: &DestinationEntry, protocol: Protocol, port: u16) -> bool {
    maps.port_set_contains(entry.port_set, protocol, port).is_some_and(|contains| contains)
}
