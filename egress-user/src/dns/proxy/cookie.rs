//! The number that the kernel gives a network namespace, which is never given twice.

use std::{io, mem::size_of, os::fd::AsRawFd};

/// The cookie of the namespace in which a socket was made (Linux 5.14).
#[expect(unsafe_code, reason = "no library reads SO_NETNS_COOKIE")]
pub(super) fn of(socket: &impl AsRawFd) -> io::Result<u64> {
    let mut cookie = 0_u64;
    let mut length = libc::socklen_t::try_from(size_of::<u64>()).map_err(io::Error::other)?;
    // SAFETY: the kernel writes at most `length` bytes, which is the size of `cookie`, and both outlive the call.
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
