//! The compiled eBPF object, built by `build.rs` and embedded here.

/// The object as the kernel loader reads it.
pub(super) static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("EGRESS_EBPF_OBJECT"));
