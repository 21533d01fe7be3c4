//! Every packet on its way out: the last word.

use egress_common::{
    Decision, Protocol, Reason, Verdict,
    entry::SocketState,
    event::Hook,
    packet::{self, Packet},
};

use crate::{
    context::{End, Skb, Socket},
    judge::Judge,
    maps::{self, GENERATIONS},
    report::{self, Direction, Flow},
};

/// The packet goes on.
pub(crate) const PASS: i32 = 1;
/// The packet is dropped; the sending call of UDP and ICMP fails with `EPERM`.
pub(crate) const DROP: i32 = 0;

/// Decides a packet.
#[inline(always)]
pub(crate) fn decide(skb: &Skb) -> i32 {
    let Some(socket) = skb.socket() else { return DROP };
    let parsed = skb.family().ok_or(Reason::Protocol).and_then(|family| packet::parse(family, skb));
    let packet = match parsed {
        Ok(packet) if !packet.echo_reply => packet,
        Ok(_) => return refuse_unread(skb, Reason::Protocol),
        Err(reason) => return refuse_unread(skb, reason),
    };
    let state = maps::socket_state(&socket);
    if let Some(state) = state
        && holds_for(state, packet.protocol, packet.destination, packet.destination_port)
    {
        report::account(skb, state, Direction::Out, skb.length(), Hook::Egress);
        return PASS;
    }
    decide_anew(skb, &socket, &packet)
}

/// Whether the decision on the socket is still good for this far end.
#[inline(always)]
pub(crate) fn holds_for(state: &SocketState, protocol: Protocol, remote: egress_common::Address, port: u16) -> bool {
    state.generation != 0
        && state.destination == remote
        && state.port == port
        && state.protocol == protocol.wire()
        && GENERATIONS.get(state.policy).is_some_and(|generation| *generation == state.generation)
}

#[inline(always)]
fn decide_anew(skb: &Skb, socket: &Socket, packet: &Packet) -> i32 {
    let judge = Judge::of_this_cgroup();
    let Some(state) = maps::socket_state_or_new(socket) else {
        return refuse_unread(skb, Reason::NoMemory);
    };
    let local = End { address: packet.source, port: packet.source_port };
    let remote = End { address: packet.destination, port: packet.destination_port };
    let mut decision = verdict(skb, socket, packet, state, &judge);
    let inbound = u8::from(decision.reason == Reason::Accepted);
    if decision.verdict == Verdict::Deny {
        if judge.only_records() {
            decision.verdict = Verdict::Allow;
        }
        let flow = Flow { binding: judge.binding, protocol: packet.protocol.wire(), local, remote, decision, inbound };
        report::refusal(skb, Some(state), &flow, Hook::Egress);
        if decision.verdict == Verdict::Deny {
            return DROP;
        }
    }
    if socket.listens() {
        // The answer to a connection request leaves through the listener; the connection will have its own state, a
        // copy of this one.
        state.flags |= SocketState::ACCEPTS;
        state.workload = judge.binding.workload;
        return PASS;
    }
    let same = state.flags & SocketState::STARTED != 0
        && state.destination == remote.address
        && state.port == remote.port
        && state.protocol == packet.protocol.wire();
    if !same {
        let flow = Flow { binding: judge.binding, protocol: packet.protocol.wire(), local, remote, decision, inbound };
        report::begin(skb, state, &flow, Hook::Egress);
    }
    state.policy = judge.binding.policy;
    state.generation = GENERATIONS.get(judge.binding.policy).copied().unwrap_or(0);
    report::account(skb, state, Direction::Out, skb.length(), Hook::Egress);
    PASS
}

#[inline(always)]
fn verdict(skb: &Skb, socket: &Socket, packet: &Packet, state: &mut SocketState, judge: &Judge) -> Decision {
    let local = End { address: packet.source, port: packet.source_port };
    let remote = End { address: packet.destination, port: packet.destination_port };
    if packet.protocol == Protocol::Tcp {
        if packet.opens() {
            // A socket that opens a connection is no longer one that accepted, however it came to do so.
            state.flags &= !SocketState::ACCEPTS;
        } else if state.flags & SocketState::ACCEPTS != 0 && !socket.listens() {
            // With `listen: false` only the workload's own sockets got as far as being accepted.
            if judge.may_listen() || judge.is_own(skb, packet.protocol, local, remote) {
                return Decision::allow(Reason::Accepted);
            }
        } else if socket.listens() {
            if judge.may_listen() || judge.is_own(skb, packet.protocol, local, remote) {
                return Decision::allow(Reason::Accepted);
            }
            return Decision::deny(Reason::Unsolicited);
        }
    }
    judge.decide(skb, packet.protocol, local, remote)
}

/// Refuses a packet that could not be read as far as its ends.
#[inline(always)]
fn refuse_unread(skb: &Skb, reason: Reason) -> i32 {
    let judge = Judge::of_this_cgroup();
    let mut decision = Decision::deny(reason);
    if judge.only_records() {
        decision.verdict = Verdict::Allow;
    }
    let flow =
        Flow { binding: judge.binding, protocol: 0, local: End::UNKNOWN, remote: End::UNKNOWN, decision, inbound: 0 };
    report::refusal(skb, None, &flow, Hook::Egress);
    if decision.verdict == Verdict::Allow { PASS } else { DROP }
}
