//! Every packet on its way in: what the workload did not ask for is dropped where it may not listen.

use aya_ebpf::bindings::__sk_buff;
use egress_common::{Decision, Protocol, Reason, Verdict, entry::SocketState, event::Hook};

use crate::{
    context::{End, Skb, Socket, answer},
    egress::{self, DROP, PASS},
    judge::Judge,
    maps, questions,
    report::{self, Direction, Flow},
};

/// Decides a packet.
#[inline(always)]
pub(crate) fn decide(skb: &Skb) -> i32 {
    // Looked up before the packet is read, so that nothing of the packet has to be kept across the call.
    let state = skb.socket().and_then(|socket| maps::socket_state(&socket));
    if let Some(state) = state
        && let Ok(packet) = skb.packet()
        && egress::holds_for(state, packet.protocol, packet.source, packet.source_port)
    {
        report::account(skb, state, Direction::In, skb.length(), Hook::Ingress);
        return PASS;
    }
    answer(decide_inbound(skb.as_raw()))
}

/// Not inlined and checked by the verifier once, see `decide_destination`.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn decide_inbound(skb: *mut __sk_buff) -> i32 {
    let skb = &Skb::new(skb);
    let packet = &match skb.packet() {
        Ok(packet) => packet,
        Err(reason) => return egress::refuse_unread(skb, reason, Hook::Ingress),
    };
    let Some(socket) = skb.socket() else { return egress::refuse_unread(skb, Reason::Malformed, Hook::Ingress) };
    let judge = Judge::of_this_cgroup();
    let mut flow = Flow::new(
        judge.binding,
        packet.protocol.wire(),
        End::new(packet.destination, packet.destination_port),
        End::new(packet.source, packet.source_port),
    );
    if questions::are_led(skb, &socket, packet.protocol, &flow.local, &flow.remote) {
        return PASS;
    }
    let mut state = maps::socket_state(&socket);
    let decision = match packet.protocol {
        Protocol::Tcp => verdict_tcp(skb, &socket, &judge, &flow),
        Protocol::Udp | Protocol::Icmp => {
            let has_sent = state.as_ref().is_some_and(|state| state.flags & SocketState::STARTED != 0);
            verdict_datagram(skb, packet.protocol, &judge, &flow, has_sent)
        }
    };
    if decision.verdict == Verdict::Allow {
        if let Some(state) = &mut state
            && report::is_flow_of(state, &flow)
        {
            report::account(skb, state, Direction::In, skb.length(), Hook::Ingress);
        }
        return PASS;
    }
    flow.set(decision);
    flow.inbound = 1;
    // Interrupts deliver packets, so the current process is nobody in particular: the socket's own is named.
    let process = state.map_or(core::ptr::null(), |state| &raw const *state);
    match report::refusal(skb, &judge, process, &mut flow, Hook::Ingress) {
        Verdict::Allow => PASS,
        Verdict::Deny => DROP,
    }
}

/// A connection that exists was decided when it was opened; only its opening is decided here.
#[inline(always)]
fn verdict_tcp(skb: &Skb, socket: &Socket, judge: &Judge, flow: &Flow) -> Decision {
    if !socket.listens() || judge.may_listen() || judge.is_own(skb, Protocol::Tcp, &flow.local, &flow.remote) {
        return Decision::allow(Reason::Accepted);
    }
    Decision::deny(Reason::Unsolicited)
}

/// A datagram is an answer when the socket has sent before, and the policy lets it send to where this one came from.
#[inline(always)]
fn verdict_datagram(skb: &Skb, protocol: Protocol, judge: &Judge, flow: &Flow, has_sent: bool) -> Decision {
    if judge.may_listen() || judge.is_own(skb, protocol, &flow.local, &flow.remote) {
        return Decision::allow(Reason::Accepted);
    }
    let may_send = judge.decide_destination(protocol, &flow.remote);
    if has_sent && may_send.verdict == Verdict::Allow {
        return may_send;
    }
    Decision::deny(Reason::Unsolicited)
}
