//! What the kernel half tells the user half.

use bytemuck::{Pod, Zeroable};

use crate::Address;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// A flow was allowed and begins.
    Start = 1,
    /// A flow that goes on: its counters so far.
    Report = 2,
    /// A flow ended: its last counters.
    End = 3,
    /// Something was refused, or would have been in audit mode.
    Refusal = 4,
}

impl Kind {
    /// The kind with this number, if there is one.
    pub const fn from_wire(wire: u8) -> Option<Self> {
        match wire {
            1 => Some(Self::Start),
            2 => Some(Self::Report),
            3 => Some(Self::End),
            4 => Some(Self::Refusal),
            _ => None,
        }
    }

    /// One word for records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Start => "flow_start",
            Self::Report => "flow_report",
            Self::End => "flow_end",
            Self::Refusal => "refusal",
        }
    }
}

/// Which hook saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Hook {
    /// `connect`.
    Connect = 1,
    /// `sendto` or `sendmsg` with an address.
    SendMsg = 2,
    /// A packet on its way out.
    Egress = 3,
    /// A packet on its way in.
    Ingress = 4,
    /// `socket`.
    Socket = 5,
    /// `bind`.
    Bind = 6,
    /// The end of a socket.
    Release = 7,
}

impl Hook {
    /// The hook with this number, if there is one.
    pub const fn from_wire(wire: u8) -> Option<Self> {
        match wire {
            1 => Some(Self::Connect),
            2 => Some(Self::SendMsg),
            3 => Some(Self::Egress),
            4 => Some(Self::Ingress),
            5 => Some(Self::Socket),
            6 => Some(Self::Bind),
            7 => Some(Self::Release),
            _ => None,
        }
    }

    /// One word for records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::SendMsg => "sendmsg",
            Self::Egress => "egress",
            Self::Ingress => "ingress",
            Self::Socket => "socket",
            Self::Bind => "bind",
            Self::Release => "release",
        }
    }
}

/// One record of the ring buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Event {
    /// Nanoseconds of `CLOCK_BOOTTIME`.
    pub time_nanoseconds: u64,
    /// The kernel's number of the socket, never used twice; 0 where the hook knows no socket.
    pub socket: u64,
    /// Packets out.
    pub tx_packets: u64,
    /// Bytes out, IP headers included.
    pub tx_bytes: u64,
    /// Packets in.
    pub rx_packets: u64,
    /// Bytes in, IP headers included.
    pub rx_bytes: u64,
    /// This end of the flow; unspecified where the hook does not know it yet.
    pub local: Address,
    /// The far end.
    pub remote: Address,
    /// This end's port, host order.
    pub local_port: u16,
    /// The far end's port, host order.
    pub remote_port: u16,
    /// The policy's slot.
    pub policy: u32,
    /// The workload.
    pub workload: u32,
    /// Process that called, or that made the socket where no process called.
    pub pid: u32,
    /// A [`Kind`].
    pub kind: u8,
    /// A [`Hook`].
    pub hook: u8,
    /// A [`crate::Verdict`]; in audit mode a refusal that was let through is `Allow`.
    pub verdict: u8,
    /// A [`crate::Reason`].
    pub reason: u8,
    /// IP protocol number; ICMPv6 has the number of ICMP.
    pub protocol: u8,
    /// 1 when the far end opened the flow.
    pub inbound: u8,
    /// Zero.
    pub reserved: [u8; 2],
    /// Command name of the process, ended by a zero byte.
    pub command: [u8; 16],
}

const _: () = assert!(size_of::<Event>() == 120);
