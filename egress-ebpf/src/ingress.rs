//! Every packet on its way in: what the workload did not ask for is dropped where it may not listen.

use egress_common::{
    Decision, Protocol, Reason, Verdict,
    entry::SocketState,
    event::Hook,
    packet::{self, Packet},
};

use crate::{
    context::{End, Skb, Socket},
    egress::{self, DROP, PASS},
    judge::Judge,
    maps,
    report::{self, Direction, Flow},
};

/// Decides a packet.
#[inline(always)]
pub(crate) fn decide(skb: &Skb) -> i32 {
    let Some(socket) = skb.socket() else { return DROP };
    let parsed = skb.family().ok_or(Reason::Protocol).and_then(|family| packet::parse(family, skb));
    let packet = match parsed {
        Ok(packet) => packet,
        Err(reason) => return refuse(skb, End::UNKNOWN, End::UNKNOWN, 0, reason),
    };
    let state = maps::socket_state(&socket);
    if let Some(state) = state
        && egress::holds_for(state, packet.protocol, packet.source, packet.source_port)
    {
        report::account(skb, state, Direction::In, skb.length(), Hook::Ingress);
        return PASS;
    }
    decide_anew(skb, &socket, &packet)
}

#[inline(always)]
fn decide_anew(skb: &Skb, socket: &Socket, packet: &Packet) -> i32 {
    let judge = Judge::of_this_cgroup();
    let local = End { address: packet.destination, port: packet.destination_port };
    let remote = End { address: packet.source, port: packet.source_port };
    let decision = match packet.protocol {
        Protocol::Tcp => verdict_tcp(skb, socket, &judge, local, remote),
        Protocol::Udp | Protocol::Icmp => verdict_datagram(skb, socket, &judge, packet, local, remote),
    };
    match decision.verdict {
        Verdict::Allow => PASS,
        Verdict::Deny => refuse(skb, local, remote, packet.protocol.wire(), decision.reason),
    }
}

/// A connection that exists was decided when it was opened; only its opening is decided here.
#[inline(always)]
fn verdict_tcp(skb: &Skb, socket: &Socket, judge: &Judge, local: End, remote: End) -> Decision {
    if !socket.listens() || judge.may_listen() || judge.is_own(skb, Protocol::Tcp, local, remote) {
        return Decision::allow(Reason::Accepted);
    }
    Decision::deny(Reason::Unsolicited)
}

/// A datagram is an answer when the socket has sent before, and the policy lets it send to where this one came from.
#[inline(always)]
fn verdict_datagram(skb: &Skb, socket: &Socket, judge: &Judge, packet: &Packet, local: End, remote: End) -> Decision {
    if judge.may_listen() || judge.is_own(skb, packet.protocol, local, remote) {
        return Decision::allow(Reason::Accepted);
    }
    let has_sent = maps::socket_state(socket).is_some_and(|state| state.flags & SocketState::STARTED != 0);
    let may_send = egress_common::decide(judge, &remote.address, packet.protocol, remote.port);
    if has_sent && may_send.verdict == Verdict::Allow {
        return may_send;
    }
    Decision::deny(Reason::Unsolicited)
}

#[inline(always)]
fn refuse(skb: &Skb, local: End, remote: End, protocol: u8, reason: Reason) -> i32 {
    let judge = Judge::of_this_cgroup();
    let mut decision = Decision::deny(reason);
    if judge.only_records() {
        decision.verdict = Verdict::Allow;
    }
    let flow = Flow { binding: judge.binding, protocol, local, remote, decision, inbound: 1 };
    // Interrupts deliver packets, so the current process is nobody in particular: the socket's own is named.
    let state = skb.socket().and_then(|socket| maps::socket_state(&socket));
    let nobody = SocketState::NEW;
    let process = match state {
        Some(state) => &*state,
        None => &nobody,
    };
    report::refusal(skb, Some(process), &flow, Hook::Ingress);
    if decision.verdict == Verdict::Allow { PASS } else { DROP }
}
