//! `connect` and `sendto`: the first verdict, so that the application learns of a refusal from its own call.

use aya_ebpf::bindings::bpf_sock_addr;
use egress_common::{Decision, Protocol, Reason, Verdict, entry::SocketState, event::Hook};

use crate::{
    call::{self, Call, Outcome},
    context::{self, End},
    judge::Judge,
    maps, questions,
    report::{self, Flow},
};

/// The call goes on.
pub(crate) const PROCEED: i32 = 1;
/// The call fails.
pub(crate) const REFUSE: i32 = 0;

/// Decides a call that names where to send, and from where if that is known.
#[inline(always)]
pub(crate) fn decide(call: &Call, local: End, remote: End, hook: Hook) -> Outcome {
    Outcome::hidden(decide_call(call.as_raw(), &raw const local, &raw const remote, hook as u32))
}

/// Not inlined and checked by the verifier once, see `decide_destination`.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn decide_call(call: *mut bpf_sock_addr, local: *const End, remote: *const End, hook: u32) -> u32 {
    // SAFETY: the caller passes the address of a value; the verifier demands this check all the same.
    let Some(local) = (unsafe { local.as_ref() }) else { return Outcome::REFUSE };
    // SAFETY: as above.
    let Some(&remote) = (unsafe { remote.as_ref() }) else { return Outcome::REFUSE };
    let call = Call::new(call);
    let hook = if hook == Hook::Connect as u32 { Hook::Connect } else { Hook::SendMsg };
    let judge = Judge::of_this_cgroup();
    if let Some(state) = call.socket().and_then(|socket| maps::socket_state_or_new(&socket)) {
        // A socket that connects out is no longer one that accepted.
        state.flags &= !SocketState::ACCEPTS;
        state.workload = judge.binding.workload;
        (state.pid, state.command) = context::current_process();
    }
    let protocol = call.protocol().map_or(call.protocol_number(), Protocol::wire);
    let mut flow = Flow::new(judge.binding, protocol, End::UNKNOWN, remote);
    let decision = match call.protocol() {
        None => Decision::deny(Reason::Protocol),
        Some(protocol) if questions::asks(protocol, &remote) => {
            match questions::lead(&call, &judge, protocol, &remote) {
                Ok(port) => return Outcome::lead_to(port),
                Err(reason) => Decision::deny(reason),
            }
        }
        Some(protocol) => verdict(&call, &judge, protocol, local, &remote, hook),
    };
    if decision.verdict == Verdict::Allow {
        return Outcome::PROCEED;
    }
    flow.set(decision);
    match report::refusal(&call, &judge, core::ptr::null(), &mut flow, hook) {
        Verdict::Allow => Outcome::PROCEED,
        Verdict::Deny => {
            call::set_errno(judge.refuse_errno());
            Outcome::REFUSE
        }
    }
}

#[inline(always)]
fn verdict(call: &Call, judge: &Judge, protocol: Protocol, local: &End, remote: &End, hook: Hook) -> Decision {
    // Datagrams of a socket that was connected to the proxy name the proxy itself where an IPv6 socket sends IPv4.
    if hook == Hook::SendMsg
        && let Some(socket) = call.socket()
        && questions::are_led(call, &socket, protocol, local, remote)
    {
        return Decision::allow(Reason::Question);
    }
    let decision = judge.decide(call, protocol, local, remote);
    let may_be_deferred = protocol == Protocol::Udp
        && hook == Hook::Connect
        && decision.verdict == Verdict::Deny
        && decision.reason != Reason::BlockedPort;
    if may_be_deferred && may_only_ask_for_a_source(judge, remote) {
        return Decision::allow(Reason::Deferred);
    }
    decision
}

/// Whether a UDP `connect` may only ask for a source address.
///
/// getaddrinfo(3) of glibc connects a datagram socket to each address of a name to sort them (RFC 6724), to port 0 when
/// no service was asked for, and ping does so to port 1025; neither sends on it. Refusing these would reorder the
/// addresses of allowed names and put refusals on record that nobody tried. `connect` sends nothing: the first datagram
/// is decided, and fails in its own call; to port 0 the kernel itself sends none.
#[inline(always)]
fn may_only_ask_for_a_source(judge: &Judge, remote: &End) -> bool {
    let may_reach = |protocol| judge.decide_destination(protocol, remote).verdict == Verdict::Allow;
    remote.port == 0 || may_reach(Protocol::Tcp) || may_reach(Protocol::Icmp)
}
