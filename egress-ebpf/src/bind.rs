//! `bind`: a workload that may not listen is told so when it takes a port, not by silence afterwards.

use egress_common::{Decision, Protocol, Reason, Verdict, event::Hook};

use crate::{
    connect::{PROCEED, REFUSE},
    context::{Call, End},
    judge::Judge,
    report::{self, Flow},
};

/// Decides a `bind`.
///
/// Only TCP and only a port that the caller chose: port 0 is how clients pick a source address, UDP needs a port to get
/// its answers, and listeners on loopback serve the workload itself. What `listen` without `bind` makes, `ingress` keeps
/// unreachable.
#[inline(always)]
pub(crate) fn decide(call: &Call, local: End) -> i32 {
    if call.protocol() != Some(Protocol::Tcp) || local.port == 0 || local.address.is_loopback() {
        return PROCEED;
    }
    let judge = Judge::of_this_cgroup();
    if judge.may_listen() {
        return PROCEED;
    }
    let mut decision = Decision::deny(Reason::Listen);
    if judge.only_records() {
        decision.verdict = Verdict::Allow;
    }
    let flow = Flow {
        binding: judge.binding,
        protocol: Protocol::Tcp.wire(),
        local,
        remote: End::UNKNOWN,
        decision,
        inbound: 1,
    };
    report::refusal(call, None, &flow, Hook::Bind);
    if decision.verdict == Verdict::Allow { PROCEED } else { REFUSE }
}
