//! Every limit that both halves know, each with its reason and with what happens when it is reached.

/// Distinct port sets of one map set. Each costs 16 KiB of kernel memory, so all of them cost 256 MiB. A policy that
/// needs more is refused when it is compiled.
pub const PORT_SETS_MAX: u32 = 16_384;

/// Policy slots of one map set. A switch of policies needs two; the probe needs one. Filling a slot that does not exist
/// fails.
pub const POLICY_SLOTS: u32 = 4;

/// Bytes of the ring buffer for events: 1 MiB holds 8,000 events, more than arrive between two reads 20 ms apart at
/// 300,000 events/s. An event that does not fit is counted in `LOST_EVENTS` and its bytes stay on the socket.
pub const RING_BYTES: u32 = 1 << 20;

/// Bytes, both ways, after which a live flow is reported again.
pub const REPORT_BYTES: u64 = 1 << 20;

/// Kernel ticks after which a live flow that sends is reported again: one second at 250 Hz, a quarter at 1000 Hz. Ticks,
/// because reading them costs nothing on the packet path while a clock costs as much as the whole path.
pub const REPORT_JIFFIES: u64 = 250;

/// Name servers of one socket whose answers can be told apart. `resolv.conf` has three at most (`MAXNS` of glibc and
/// musl). A socket that asks a fifth gets late answers of the first as if they came from the fifth.
pub const SERVER_SLOTS: usize = 4;

/// Network namespaces with governed processes in one map set, 80 bytes of kernel memory each. In one beyond it questions
/// about names are refused.
pub const NAMESPACES_MAX: u32 = 4096;

/// Sockets that ask about names at the same time in one map set, about 200 bytes of kernel memory each while they are
/// there. The questions of one beyond it are refused.
pub const ASKERS_MAX: u32 = 65_536;
