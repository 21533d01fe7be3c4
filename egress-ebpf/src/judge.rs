//! The slow path of every hook: the policy of the cgroup, asked through the maps.

use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use egress_common::{
    Address, Decision, Lookup, Protocol, Reason, Verdict,
    entry::{AddressKeyV4, AddressKeyV6, Binding, DestinationEntry, POLICY_BITS, PolicyEntry},
};

use crate::{
    context::{self, Context, End},
    maps::{self, ADDRESSES_V4, ADDRESSES_V6, NETWORKS_V4, NETWORKS_V6, NetworkKey, POLICIES, PORT_SETS},
};

/// The policy that governs the running program's cgroup.
pub(crate) struct Judge {
    /// Slot and workload.
    pub(crate) binding: Binding,
    policy: Option<&'static PolicyEntry>,
}

impl Judge {
    #[inline(always)]
    pub(crate) fn of_this_cgroup() -> Self {
        let binding = maps::binding();
        let policy = POLICIES.get(binding.policy).filter(|policy| policy.flags & PolicyEntry::BOUND != 0);
        Self { binding, policy }
    }

    /// Whether the workload may listen and accept.
    #[inline(always)]
    pub(crate) fn may_listen(&self) -> bool {
        self.policy.is_some_and(|policy| policy.flags & PolicyEntry::LISTEN != 0)
    }

    /// Whether refusals are recorded but let through.
    #[inline(always)]
    pub(crate) fn only_records(&self) -> bool {
        self.policy.is_some_and(|policy| policy.flags & PolicyEntry::AUDIT != 0)
    }

    /// The errno of a refused call; 0 for `EPERM`.
    #[inline(always)]
    pub(crate) fn refuse_errno(&self) -> u32 {
        self.policy.map_or(0, |policy| policy.refuse_errno)
    }

    /// What the policy says of the destination, and on loopback whose socket it is.
    #[inline(always)]
    pub(crate) fn decide(&self, ctx: &impl Context, protocol: Protocol, local: End, remote: End) -> Decision {
        let decision = egress_common::decide(self, &remote.address, protocol, remote.port);
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

    /// Whether the far end is on loopback and a socket of this workload.
    #[inline(always)]
    pub(crate) fn is_own(&self, ctx: &impl Context, protocol: Protocol, local: End, remote: End) -> bool {
        remote.address.is_loopback() && context::peer_is_own(ctx, protocol, local, remote, self.binding.workload)
    }
}

impl Lookup for Judge {
    #[inline(always)]
    fn blocks(&self, protocol: Protocol, port: u16) -> Option<bool> {
        self.policy.map(|policy| policy.blocked.contains(protocol, port))
    }

    #[inline(always)]
    fn address(&self, destination: &Address) -> Option<DestinationEntry> {
        let policy = self.binding.policy;
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
        let policy = self.binding.policy;
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
