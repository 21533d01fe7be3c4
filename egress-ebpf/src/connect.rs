//! `connect` and `sendto`: the first verdict, so that the application learns of a refusal from its own call.

use egress_common::{Address, Decision, Protocol, Reason, Verdict, entry::SocketState, event::Hook};

use crate::{
    context::{self, Call, End},
    judge::Judge,
    maps,
    report::{self, Flow},
};

/// The call goes on.
pub(crate) const PROCEED: i32 = 1;
/// The call fails.
pub(crate) const REFUSE: i32 = 0;

/// Decides a call that names where to send.
#[inline(always)]
pub(crate) fn decide(call: &Call, remote: End, hook: Hook) -> i32 {
    let state = call.socket().and_then(|socket| maps::socket_state_or_new(&socket));
    let judge = Judge::of_this_cgroup();
    let mut decision = verdict(call, &judge, remote, hook);
    if let Some(state) = state {
        // A socket that connects out is no longer one that accepted.
        state.flags &= !SocketState::ACCEPTS;
        state.workload = judge.binding.workload;
        context::note_process(state);
    }
    if decision.verdict == Verdict::Allow {
        return PROCEED;
    }
    if judge.only_records() {
        decision.verdict = Verdict::Allow;
    }
    let flow = Flow {
        binding: judge.binding,
        protocol: call.protocol().map_or(call.protocol_number(), Protocol::wire),
        local: End::UNKNOWN,
        remote,
        decision,
        inbound: 0,
    };
    report::refusal(call, None, &flow, hook);
    if decision.verdict == Verdict::Allow {
        return PROCEED;
    }
    call.set_errno(judge.refuse_errno());
    REFUSE
}

#[inline(always)]
fn verdict(call: &Call, judge: &Judge, remote: End, hook: Hook) -> Decision {
    let Some(protocol) = call.protocol() else { return Decision::deny(Reason::Protocol) };
    let port = match protocol {
        Protocol::Tcp | Protocol::Udp => remote.port,
        Protocol::Icmp => 0,
    };
    let unbound = End { address: Address::UNSPECIFIED, port: 0 };
    let decision = judge.decide(call, protocol, unbound, End { address: remote.address, port });
    match (decision.verdict, protocol, hook) {
        (Verdict::Deny, Protocol::Udp, Hook::Connect) if may_be_a_question(judge, remote) => {
            Decision::allow(Reason::Deferred)
        }
        _ => decision,
    }
}

/// Whether a UDP `connect` may only ask for a source address.
///
/// getaddrinfo(3) of glibc connects a datagram socket to each address of a name to sort them (RFC 6724), and ping does so
/// to port 1025; neither sends on it. Refusing these would reorder the addresses of allowed names and put refusals on
/// record that nobody tried. `connect` sends nothing: the first datagram is decided, and fails in its own call.
#[inline(always)]
fn may_be_a_question(judge: &Judge, remote: End) -> bool {
    let of = |protocol, port| egress_common::decide(judge, &remote.address, protocol, port).verdict == Verdict::Allow;
    of(Protocol::Tcp, remote.port) || of(Protocol::Icmp, 0)
}
