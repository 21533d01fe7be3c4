//! Questions about names: they go to the proxy whatever server they are for, and their answers look as if they came from
//! that server.

use egress_common::{
    Address, Protocol, Reason, Verdict,
    entry::SocketState,
    limits::SERVER_SLOTS,
    question::{Asker, AskerKey, DNS_PORT, PROXY_WORKLOAD, Questions, Server},
};

use crate::{
    call::Call,
    context::{Context, End, LOOPBACK_V4, LOOPBACK_V6, PeerLookup, Socket},
    judge::Judge,
    maps::{self, ASKERS, LISTENERS},
    report::Flow,
};

/// `BPF_ANY` of `include/uapi/linux/bpf.h`: the entry is made or replaced.
const ANY: u64 = 0;

/// Whether a call would ask a name server.
#[inline(always)]
pub(crate) fn asks(protocol: Protocol, remote: &End) -> bool {
    remote.port == DNS_PORT && protocol != Protocol::Icmp
}

/// The port of the proxy that the call has to go to, or why it has to fail.
#[inline(always)]
pub(crate) fn lead(call: &Call, judge: &Judge, protocol: Protocol, remote: &End) -> Result<u16, Reason> {
    let decision = judge.decide_destination(protocol, remote);
    if decision.verdict == Verdict::Deny && matches!(decision.reason, Reason::Unbound | Reason::BlockedPort) {
        return Err(decision.reason);
    }
    let Some(socket) = call.socket() else { return Err(Reason::NoMemory) };
    if socket.is_bound_to_device() {
        return Err(Reason::DeviceBound);
    }
    let namespace = call.namespace();
    let Some(listener) = LISTENERS.get_ptr(namespace) else { return Err(Reason::NoResolver) };
    let Some(questions) = maps::questions_or_new(&socket) else { return Err(Reason::NoMemory) };
    let slot = slot(questions, protocol, remote.address);
    // SAFETY: the pointer comes from a look-up, and an entry is 8 bytes that are replaced as a whole.
    let Some(&port) = (unsafe { (*listener).ports.get(slot) }) else { return Err(Reason::NoResolver) };
    let proxy = End::new(if remote.address.is_v4() { LOOPBACK_V4 } else { LOOPBACK_V6 }, port);
    if !is_proxy(call, protocol, &End::new(proxy.address, 0), &proxy) {
        return Err(Reason::NoResolver);
    }
    questions.key.namespace = namespace;
    if let Some(server) = questions.servers.get_mut(slot) {
        *server = Server { address: remote.address, proxy_port: port, reserved: 0 };
    }
    Ok(port)
}

/// The slot of a server among those that the socket asked. A connection has one.
#[inline(always)]
fn slot(questions: &mut Questions, protocol: Protocol, server: Address) -> usize {
    if protocol == Protocol::Tcp {
        return 0;
    }
    for (slot, known) in questions.servers.iter().enumerate() {
        if known.proxy_port != 0 && known.address == server {
            return slot;
        }
    }
    let next = questions.count as usize % SERVER_SLOTS;
    questions.count = questions.count.wrapping_add(1);
    next
}

/// The server that the socket asked where the far end seems to be the proxy.
#[inline(always)]
pub(crate) fn asked(call: &Call, seen: End) -> Option<Address> {
    if !seen.address.is_loopback() {
        return None;
    }
    let questions = maps::questions(&call.socket()?)?;
    questions.server_at(seen.port).map(|server| server.address)
}

/// Whether the far end is the proxy, and the socket was led there.
#[inline(always)]
pub(crate) fn are_led(ctx: &impl PeerLookup, socket: &Socket, protocol: Protocol, local: &End, remote: &End) -> bool {
    remote.address.is_loopback()
        && maps::questions(socket).is_some_and(|questions| questions.server_at(remote.port).is_some())
        && is_proxy(ctx, protocol, local, remote)
}

/// Whether a socket of the proxy would receive what is sent there: its port may be another's when it is dead.
#[inline(always)]
fn is_proxy(ctx: &impl PeerLookup, protocol: Protocol, local: &End, remote: &End) -> bool {
    ctx.peer_is_of(protocol, local, remote, PROXY_WORKLOAD)
}

/// Tells the proxy whose question it is, before the question arrives there.
#[inline(always)]
pub(crate) fn introduce(ctx: &impl Context, socket: &Socket, state: &SocketState, flow: &Flow) -> Result<(), Reason> {
    let Some(questions) = maps::questions(socket) else { return Err(Reason::NoMemory) };
    let refusal = introduce_asker(questions, state, flow, ctx.cookie());
    if refusal == 0 { Ok(()) } else { Err(Reason::from_wire(refusal as u8).unwrap_or(Reason::NoMemory)) }
}

/// The reason of a refusal, or 0, which is the reason of none that is given here. Not inlined and checked by the verifier
/// once, see `decide_destination`.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn introduce_asker(
    questions: *mut Questions,
    state: *const SocketState,
    flow: *const Flow,
    socket: u64,
) -> u32 {
    // SAFETY: callers pass the address of a value; the verifier demands this check all the same.
    let Some(questions) = (unsafe { questions.as_mut() }) else { return Reason::NoMemory.wire().into() };
    // SAFETY: as above.
    let Some(state) = (unsafe { state.as_ref() }) else { return Reason::NoMemory.wire().into() };
    // SAFETY: as above.
    let Some(flow) = (unsafe { flow.as_ref() }) else { return Reason::NoMemory.wire().into() };
    // The last packets of a connection leave after its socket was closed, and nobody would forget it a second time.
    if questions.known == Questions::CLOSED {
        return 0;
    }
    let key = AskerKey {
        namespace: questions.key.namespace,
        address: flow.local.address,
        port: flow.local.port,
        protocol: flow.protocol,
        reserved: [0; 5],
    };
    let workload = flow.binding.workload;
    if let Some(known) = ASKERS.get_ptr(key) {
        // SAFETY: the pointer comes from a look-up; an entry is replaced as a whole.
        let known_socket = unsafe { (*known).socket };
        // SAFETY: as above.
        let known_workload = unsafe { (*known).workload };
        if known_socket != socket && known_workload != workload {
            return Reason::SharedPort.wire().into();
        }
    }
    if questions.known == Questions::KNOWN && questions.key != key {
        forget_asker(questions, socket);
    }
    let Questions { servers, .. } = *questions;
    let asker = Asker { socket, workload, pid: state.pid, command: state.command, servers };
    if ASKERS.insert(key, asker, ANY).is_err() {
        return Reason::NoMemory.wire().into();
    }
    questions.key = key;
    questions.known = Questions::KNOWN;
    0
}

/// Forgets a socket that is closed.
#[inline(always)]
pub(crate) fn forget(socket: &Socket) {
    if let Some(questions) = maps::questions(socket) {
        if questions.known == Questions::KNOWN {
            forget_asker(questions, socket.cookie());
        }
        questions.known = Questions::CLOSED;
    }
}

#[inline(always)]
fn forget_asker(questions: &mut Questions, socket: u64) {
    questions.known = 0;
    if let Some(known) = ASKERS.get_ptr(questions.key)
        // SAFETY: the pointer comes from a look-up; an entry is replaced as a whole.
        && unsafe { (*known).socket } == socket
    {
        let _gone_already = ASKERS.remove(questions.key);
    }
}
