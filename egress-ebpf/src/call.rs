//! A call that names an address: what it says, and what the kernel is to believe that it says.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::bpf_sock_addr,
    helpers::generated::{bpf_get_netns_cookie, bpf_set_retval},
};
use egress_common::{Address, Protocol, question::DNS_PORT};

use crate::{
    connect::PROCEED,
    context::{self, Context, End, LOOPBACK_V4, LOOPBACK_V6, PeerLookup, Socket},
    maps::CAN_SET_ERRNO,
};

/// A call that names an address: `connect`, `sendto` or `bind`.
pub(crate) struct Call {
    call: *mut bpf_sock_addr,
}

impl Call {
    #[inline(always)]
    pub(crate) fn new(call: *mut bpf_sock_addr) -> Self {
        Self { call }
    }

    /// The kernel's context.
    #[inline(always)]
    pub(crate) fn as_raw(&self) -> *mut bpf_sock_addr {
        self.call
    }

    /// The socket that is called on.
    #[inline(always)]
    pub(crate) fn socket(&self) -> Option<Socket> {
        // SAFETY: the context of the running program is readable as a whole.
        let socket = unsafe { (*self.call).__bindgen_anon_1 };
        // SAFETY: the union is there for its size; it has this one field.
        Socket::from_ptr(unsafe { socket.sk })
    }

    /// What the socket would send; `None` for what no policy allows.
    #[inline(always)]
    pub(crate) fn protocol(&self) -> Option<Protocol> {
        // SAFETY: the context of the running program is readable as a whole.
        match unsafe { (*self.call).protocol } {
            6 => Some(Protocol::Tcp),
            17 => Some(Protocol::Udp),
            1 | 58 => Some(Protocol::Icmp),
            _ => None,
        }
    }

    /// The protocol number as the socket has it, for the record.
    #[inline(always)]
    pub(crate) fn protocol_number(&self) -> u8 {
        // SAFETY: the context of the running program is readable as a whole.
        let protocol = unsafe { (*self.call).protocol };
        protocol as u8
    }

    /// Where the call would send; the unspecified address becomes loopback, as the kernel takes it.
    #[inline(always)]
    pub(crate) fn destination_v4(&self) -> End {
        let mut end = self.bound_v4();
        if end.address.is_unspecified() {
            end.address = LOOPBACK_V4;
        }
        end
    }

    /// Where the call would send; the unspecified address becomes loopback, as the kernel takes it. IPv4-mapped addresses
    /// arrive here and not in the hook of IPv4.
    #[inline(always)]
    pub(crate) fn destination_v6(&self) -> End {
        let mut end = self.bound_v6();
        if end.address.is_unspecified() {
            end.address = if end.address.is_v4() { LOOPBACK_V4 } else { LOOPBACK_V6 };
        }
        end
    }

    /// The address of the call as it is.
    #[inline(always)]
    pub(crate) fn bound_v4(&self) -> End {
        // SAFETY: this field is readable in the hooks of IPv4.
        let word = unsafe { (*self.call).user_ip4 };
        End::new(Address::from_v4(word.to_ne_bytes()), self.port())
    }

    /// The address of the call as it is.
    #[inline(always)]
    pub(crate) fn bound_v6(&self) -> End {
        // SAFETY: the context of the running program has this field; no more than its place is taken here.
        let words: *const u32 = unsafe { &raw const (*self.call).user_ip6 }.cast();
        // SAFETY: the field is readable in the hooks of IPv6; the verifier wants each word read by itself.
        let first = unsafe { words.read_volatile() };
        // SAFETY: as above.
        let second = unsafe { words.wrapping_add(1).read_volatile() };
        // SAFETY: as above.
        let third = unsafe { words.wrapping_add(2).read_volatile() };
        // SAFETY: as above.
        let last = unsafe { words.wrapping_add(3).read_volatile() };
        End::new(Address::from_words([first, second, third, last]), self.port())
    }

    /// Where a datagram comes from, if it goes to loopback: a peer that is connected to this address gets only what
    /// comes from it.
    #[inline(always)]
    pub(crate) fn source_v4(&self) -> End {
        // SAFETY: this field is readable in the hook of `sendmsg` of IPv4.
        let word = unsafe { (*self.call).msg_src_ip4 };
        let address = if word == 0 { LOOPBACK_V4 } else { Address::from_v4(word.to_ne_bytes()) };
        End::new(address, self.socket().map_or(0, |socket| socket.port()))
    }

    /// Where a datagram comes from, if it goes to loopback.
    #[inline(always)]
    pub(crate) fn source_v6(&self) -> End {
        End::new(LOOPBACK_V6, self.socket().map_or(0, |socket| socket.port()))
    }

    /// The kernel's number of the network namespace.
    #[inline(always)]
    pub(crate) fn namespace(&self) -> u64 {
        // SAFETY: the helper takes the context of this program type.
        unsafe { bpf_get_netns_cookie(self.call.cast()) }
    }

    /// Leads the call to the proxy if that was decided, and returns what the kernel is told.
    #[inline(always)]
    pub(crate) fn lead_v4(&self, outcome: Outcome) -> i32 {
        if outcome.port() != 0 {
            self.set_v4(LOOPBACK_V4, outcome.port());
        }
        outcome.answer()
    }

    /// Leads the call to the proxy if that was decided, and returns what the kernel is told. What an IPv4-mapped address
    /// was named for stays IPv4.
    #[inline(always)]
    pub(crate) fn lead_v6(&self, outcome: Outcome) -> i32 {
        if outcome.port() != 0 {
            let proxy = if self.bound_v6().address.is_v4() { LOOPBACK_V4 } else { LOOPBACK_V6 };
            self.set_v6(proxy, outcome.port());
        }
        outcome.answer()
    }

    /// Shows the caller this server, if there is one, as the far end. What the kernel is told is always the same: these
    /// hooks may not refuse.
    #[inline(always)]
    pub(crate) fn show_v4(&self, server: Option<Address>) -> i32 {
        if let Some(server) = server {
            self.set_v4(server, DNS_PORT);
        }
        PROCEED
    }

    /// Shows the caller this server, if there is one, as the far end.
    #[inline(always)]
    pub(crate) fn show_v6(&self, server: Option<Address>) -> i32 {
        if let Some(server) = server {
            self.set_v6(server, DNS_PORT);
        }
        PROCEED
    }

    #[inline(always)]
    fn set_v4(&self, address: Address, port: u16) {
        let [.., word] = address.words();
        // SAFETY: the context of the running program has this field; no more than its place is taken here.
        let place = unsafe { &raw mut (*self.call).user_ip4 };
        // SAFETY: this field is writable in the hooks of IPv4.
        unsafe { place.write_volatile(word) };
        self.set_port(port);
    }

    #[inline(always)]
    fn set_v6(&self, address: Address, port: u16) {
        // SAFETY: the context of the running program has this field; no more than its place is taken here.
        let words: *mut u32 = unsafe { &raw mut (*self.call).user_ip6 }.cast();
        let [first, second, third, last] = address.words();
        // SAFETY: the field is writable in the hooks of IPv6; the verifier wants each word written by itself.
        unsafe { words.write_volatile(first) };
        // SAFETY: as above.
        unsafe { words.wrapping_add(1).write_volatile(second) };
        // SAFETY: as above.
        unsafe { words.wrapping_add(2).write_volatile(third) };
        // SAFETY: as above.
        unsafe { words.wrapping_add(3).write_volatile(last) };
        self.set_port(port);
    }

    #[inline(always)]
    fn set_port(&self, port: u16) {
        // SAFETY: the context of the running program has this field; no more than its place is taken here.
        let place = unsafe { &raw mut (*self.call).user_port };
        // SAFETY: this field is writable in every hook of a call that may change it; the port is its low half.
        unsafe { place.write_volatile(u32::from(port.to_be())) };
    }

    #[inline(always)]
    fn port(&self) -> u16 {
        // SAFETY: the context of the running program is readable as a whole; the port is its low half.
        u16::from_be(unsafe { (*self.call).user_port } as u16)
    }
}

/// Makes the refused call that is being decided fail with this errno instead of `EPERM`, where the kernel can.
#[inline(always)]
pub(crate) fn set_errno(errno: u32) {
    if errno != 0 && CAN_SET_ERRNO.load() == 1 {
        // SAFETY: the loader found that the kernel has this helper for the hooks of `connect` and `sendmsg`. Its result
        // says only that the value was out of range, and then the refusal stays `EPERM`.
        let _refused = unsafe { bpf_set_retval(-errno.cast_signed()) };
    }
}

impl Context for Call {
    #[inline(always)]
    fn as_ptr(&self) -> *mut c_void {
        self.call.cast()
    }
}

impl PeerLookup for Call {
    #[inline(always)]
    fn peer_is_of(&self, protocol: Protocol, local: &End, peer: &End, workload: u32) -> bool {
        context::peer_of_call_is_of(self.call, protocol.wire().into(), local, peer, workload) == 1
    }
}

/// What becomes of a call: in the lowest bit whether it goes on, above it the proxy's port if it goes there.
#[derive(Clone, Copy)]
pub(crate) struct Outcome(u32);

impl Outcome {
    /// The call fails.
    pub(crate) const REFUSE: u32 = 0;
    /// The call goes on.
    pub(crate) const PROCEED: u32 = 1;

    /// The call goes on, to this port of the proxy.
    #[inline(always)]
    pub(crate) const fn lead_to(port: u16) -> u32 {
        (port as u32) << 1 | Self::PROCEED
    }

    /// The outcome, hidden from the compiler, see `context::answer`.
    #[inline(always)]
    pub(crate) fn hidden(outcome: u32) -> Self {
        // SAFETY: it reads a local.
        Self(unsafe { core::ptr::read_volatile(&raw const outcome) })
    }

    #[inline(always)]
    fn port(self) -> u16 {
        (self.0 >> 1) as u16
    }

    #[inline(always)]
    fn answer(self) -> i32 {
        (self.0 & 1).cast_signed()
    }
}
