//! What a program is given: a packet, a call with an address, or a socket. The only place that reads kernel contexts.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{__sk_buff, bpf_sock, bpf_sock_addr},
    helpers::generated::{
        bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_socket_cookie, bpf_sk_lookup_tcp, bpf_sk_lookup_udp,
        bpf_sk_release,
    },
    programs::SockContext,
};
use egress_common::{
    Address, Protocol, Reason,
    packet::{self, Family, Headers, Packet},
};

use crate::maps;

/// `TCP_LISTEN` of `include/net/tcp_states.h`, which is the same in every kernel.
const TCP_LISTEN: u32 = 10;

/// `BPF_F_CURRENT_NETNS`: look the socket up in the namespace of the context.
const CURRENT_NETNS: u64 = u64::MAX;

/// What a program is given.
pub(crate) trait Context {
    /// The context as helpers take it.
    fn as_ptr(&self) -> *mut c_void;

    /// The kernel's number of the context's socket.
    #[inline(always)]
    fn cookie(&self) -> u64 {
        // SAFETY: every implementor wraps the context of a program type that may call this helper.
        unsafe { bpf_get_socket_cookie(self.as_ptr()) }
    }
}

/// A context from which the socket at the far end can be looked up.
pub(crate) trait PeerLookup: Context {
    /// Whether the socket that would receive a packet from `local` to `peer` belongs to this workload.
    fn peer_is_of(&self, protocol: Protocol, local: &End, peer: &End, workload: u32) -> bool;
}

/// One end of a flow.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct End {
    /// The address.
    pub(crate) address: Address,
    /// The port, host order.
    pub(crate) port: u16,
    reserved: u16,
}

impl End {
    /// An end that is not known.
    pub(crate) const UNKNOWN: Self = Self::new(Address::UNSPECIFIED, 0);

    #[inline(always)]
    pub(crate) const fn new(address: Address, port: u16) -> Self {
        Self { address, port, reserved: 0 }
    }
}

/// A packet that starts at its IP header.
pub(crate) struct Skb {
    context: *mut __sk_buff,
    data: usize,
    end: usize,
}

impl Skb {
    #[inline(always)]
    pub(crate) fn new(context: *mut __sk_buff) -> Self {
        // SAFETY: the context of the running program is readable as a whole.
        let data = unsafe { (*context).data } as usize;
        // SAFETY: as above.
        let end = unsafe { (*context).data_end } as usize;
        Self { context, data, end }
    }

    /// The kernel's context.
    #[inline(always)]
    pub(crate) fn as_raw(&self) -> *mut __sk_buff {
        self.context
    }

    /// Bytes from the IP header on.
    #[inline(always)]
    pub(crate) fn length(&self) -> u64 {
        // SAFETY: the context of the running program is readable as a whole.
        u64::from(unsafe { (*self.context).len })
    }

    /// The packet's headers, or why they are not those of one that a policy can allow.
    #[inline(always)]
    pub(crate) fn packet(&self) -> Result<Packet, Reason> {
        self.family().ok_or(Reason::Protocol).and_then(|family| packet::parse(family, self))
    }

    /// Whether the packet would leave the machine although it is for loopback. A socket that is bound to a device, or says
    /// so of one datagram (`IP_PKTINFO`, `IP_UNICAST_IF`), is routed past the loopback addresses.
    #[inline(always)]
    pub(crate) fn strays(&self, destination: &Address) -> bool {
        // SAFETY: the context of the running program is readable as a whole.
        let device = unsafe { (*self.context).ifindex };
        device != LOOPBACK_DEVICE && destination.is_loopback()
    }

    /// Which IP the frame carries, as its EtherType says.
    #[inline(always)]
    fn family(&self) -> Option<Family> {
        // SAFETY: the context of the running program is readable as a whole.
        match unsafe { (*self.context).protocol } {
            V4 => Some(Family::V4),
            V6 => Some(Family::V6),
            _ => None,
        }
    }

    /// The socket that sends or receives the packet.
    #[inline(always)]
    pub(crate) fn socket(&self) -> Option<Socket> {
        // SAFETY: the context of the running program is readable as a whole.
        let socket = unsafe { (*self.context).__bindgen_anon_2 };
        // SAFETY: the union is there for its size; it has this one field.
        Socket::from_ptr(unsafe { socket.sk })
    }
}

/// `EtherType`s as the context holds them: 16 bits in network order.
const V4: u32 = u16::to_be(0x0800) as u32;
const V6: u32 = u16::to_be(0x86dd) as u32;

impl Context for Skb {
    #[inline(always)]
    fn as_ptr(&self) -> *mut c_void {
        self.context.cast()
    }
}

impl PeerLookup for Skb {
    #[inline(always)]
    fn peer_is_of(&self, protocol: Protocol, local: &End, peer: &End, workload: u32) -> bool {
        peer_of_packet_is_of(self.context, protocol.wire().into(), local, peer, workload) == 1
    }
}

impl Headers for Skb {
    #[inline(always)]
    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        let start = self.data + offset;
        if start + 4 * N > self.end {
            return None;
        }
        // SAFETY: `start + 4 * N <= end` was checked above, and words have no invalid bits. The kernel aligns IP headers
        // to 4 bytes (`NET_IP_ALIGN`), and where it does not, the load is a single instruction that may be unaligned.
        Some(unsafe { *(start as *const [u32; N]) })
    }
}

/// A socket.
pub(crate) struct Socket {
    socket: *mut bpf_sock,
}

impl Socket {
    #[inline(always)]
    pub(crate) fn new(ctx: &SockContext) -> Self {
        Self { socket: ctx.sock }
    }

    #[inline(always)]
    pub(crate) fn from_ptr(socket: *mut bpf_sock) -> Option<Self> {
        if socket.is_null() { None } else { Some(Self { socket }) }
    }

    /// The socket as helpers take it.
    #[inline(always)]
    pub(crate) fn as_ptr(&self) -> *mut c_void {
        self.socket.cast()
    }

    /// Whether it is a TCP socket that waits for connections.
    #[inline(always)]
    pub(crate) fn listens(&self) -> bool {
        // SAFETY: the socket is not null, and `state` is readable from every packet hook.
        unsafe { (*self.socket).state == TCP_LISTEN }
    }

    /// `SOCK_STREAM`, `SOCK_DGRAM`, `SOCK_RAW`; only in `sock_create`.
    #[inline(always)]
    pub(crate) fn kind(&self) -> u32 {
        // SAFETY: the context of `sock_create` is a full socket.
        unsafe { (*self.socket).type_ }
    }

    /// Whether what it sends can only leave through one device, which is not loopback; only in the hooks of calls.
    #[inline(always)]
    pub(crate) fn is_bound_to_device(&self) -> bool {
        // SAFETY: the socket is not null, and `bound_dev_if` is readable from every hook of a call.
        let device = unsafe { (*self.socket).bound_dev_if };
        device > LOOPBACK_DEVICE
    }

    /// The port it is bound to; only in the hooks of calls.
    #[inline(always)]
    pub(crate) fn port(&self) -> u16 {
        // SAFETY: the socket is not null, and `src_port` is readable from every hook of a call.
        unsafe { (*self.socket).src_port as u16 }
    }

    /// The protocol number; only in `sock_create`.
    #[inline(always)]
    pub(crate) fn protocol(&self) -> u32 {
        // SAFETY: the context of `sock_create` is a full socket.
        unsafe { (*self.socket).protocol }
    }
}

impl Context for Socket {
    #[inline(always)]
    fn as_ptr(&self) -> *mut c_void {
        self.socket.cast()
    }
}

pub(crate) const LOOPBACK_V4: Address = Address::from_v4([127, 0, 0, 1]);
pub(crate) const LOOPBACK_V6: Address = Address::from_words([0, 0, 0, u32::from_be(1)]);

/// `LOOPBACK_IFINDEX` of `include/net/flow.h`: loopback has it in every network namespace; 0 is no device.
const LOOPBACK_DEVICE: u32 = 1;

/// Whether the socket that would receive a packet from `local` to `peer` belongs to this workload, see
/// [`PeerLookup`]. Checked by the verifier once, see `decide_destination`; once for each type of context, because
/// it wants to know the type.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn peer_of_packet_is_of(
    ctx: *mut __sk_buff,
    protocol: u32,
    local: *const End,
    peer: *const End,
    workload: u32,
) -> u32 {
    u32::from(peer_workload(ctx.cast(), protocol, local, peer) == Some(workload))
}

/// The same for a call.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn peer_of_call_is_of(
    ctx: *mut bpf_sock_addr,
    protocol: u32,
    local: *const End,
    peer: *const End,
    workload: u32,
) -> u32 {
    u32::from(peer_workload(ctx.cast(), protocol, local, peer) == Some(workload))
}

/// The workload of the socket that would receive a packet from `local` to `peer`.
#[inline(always)]
fn peer_workload(ctx: *mut c_void, protocol: u32, local: *const End, peer: *const End) -> Option<u32> {
    // SAFETY: callers pass the address of a value; the verifier demands this check all the same.
    let local = unsafe { local.as_ref() }?;
    // SAFETY: as above.
    let peer = unsafe { peer.as_ref() }?;
    let (mut tuple, size) = tuple(local, peer);
    let tuple = (&raw mut tuple).cast();
    let found = match Protocol::from_wire(protocol as u8)? {
        // SAFETY: `tuple` is initialised as a whole, and `size` is the size of its family's part.
        Protocol::Tcp => unsafe { bpf_sk_lookup_tcp(ctx, tuple, size, CURRENT_NETNS, 0) },
        // SAFETY: as above.
        Protocol::Udp => unsafe { bpf_sk_lookup_udp(ctx, tuple, size, CURRENT_NETNS, 0) },
        Protocol::Icmp => return None,
    };
    let socket = Socket::from_ptr(found)?;
    let workload = maps::socket_state(&socket).map(|state| state.workload);
    // SAFETY: the look-up returned this socket with a reference, which is given back exactly once.
    let _always_zero = unsafe { bpf_sk_release(socket.as_ptr()) };
    workload
}

/// `struct bpf_sock_tuple` of one family or the other, as words: source, destination, both ports. Built as plain words
/// so that no branch leaves a part of it unwritten, which the verifier would refuse.
#[inline(always)]
fn tuple(local: &End, peer: &End) -> ([u32; 9], u32) {
    let ([s0, s1], [d0, d1]) = (local.port.to_be_bytes(), peer.port.to_be_bytes());
    let ports = u32::from_ne_bytes([s0, s1, d0, d1]);
    let [s0, s1, s2, s3] = local.address.words();
    let [d0, d1, d2, d3] = peer.address.words();
    if peer.address.is_v4() {
        ([s3, d3, ports, 0, 0, 0, 0, 0, 0], TUPLE_V4)
    } else {
        ([s0, s1, s2, s3, d0, d1, d2, d3, ports], TUPLE_V6)
    }
}

/// Bytes of the tuple of each family.
const TUPLE_V4: u32 = 12;
const TUPLE_V6: u32 = 36;

/// One of two answers of a function that the verifier checked by itself.
///
/// To the verifier such a function may return anything, to the compiler only what it can see it return: the answer is
/// hidden from the compiler here, so that it does not remove the proof that the verifier demands.
#[inline(always)]
pub(crate) fn answer(answer: i32) -> i32 {
    // SAFETY: it reads a local.
    unsafe { core::ptr::read_volatile(&raw const answer) & 1 }
}

/// Number and command name of the calling process.
#[inline(always)]
pub(crate) fn current_process() -> (u32, [u8; 16]) {
    // SAFETY: this helper has no arguments and cannot fail.
    let pid = (unsafe { bpf_get_current_pid_tgid() } >> 32) as u32;
    let mut command = [0; 16];
    // SAFETY: the buffer is 16 bytes; the helper fills it or leaves it zero.
    let _always_zero = unsafe { bpf_get_current_comm((&raw mut command).cast(), 16) };
    (pid, command)
}
