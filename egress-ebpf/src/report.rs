//! Events to the user half, and the counters of a flow.

use aya_ebpf::helpers::generated::{bpf_jiffies64, bpf_ktime_get_boot_ns};
use egress_common::{
    Decision, Verdict,
    entry::{Binding, SocketState},
    event::{Event, Hook, Kind},
    limits::{REPORT_BYTES, REPORT_JIFFIES},
};

use crate::{
    context::{self, Context, End},
    judge::Judge,
    maps::{self, EVENTS, LOST_EVENTS, REFUSALS},
};

/// Wakes no reader: the reader comes by itself every few milliseconds.
const NO_WAKE_UP: u64 = 1;

/// Wakes a reader that has read everything before, so that a refusal is on record at once, yet a flood wakes nobody twice.
const WAKE_UP: u64 = 0;

/// Direction of a packet.
#[derive(Clone, Copy)]
pub(crate) enum Direction {
    /// From the workload.
    Out,
    /// To the workload.
    In,
}

/// Adds a packet to the counters, and reports the flow when it is time.
#[inline(always)]
pub(crate) fn account(ctx: &impl Context, state: &mut SocketState, direction: Direction, length: u64, hook: Hook) {
    match direction {
        Direction::Out => {
            add(&raw mut state.tx_packets, 1);
            add(&raw mut state.tx_bytes, length);
        }
        Direction::In => {
            add(&raw mut state.rx_packets, 1);
            add(&raw mut state.rx_bytes, length);
        }
    }
    let bytes = state.tx_bytes + state.rx_bytes;
    // SAFETY: this helper has no arguments and cannot fail.
    let now = unsafe { bpf_jiffies64() };
    if bytes.wrapping_sub(state.reported_bytes) >= REPORT_BYTES
        || now.wrapping_sub(state.reported_jiffies) >= REPORT_JIFFIES
    {
        report(ctx, state, Kind::Report, hook);
        // After the socket was closed every packet is reported, because no end is coming that would.
        if state.flags & SocketState::RELEASED == 0 {
            state.reported_bytes = bytes;
        }
        state.reported_jiffies = now;
    }
}

/// Begins a flow on the socket: a flow that was there ends.
#[inline(always)]
pub(crate) fn begin(ctx: &impl Context, state: &mut SocketState, flow: &Flow, hook: Hook) {
    if state.flags & SocketState::STARTED != 0 {
        report(ctx, state, Kind::End, hook);
    }
    // Before anything is written, see `has_one_flow`. It never comes back to 1: each CPU adds once at most after it is 2.
    if state.flows < 2 {
        count_flow(&raw mut state.flows);
    }
    state.destination = flow.remote.address;
    state.port = flow.remote.port;
    state.protocol = flow.protocol;
    state.reason = flow.reason;
    state.local = flow.local.address;
    state.local_port = flow.local.port;
    state.inbound = flow.inbound;
    state.policy = flow.binding.policy;
    state.workload = flow.binding.workload;
    state.tx_packets = 0;
    state.tx_bytes = 0;
    state.rx_packets = 0;
    state.rx_bytes = 0;
    state.reported_bytes = 0;
    // SAFETY: this helper has no arguments and cannot fail.
    state.reported_jiffies = unsafe { bpf_jiffies64() };
    state.flags |= SocketState::STARTED;
    report(ctx, state, Kind::Start, hook);
}

/// Whether it is the flow that the socket's counters are of.
#[inline(always)]
pub(crate) fn is_flow_of(state: &SocketState, flow: &Flow) -> bool {
    state.flags & SocketState::STARTED != 0
        && state.destination == flow.remote.address
        && state.port == flow.remote.port
        && state.protocol == flow.protocol
}

/// Whether only one flow ever began on the socket, so that what is on it was written by one CPU.
#[inline(always)]
pub(crate) fn has_one_flow(state: &SocketState) -> bool {
    // SAFETY: it reads a field of a value. Volatile, so that it is read after what was compared before.
    unsafe { (&raw const state.flows).read_volatile() == 1 }
}

/// A flow, or an attempt at one, as a hook sees it.
#[repr(C)]
pub(crate) struct Flow {
    /// Slot and workload.
    pub(crate) binding: Binding,
    /// This end.
    pub(crate) local: End,
    /// The far end.
    pub(crate) remote: End,
    /// Protocol number.
    pub(crate) protocol: u8,
    /// 1 when the far end opened it.
    pub(crate) inbound: u8,
    /// The [`egress_common::Reason`] of the decision.
    pub(crate) reason: u8,
    /// The [`Verdict`]; `Allow` with the reason of a refusal in audit mode.
    pub(crate) verdict: u8,
}

impl Flow {
    /// A flow about which nothing is decided yet.
    #[inline(always)]
    pub(crate) fn new(binding: Binding, protocol: u8, local: End, remote: End) -> Self {
        Self { binding, local, remote, protocol, inbound: 0, reason: 0, verdict: 0 }
    }

    /// Notes what was decided.
    #[inline(always)]
    pub(crate) fn set(&mut self, decision: Decision) {
        self.reason = decision.reason.wire();
        self.verdict = decision.verdict as u8;
    }
}

/// Reports the state of a flow.
#[inline(always)]
pub(crate) fn report(ctx: &impl Context, state: &SocketState, kind: Kind, hook: Hook) {
    emit_flow(state, ctx.cookie(), kind as u32, hook as u32);
}

/// Counts and reports a refusal. In audit mode it is let through: then the verdict that is returned is `Allow`.
#[inline(always)]
pub(crate) fn refusal(
    ctx: &impl Context,
    judge: &Judge,
    process: *const SocketState,
    flow: &mut Flow,
    hook: Hook,
) -> Verdict {
    let verdict = if judge.only_records() { Verdict::Allow } else { Verdict::Deny };
    flow.verdict = verdict as u8;
    emit_refusal(flow, process, ctx.cookie(), hook as u32);
    verdict
}

/// The record of a flow. Like `decide_destination`, checked once by the verifier and not at every call.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn emit_flow(state: *const SocketState, socket: u64, kind: u32, hook: u32) -> u32 {
    // SAFETY: callers pass the address of a value; the verifier demands this check all the same.
    let Some(state) = (unsafe { state.as_ref() }) else { return 0 };
    let Some(mut slot) = EVENTS.reserve(0) else {
        maps::count(&LOST_EVENTS, 0);
        return 0;
    };
    slot.write(Event {
        time_nanoseconds: now_nanoseconds(),
        socket,
        tx_packets: state.tx_packets,
        tx_bytes: state.tx_bytes,
        rx_packets: state.rx_packets,
        rx_bytes: state.rx_bytes,
        local: state.local,
        remote: state.destination,
        local_port: state.local_port,
        remote_port: state.port,
        policy: state.policy,
        workload: state.workload,
        pid: state.pid,
        kind: kind as u8,
        hook: hook as u8,
        verdict: Verdict::Allow as u8,
        reason: state.reason,
        protocol: state.protocol,
        inbound: state.inbound,
        reserved: [0; 2],
        command: state.command,
    });
    slot.submit(NO_WAKE_UP);
    0
}

/// The record of a refusal: by the process that the socket's state names, or by the current one.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn emit_refusal(flow: *const Flow, process: *const SocketState, socket: u64, hook: u32) -> u32 {
    // SAFETY: callers pass the address of a value; the verifier demands this check all the same.
    let Some(flow) = (unsafe { flow.as_ref() }) else { return 0 };
    maps::count(&REFUSALS, u32::from(flow.reason));
    let Some(mut slot) = EVENTS.reserve(0) else {
        maps::count(&LOST_EVENTS, 0);
        return 0;
    };
    // SAFETY: callers pass null or the address of a value.
    let (pid, command) = match unsafe { process.as_ref() } {
        Some(state) => (state.pid, state.command),
        None => context::current_process(),
    };
    slot.write(Event {
        time_nanoseconds: now_nanoseconds(),
        socket,
        tx_packets: 0,
        tx_bytes: 0,
        rx_packets: 0,
        rx_bytes: 0,
        local: flow.local.address,
        remote: flow.remote.address,
        local_port: flow.local.port,
        remote_port: flow.remote.port,
        policy: flow.binding.policy,
        workload: flow.binding.workload,
        pid,
        kind: Kind::Refusal as u8,
        hook: hook as u8,
        verdict: flow.verdict,
        reason: flow.reason,
        protocol: flow.protocol,
        inbound: flow.inbound,
        reserved: [0; 2],
        command,
    });
    slot.submit(WAKE_UP);
    0
}

#[inline(always)]
fn now_nanoseconds() -> u64 {
    // SAFETY: this helper has no arguments and cannot fail.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// Adds to a counter that other CPUs add to as well.
#[inline(always)]
fn add(counter: *mut u64, amount: u64) {
    #[cfg(target_arch = "bpf")]
    // SAFETY: the counter is 8 bytes of a socket's storage, aligned to 8. `AtomicU64::fetch_add` does not exist for this
    // target; the intrinsic becomes one instruction.
    unsafe {
        core::intrinsics::atomic_xadd::<u64, u64, { core::intrinsics::AtomicOrdering::Relaxed }>(counter, amount);
    }
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: the counter is 8 bytes of a socket's storage, aligned to 8.
    unsafe {
        *counter += amount;
    }
}

/// Counts a flow, visibly to other CPUs before what is written next.
#[inline(always)]
fn count_flow(flows: *mut u32) {
    #[cfg(target_arch = "bpf")]
    // SAFETY: the counter is 4 bytes of a socket's storage, aligned to 4.
    unsafe {
        core::intrinsics::atomic_xadd::<u32, u32, { core::intrinsics::AtomicOrdering::AcqRel }>(flows, 1);
    }
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: the counter is 4 bytes of a socket's storage, aligned to 4.
    unsafe {
        *flows += 1;
    }
}
