//! Entry points of the programs. Each is three lines; the work is in the module of its hook.
//!
//! `egress` has the last word on every packet. The others run before it, so that an application learns of a refusal from
//! its own call, in microseconds, and not from a timeout.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![expect(
    unsafe_code,
    reason = "map memory, kernel contexts and helpers have no safe interface; `maps` and `context` give one"
)]
#![expect(
    clippy::cast_possible_truncation,
    reason = "contexts and calls widen bytes and ports to words; a cast takes back what was put in"
)]
#![cfg_attr(target_arch = "bpf", allow(internal_features, reason = "atomic adds have no other name on this target"))]
#![cfg_attr(target_arch = "bpf", feature(core_intrinsics))]
#![cfg_attr(
    not(target_arch = "bpf"),
    expect(dead_code, reason = "compiled for the host only so that ordinary tools can check it")
)]

mod bind;
mod call;
mod connect;
mod context;
mod egress;
mod ingress;
mod judge;
mod maps;
mod questions;
mod report;
mod socket;

use aya_ebpf::{
    macros::{cgroup_skb, cgroup_sock, cgroup_sock_addr},
    programs::{SkBuffContext, SockAddrContext, SockContext},
};
use egress_common::event::Hook;

use crate::{
    call::Call,
    context::{End, Skb, Socket},
};

#[cgroup_sock_addr(connect4)]
fn connect4(ctx: SockAddrContext) -> i32 {
    let call = Call::new(ctx.sock_addr);
    let outcome = connect::decide(&call, End::UNKNOWN, call.destination_v4(), Hook::Connect);
    call.lead_v4(outcome)
}

#[cgroup_sock_addr(connect6)]
fn connect6(ctx: SockAddrContext) -> i32 {
    let call = Call::new(ctx.sock_addr);
    let outcome = connect::decide(&call, End::UNKNOWN, call.destination_v6(), Hook::Connect);
    call.lead_v6(outcome)
}

#[cgroup_sock_addr(sendmsg4)]
fn sendmsg4(ctx: SockAddrContext) -> i32 {
    let call = Call::new(ctx.sock_addr);
    let outcome = connect::decide(&call, call.source_v4(), call.destination_v4(), Hook::SendMsg);
    call.lead_v4(outcome)
}

#[cgroup_sock_addr(sendmsg6)]
fn sendmsg6(ctx: SockAddrContext) -> i32 {
    let call = Call::new(ctx.sock_addr);
    let outcome = connect::decide(&call, call.source_v6(), call.destination_v6(), Hook::SendMsg);
    call.lead_v6(outcome)
}

#[cgroup_sock_addr(recvmsg4)]
fn recvmsg4(ctx: SockAddrContext) -> i32 {
    let call = Call::new(ctx.sock_addr);
    call.show_v4(questions::asked(&call, call.bound_v4()))
}

#[cgroup_sock_addr(recvmsg6)]
fn recvmsg6(ctx: SockAddrContext) -> i32 {
    let call = Call::new(ctx.sock_addr);
    call.show_v6(questions::asked(&call, call.bound_v6()))
}

#[cgroup_sock_addr(getpeername4)]
fn getpeername4(ctx: SockAddrContext) -> i32 {
    let call = Call::new(ctx.sock_addr);
    call.show_v4(questions::asked(&call, call.bound_v4()))
}

#[cgroup_sock_addr(getpeername6)]
fn getpeername6(ctx: SockAddrContext) -> i32 {
    let call = Call::new(ctx.sock_addr);
    call.show_v6(questions::asked(&call, call.bound_v6()))
}

#[cgroup_sock_addr(bind4)]
fn bind4(ctx: SockAddrContext) -> i32 {
    let call = Call::new(ctx.sock_addr);
    bind::decide(&call, call.bound_v4())
}

#[cgroup_sock_addr(bind6)]
fn bind6(ctx: SockAddrContext) -> i32 {
    let call = Call::new(ctx.sock_addr);
    bind::decide(&call, call.bound_v6())
}

#[cgroup_skb(egress)]
fn egress(ctx: SkBuffContext) -> i32 {
    egress::decide(&Skb::new(ctx.skb.skb))
}

#[cgroup_skb(ingress)]
fn ingress(ctx: SkBuffContext) -> i32 {
    ingress::decide(&Skb::new(ctx.skb.skb))
}

#[cgroup_sock(sock_create)]
fn sock_create(ctx: SockContext) -> i32 {
    socket::create(&Socket::new(&ctx))
}

#[cgroup_sock(sock_release)]
fn sock_release(ctx: SockContext) -> i32 {
    socket::release(&Socket::new(&ctx))
}

/// Lets helpers be called that only a GPL-compatible program may call.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(not(target_arch = "bpf"))]
fn main() {}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
