//! The system calls that aya lacks: map changes in batches, storage keyed by a cgroup's id, the number of a network
//! namespace.
//!
//! Layouts and command numbers are those of `include/uapi/linux/bpf.h`, which the kernel keeps for ever.
#![expect(unsafe_code, reason = "bpf(2) has no safe interface")]

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use bytemuck::{AnyBitPattern, NoUninit, Zeroable};

const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_MAP_DELETE_ELEM: libc::c_long = 3;
const BPF_MAP_UPDATE_BATCH: libc::c_long = 26;

/// The part of `union bpf_attr` for one element.
#[repr(C)]
struct ElementAttr {
    map_fd: u32,
    reserved: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// The part of `union bpf_attr` for many elements.
#[repr(C)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    element_flags: u64,
    flags: u64,
}

/// Sets one element.
pub(super) fn update<K: NoUninit, V: NoUninit>(map: BorrowedFd<'_>, key: &K, value: &V) -> io::Result<()> {
    let attr = ElementAttr {
        map_fd: map.as_raw_fd().cast_unsigned(),
        reserved: 0,
        key: (&raw const *key).expose_provenance() as u64,
        value: (&raw const *value).expose_provenance() as u64,
        flags: 0,
    };
    // SAFETY: the attribute has the layout of the command, and key and value outlive the call; that they have the
    // map's sizes is checked when the maps are opened.
    unsafe { bpf(BPF_MAP_UPDATE_ELEM, &attr) }
}

/// Removes one element; one that is not there is no error.
pub(super) fn delete<K: NoUninit>(map: BorrowedFd<'_>, key: &K) -> io::Result<()> {
    let attr = ElementAttr {
        map_fd: map.as_raw_fd().cast_unsigned(),
        reserved: 0,
        key: (&raw const *key).expose_provenance() as u64,
        value: 0,
        flags: 0,
    };
    // SAFETY: the attribute has the layout of the command, and the key outlives the call; that it has the map's size is
    // checked when the maps are opened.
    match unsafe { bpf(BPF_MAP_DELETE_ELEM, &attr) } {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        outcome => outcome,
    }
}

/// Reads one element.
pub(super) fn lookup<K: NoUninit, V: AnyBitPattern + Zeroable>(map: BorrowedFd<'_>, key: &K) -> io::Result<V> {
    let mut value = V::zeroed();
    let attr = ElementAttr {
        map_fd: map.as_raw_fd().cast_unsigned(),
        reserved: 0,
        key: (&raw const *key).expose_provenance() as u64,
        value: (&raw mut value).expose_provenance() as u64,
        flags: 0,
    };
    // SAFETY: the attribute has the layout of the command, key and value outlive the call, and every bit pattern is a
    // value; that they have the map's sizes is checked when the maps are opened.
    unsafe { bpf(BPF_MAP_LOOKUP_ELEM, &attr) }?;
    Ok(value)
}

/// Sets many elements with one call (Linux 5.6 for hashes, 5.16 for tries), or one by one where the kernel's map type
/// has no batches.
pub(super) fn update_batch<K: NoUninit, V: NoUninit>(map: BorrowedFd<'_>, keys: &[K], values: &[V]) -> io::Result<()> {
    let count = u32::try_from(keys.len().min(values.len())).unwrap_or(u32::MAX);
    if count == 0 {
        return Ok(());
    }
    let attr = BatchAttr {
        in_batch: 0,
        out_batch: 0,
        keys: keys.as_ptr().expose_provenance() as u64,
        values: values.as_ptr().expose_provenance() as u64,
        count,
        map_fd: map.as_raw_fd().cast_unsigned(),
        element_flags: 0,
        flags: 0,
    };
    // SAFETY: the attribute has the layout of the command, and both slices hold at least `count` elements of the map's
    // sizes and outlive the call.
    match unsafe { bpf(BPF_MAP_UPDATE_BATCH, &attr) } {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOTSUP | UNKNOWN_COMMAND)) => {
            keys.iter().zip(values).try_for_each(|(key, value)| update(map, key, value))
        }
        outcome => outcome,
    }
}

/// The kernel's number of a socket's network namespace (Linux 5.14).
pub(super) fn network_namespace(socket: BorrowedFd<'_>) -> io::Result<u64> {
    let mut cookie = 0_u64;
    let mut length = libc::socklen_t::try_from(size_of::<u64>()).unwrap_or(0);
    // SAFETY: the option writes at most `length` bytes, which is the size of the value, and both outlive the call.
    let outcome = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(cookie) }
}

/// `ENOTSUPP` of the kernel's own header, which a map type without batches answers.
const UNKNOWN_COMMAND: i32 = 524;

/// # Safety
///
/// The attribute must have the layout of the command, and what it points to must be valid for the call.
unsafe fn bpf<A>(command: libc::c_long, attr: &A) -> io::Result<()> {
    // SAFETY: the caller vouches for the attribute; its size is its own.
    let outcome = unsafe { libc::syscall(libc::SYS_bpf, command, &raw const *attr, size_of::<A>()) };
    if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
