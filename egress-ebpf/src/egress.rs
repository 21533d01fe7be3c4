//! Every packet on its way out: the last word.

use aya_ebpf::bindings::__sk_buff;
use egress_common::{
    Address, Decision, Protocol, Reason, Verdict,
    entry::SocketState,
    event::{Hook, Kind},
    packet::Packet,
};

use crate::{
    context::{End, Skb, Socket, answer},
    judge::Judge,
    maps::{self, GENERATIONS},
    questions,
    report::{self, Direction, Flow},
};

/// The packet goes on.
pub(crate) const PASS: i32 = 1;
/// The packet is dropped; the sending call of UDP and ICMP fails with `EPERM`.
pub(crate) const DROP: i32 = 0;

/// Decides a packet.
#[inline(always)]
pub(crate) fn decide(skb: &Skb) -> i32 {
    // Looked up before the packet is read, so that nothing of the packet has to be kept across the call.
    let state = skb.socket().and_then(|socket| maps::socket_state(&socket));
    if let Some(state) = state
        && let Ok(packet) = skb.packet()
        && holds_for(state, packet.protocol, packet.destination, packet.destination_port)
        && !skb.strays(&packet.destination)
    {
        report::account(skb, state, Direction::Out, skb.length(), Hook::Egress);
        return PASS;
    }
    answer(decide_outbound(skb.as_raw()))
}

/// Whether the decision on the socket is still good for this far end.
///
/// Datagrams of one socket are sent by several CPUs at once, which may leave the address of one destination with the port
/// of another on it. Only what a single flow wrote is believed, and that is looked at last. TCP sends under the lock of
/// the socket.
#[inline(always)]
pub(crate) fn holds_for(state: &SocketState, protocol: Protocol, remote: Address, port: u16) -> bool {
    state.destination == remote
        && state.port == port
        && state.protocol == protocol.wire()
        && state.generation != 0
        && GENERATIONS.get(state.policy).is_some_and(|generation| *generation == state.generation)
        && (protocol == Protocol::Tcp || report::has_one_flow(state))
}

/// Not inlined and checked by the verifier once, see `decide_destination`.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn decide_outbound(skb: *mut __sk_buff) -> i32 {
    let skb = &Skb::new(skb);
    // Read again instead of handed over: the packet would take a tenth of the stack on the path of every packet.
    let packet = &match skb.packet() {
        Ok(packet) => packet,
        Err(reason) => return refuse_unread(skb, reason, Hook::Egress),
    };
    let Some(socket) = skb.socket() else { return refuse_unread(skb, Reason::Malformed, Hook::Egress) };
    let Some(state) = maps::socket_state_or_new(&socket) else {
        return refuse_unread(skb, Reason::NoMemory, Hook::Egress);
    };
    let judge = Judge::of_this_cgroup();
    let generation = generation_of(&judge);
    let mut flow = Flow::new(
        judge.binding,
        packet.protocol.wire(),
        End::new(packet.source, packet.source_port),
        End::new(packet.destination, packet.destination_port),
    );
    let strays = skb.strays(&packet.destination);
    if !strays && questions::are_led(skb, &socket, packet.protocol, &flow.local, &flow.remote) {
        return match questions::introduce(skb, &socket, state, &flow) {
            Ok(()) => PASS,
            Err(reason) => refuse_question(skb, &judge, state, &mut flow, reason),
        };
    }
    let decision =
        if strays { Decision::deny(Reason::DeviceBound) } else { verdict(skb, &socket, packet, state, &judge, &flow) };
    flow.set(decision);
    flow.inbound = u8::from(decision.reason == Reason::Accepted);
    if decision.verdict == Verdict::Deny
        && report::refusal(skb, &judge, state, &mut flow, Hook::Egress) == Verdict::Deny
    {
        return DROP;
    }
    if socket.listens() {
        // The answer to a connection request leaves through the listener; the connection will have its own state, a
        // copy of this one.
        if state.flags & SocketState::STARTED != 0 {
            report::report(skb, state, Kind::End, Hook::Egress);
            state.flags &= !SocketState::STARTED;
        }
        state.flags |= SocketState::ACCEPTS;
        state.workload = judge.binding.workload;
        return PASS;
    }
    if !report::is_flow_of(state, &flow) {
        report::begin(skb, state, &flow, Hook::Egress);
    }
    state.policy = judge.binding.policy;
    state.generation = if may_be_remembered(decision, packet) { generation } else { 0 };
    report::account(skb, state, Direction::Out, skb.length(), Hook::Egress);
    PASS
}

/// A question that the proxy could not tell the asker of does not go there, not even where refusals are only recorded.
#[inline(always)]
fn refuse_question(skb: &Skb, judge: &Judge, state: &SocketState, flow: &mut Flow, reason: Reason) -> i32 {
    flow.set(Decision::deny(reason));
    report::refusal(skb, judge, state, flow, Hook::Egress);
    DROP
}

/// The generation that a decision of this policy has; 0, which holds for nothing, where the cgroup has another policy
/// meanwhile.
///
/// Read before the decision, so that a change of the policy in between makes the decision invalid and not new.
#[inline(always)]
fn generation_of(judge: &Judge) -> u32 {
    let generation = GENERATIONS.get(judge.binding.policy).copied().unwrap_or(0);
    // A switch binds the other slot first and raises the generation of this one then.
    if maps::binding().policy == judge.binding.policy { generation } else { 0 }
}

/// Whether later packets to the same far end need no decision of their own.
///
/// A socket of the workload on loopback may be closed at any time, and its port be another's then. Only a connection
/// that exists ends with its peer.
#[inline(always)]
fn may_be_remembered(decision: Decision, packet: &Packet) -> bool {
    decision.reason != Reason::OwnLoopback || (packet.protocol == Protocol::Tcp && !packet.opens())
}

#[inline(always)]
fn verdict(
    skb: &Skb,
    socket: &Socket,
    packet: &Packet,
    state: &mut SocketState,
    judge: &Judge,
    flow: &Flow,
) -> Decision {
    // The kernel answers echo requests by itself; a workload that sends a reply uses it to carry something out.
    if packet.echo_reply {
        return Decision::deny(Reason::Protocol);
    }
    if packet.protocol == Protocol::Tcp {
        if packet.opens() {
            // A socket that opens a connection is no longer one that accepted, however it came to do so.
            state.flags &= !SocketState::ACCEPTS;
        } else if socket.listens() || state.flags & SocketState::ACCEPTS != 0 {
            // With `listen: false` only the workload's own sockets on loopback may be answered.
            return if judge.may_listen() || judge.is_own(skb, packet.protocol, &flow.local, &flow.remote) {
                Decision::allow(Reason::Accepted)
            } else {
                Decision::deny(Reason::Unsolicited)
            };
        }
    }
    judge.decide(skb, packet.protocol, &flow.local, &flow.remote)
}

/// Refuses a packet that could not be read as far as its ends.
#[inline(always)]
pub(crate) fn refuse_unread(skb: &Skb, reason: Reason, hook: Hook) -> i32 {
    answer(refuse_packet(skb.as_raw(), u32::from(reason.wire()), hook as u32))
}

/// Not inlined and checked by the verifier once, see `decide_destination`.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn refuse_packet(skb: *mut __sk_buff, reason: u32, hook: u32) -> i32 {
    let skb = &Skb::new(skb);
    let judge = Judge::of_this_cgroup();
    let reason = Reason::from_wire(reason as u8).unwrap_or(Reason::Malformed);
    let mut flow = Flow::new(judge.binding, 0, End::UNKNOWN, End::UNKNOWN);
    flow.set(Decision::deny(reason));
    let hook = if hook == Hook::Ingress as u32 { Hook::Ingress } else { Hook::Egress };
    match report::refusal(skb, &judge, core::ptr::null(), &mut flow, hook) {
        Verdict::Allow => PASS,
        Verdict::Deny => DROP,
    }
}
