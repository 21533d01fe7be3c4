//! The slow path of every hook: the policy of the cgroup, asked through the maps.

use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use egress_common::{
    Address, Decision, Lookup, Protocol, Reason, Verdict,
    entry::{AddressKeyV4, AddressKeyV6, Binding, DestinationEntry, POLICY_BITS, PolicyEntry},
};

use crate::{
    context::{End, PeerLookup},
    maps::{self, ADDRESSES_V4, ADDRESSES_V6, NETWORKS_V4, NETWORKS_V6, NetworkKey, POLICIES, PORT_SETS},
};

/// The policy that governs the running program's cgroup.
pub(crate) struct Judge {
    /// Slot and workload.
    pub(crate) binding: Binding,
    /// Flags of the policy; none when there is no policy, which forbids everything.
    flags: u32,
    refuse_errno: u32,
}

impl Judge {
    #[inline(always)]
    pub(crate) fn of_this_cgroup() -> Self {
        let binding = maps::binding();
        // Copied and not kept as a reference: the verifier loses sight of one that is kept beside a flag for "none".
        match POLICIES.get(binding.policy) {
            Some(policy) => Self { binding, flags: policy.flags, refuse_errno: policy.refuse_errno },
            None => Self { binding, flags: 0, refuse_errno: 0 },
        }
    }

    /// Whether the workload may listen and accept.
    #[inline(always)]
    pub(crate) fn may_listen(&self) -> bool {
        self.flags & PolicyEntry::LISTEN != 0
    }

    /// Whether refusals are recorded but let through.
    #[inline(always)]
    pub(crate) fn only_records(&self) -> bool {
        self.flags & PolicyEntry::AUDIT != 0
    }

    /// The errno of a refused call; 0 for `EPERM`.
    #[inline(always)]
    pub(crate) fn refuse_errno(&self) -> u32 {
        self.refuse_errno
    }

    /// What the policy says of the destination, and on loopback whose socket it is.
    #[inline(always)]
    pub(crate) fn decide(&self, ctx: &impl PeerLookup, protocol: Protocol, local: &End, remote: &End) -> Decision {
        let decision = self.decide_destination(protocol, remote);
        match (decision.verdict, decision.reason) {
            (Verdict::Allow, _) | (Verdict::Deny, Reason::Unbound | Reason::BlockedPort) => decision,
            (Verdict::Deny, _) => {
                if self.is_own(ctx, protocol, local, remote) {
                    Decision::allow(Reason::OwnLoopback)
                } else {
                    decision
                }
            }
        }
    }

    /// What the policy says of the destination.
    #[inline(always)]
    pub(crate) fn decide_destination(&self, protocol: Protocol, remote: &End) -> Decision {
        let protocol = u32::from(protocol.wire());
        let decision = decide_destination(self.binding.policy, &raw const remote.address, protocol, remote.port.into());
        let reason = Reason::from_wire(decision as u8).unwrap_or(Reason::NoRule);
        if decision & ALLOWED == 0 { Decision::deny(reason) } else { Decision::allow(reason) }
    }

    /// Whether the far end is on loopback and a socket of this workload.
    #[inline(always)]
    pub(crate) fn is_own(&self, ctx: &impl PeerLookup, protocol: Protocol, local: &End, remote: &End) -> bool {
        remote.address.is_loopback() && ctx.peer_is_of(protocol, local, remote, self.binding.workload)
    }
}

/// Bit of a packed decision.
const ALLOWED: u32 = 0x100;

/// The shared decision, packed: the reason in the low byte, [`ALLOWED`] above it.
///
/// A function that the verifier checks once by itself, and not once for every path that leads to a call of it: that is
/// the difference between a millisecond and a tenth of a second for each program that is loaded.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn decide_destination(policy: u32, destination: *const Address, protocol: u32, port: u32) -> u32 {
    // SAFETY: callers pass the address of a value; the verifier demands this check all the same.
    let Some(destination) = (unsafe { destination.as_ref() }) else { return Reason::Unbound.wire().into() };
    let Some(protocol) = Protocol::from_wire(protocol as u8) else { return Reason::Protocol.wire().into() };
    let decision = egress_common::decide(&Maps { policy }, destination, protocol, port as u16);
    match decision.verdict {
        Verdict::Allow => ALLOWED | u32::from(decision.reason.wire()),
        Verdict::Deny => decision.reason.wire().into(),
    }
}

/// The destinations of one policy.
struct Maps {
    /// The policy's slot.
    policy: u32,
}

impl Lookup for Maps {
    #[inline(always)]
    fn blocks(&self, protocol: Protocol, port: u16) -> Option<bool> {
        let policy = POLICIES.get(self.policy)?;
        if policy.flags & PolicyEntry::BOUND == 0 {
            return None;
        }
        Some(policy.blocked.contains(protocol, port))
    }

    #[inline(always)]
    fn address(&self, destination: &Address) -> Option<DestinationEntry> {
        let policy = self.policy;
        let entry = if destination.is_v4() {
            ADDRESSES_V4.get_ptr(AddressKeyV4 { policy, address: destination.v4_bytes() })
        } else {
            ADDRESSES_V6.get_ptr(AddressKeyV6 { policy, address: destination.v6_bytes() })
        };
        // SAFETY: the pointer comes from a look-up; an entry is 8 bytes that are replaced as a whole, and a freed one
        // is not reused before the running program ends its RCU section, except for another key of the same map: then
        // the value read is that of another allowed destination for one packet, which the next packet corrects.
        entry.map(|entry| unsafe { *entry })
    }

    #[inline(always)]
    fn network(&self, destination: &Address) -> Option<DestinationEntry> {
        let policy = self.policy;
        let entry = if destination.is_v4() {
            let data = AddressKeyV4 { policy, address: destination.v4_bytes() };
            NETWORKS_V4.get(&NetworkKey::new(POLICY_BITS + 32, data))
        } else {
            let data = AddressKeyV6 { policy, address: destination.v6_bytes() };
            NETWORKS_V6.get(&NetworkKey::new(POLICY_BITS + 128, data))
        };
        entry.copied()
    }

    #[inline(always)]
    fn port_set_contains(&self, index: u16, protocol: Protocol, port: u16) -> Option<bool> {
        PORT_SETS.get(u32::from(index)).map(|set| set.contains(protocol, port))
    }

    #[inline(always)]
    fn now_seconds(&self) -> u32 {
        // SAFETY: this helper has no arguments and cannot fail.
        let nanoseconds = unsafe { bpf_ktime_get_boot_ns() };
        (nanoseconds / 1_000_000_000) as u32
    }
}
