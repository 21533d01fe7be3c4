//! The beginning and the end of a socket.

use egress_common::{
    Decision, Reason, Verdict,
    entry::SocketState,
    event::{Hook, Kind},
    limits::REPORT_BYTES,
};

use crate::{
    connect::{PROCEED, REFUSE},
    context::{self, End, Socket},
    judge::Judge,
    maps, questions,
    report::{self, Flow},
};

/// `SOCK_STREAM` and `SOCK_DGRAM` of `include/linux/net.h`, on every architecture but MIPS.
const STREAM: u32 = 1;
const DATAGRAM: u32 = 2;

/// Lets only sockets be made whose packets the other hooks understand, and marks them as the workload's.
#[inline(always)]
pub(crate) fn create(socket: &Socket) -> i32 {
    let judge = Judge::of_this_cgroup();
    let protocol = socket.protocol();
    let known = matches!((socket.kind(), protocol), (STREAM, 6) | (DATAGRAM, 17 | 1 | 58));
    let state = maps::socket_state_or_new(socket);
    let reason = match (known, &state) {
        (false, _) => Reason::SocketKind,
        (true, None) => Reason::NoMemory,
        (true, Some(_)) => Reason::Rule,
    };
    if let Some(state) = state {
        state.workload = judge.binding.workload;
        (state.pid, state.command) = context::current_process();
    }
    if reason == Reason::Rule {
        return PROCEED;
    }
    let mut flow = Flow::new(judge.binding, protocol as u8, End::UNKNOWN, End::UNKNOWN);
    flow.set(Decision::deny(reason));
    match report::refusal(socket, &judge, core::ptr::null(), &mut flow, Hook::Socket) {
        Verdict::Allow => PROCEED,
        Verdict::Deny => REFUSE,
    }
}

/// Reports the last counters of a flow whose socket is closed, and forgets whose questions came from it.
#[inline(always)]
pub(crate) fn release(socket: &Socket) -> i32 {
    questions::forget(socket);
    if let Some(state) = maps::socket_state(socket)
        && state.flags & SocketState::STARTED != 0
    {
        report::report(socket, state, Kind::End, Hook::Release);
        state.flags |= SocketState::RELEASED;
        // What the socket still had queued goes out after this; `account` then finds a report due at every packet.
        state.reported_bytes = (state.tx_bytes + state.rx_bytes).wrapping_sub(REPORT_BYTES);
    }
    PROCEED
}
