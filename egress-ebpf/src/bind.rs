//! `bind`: a workload that may not listen is told so when it takes a port, not by silence afterwards.

use egress_common::{Decision, Protocol, Reason, Verdict, event::Hook};

use crate::{
    call::Call,
    connect::{PROCEED, REFUSE},
    context::End,
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
    let mut flow = Flow::new(judge.binding, Protocol::Tcp.wire(), local, End::UNKNOWN);
    flow.set(Decision::deny(Reason::Listen));
    flow.inbound = 1;
    match report::refusal(call, &judge, core::ptr::null(), &mut flow, Hook::Bind) {
        Verdict::Allow => PROCEED,
        Verdict::Deny => REFUSE,
    }
}
