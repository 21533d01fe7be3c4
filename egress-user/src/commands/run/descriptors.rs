//! Open files that the command would inherit. The hooks see a socket in the cgroup where it was made, so one that was
//! made outside of ours would never be governed.

use std::{
    fs,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, RawFd},
};

use anyhow::{Context as _, bail};
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, FdFlag, fcntl},
    sys::{
        resource::{Resource, getrlimit, rlim_t, setrlimit},
        socket::{AddressFamily, SockaddrLike as _, SockaddrStorage, getsockname},
        stat::{SFlag, fstat, major},
        statfs::{BPF_FS_MAGIC, CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, fstatfs},
    },
};

/// Major numbers of devices that are safe to hand on (`Documentation/admin-guide/devices.txt`): memory devices such as
/// `/dev/null`, terminals and their kin. Others can send, as `/dev/net/tun` does.
const SAFE_MAJORS: [u64; 11] = [1, 4, 5, 136, 137, 138, 139, 140, 141, 142, 143];

/// Files that this process may have open: ten sockets for each network namespace, connections for questions about names,
/// and a few sockets for each question to name servers. The usual limit of 1024 is made for programs without them.
const FILES: rlim_t = 8192;

/// How many files a process may have open.
#[derive(Clone, Copy, Debug)]
pub(super) struct FileLimit {
    soft: rlim_t,
    hard: rlim_t,
}

impl FileLimit {
    /// Raises the limit as far as needed and allowed, and gives the one that was there, which the command gets.
    pub(super) fn raise() -> anyhow::Result<Self> {
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("read the limit of open files")?;
        let wanted = soft.max(FILES.min(hard));
        setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).context("raise the limit of open files")?;
        Ok(Self { soft, hard })
    }

    /// Makes it the limit of this process.
    pub(super) fn restore(self) -> nix::Result<()> {
        setrlimit(Resource::RLIMIT_NOFILE, self.soft, self.hard)
    }
}

/// What an open file is, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// It cannot send.
    Harmless,
    /// A socket that only reaches processes of this machine.
    LocalSocket,
    /// It can send, or nobody knows.
    Other,
}

/// Keeps the command from inheriting what it could send through, and refuses to go on where it must inherit it.
pub(super) fn seal() -> anyhow::Result<()> {
    for entry in fs::read_dir("/proc/self/fd").context("list `/proc/self/fd`")? {
        let name = entry.context("list `/proc/self/fd`")?.file_name();
        let Some(number) = name.to_str().and_then(|name| name.parse::<RawFd>().ok()) else {
            continue;
        };
        let descriptor = borrow(number);
        match (number, kind(descriptor)) {
            (_, None | Some(Kind::Harmless)) | (0..=2, Some(Kind::LocalSocket)) => {}
            (0..=2, Some(Kind::Other)) => bail!(
                "descriptor {number} is a socket or device that the policy cannot govern, because it was made before; \
                 start the command with a pipe, file or terminal there, as in `… | cat`"
            ),
            (_, Some(Kind::LocalSocket | Kind::Other)) => {
                fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))
                    .with_context(|| format!("keep descriptor {number} from the command"))?;
            }
        }
    }
    Ok(())
}

#[expect(unsafe_code, reason = "inherited descriptors are known by their number only")]
fn borrow<'a>(number: RawFd) -> BorrowedFd<'a> {
    // SAFETY: the number is not -1. No thread closes descriptors while they are listed, and one that is closed already,
    // that of the list itself, makes system calls fail with `EBADF` and nothing else.
    unsafe { BorrowedFd::borrow_raw(number) }
}

/// `None` if it is not open.
fn kind(descriptor: BorrowedFd<'_>) -> Option<Kind> {
    let status = match fstat(descriptor) {
        Ok(status) => status,
        Err(Errno::EBADF) => return None,
        Err(_) => return Some(Kind::Other),
    };
    // Anonymous inodes such as those of io_uring have no type at all.
    let kind = SFlag::from_bits_truncate(status.st_mode & SFlag::S_IFMT.bits());
    Some(if kind == SFlag::S_IFIFO {
        Kind::Harmless
    } else if kind == SFlag::S_IFREG {
        regular(descriptor)
    } else if kind == SFlag::S_IFCHR && SAFE_MAJORS.contains(&major(status.st_rdev)) {
        Kind::Harmless
    } else if kind == SFlag::S_IFSOCK && is_local(descriptor) {
        Kind::LocalSocket
    } else {
        Kind::Other
    })
}

/// A file of the cgroup hierarchy moves processes out of ours, whoever holds it: the kernel looks at who opened it.
fn regular(descriptor: impl AsFd) -> Kind {
    match fstatfs(descriptor) {
        Ok(found) => match found.filesystem_type() {
            CGROUP2_SUPER_MAGIC | CGROUP_SUPER_MAGIC | BPF_FS_MAGIC => Kind::Other,
            _ => Kind::Harmless,
        },
        Err(_) => Kind::Other,
    }
}

fn is_local(descriptor: BorrowedFd<'_>) -> bool {
    getsockname::<SockaddrStorage>(descriptor.as_raw_fd()).is_ok_and(|name| name.family() == Some(AddressFamily::Unix))
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        net::{TcpListener, UdpSocket},
        os::unix::net::UnixStream,
    };

    use nix::sys::{epoll::Epoll, epoll::EpollCreateFlags};

    use super::*;

    #[test]
    fn what_can_send_is_told_from_what_cannot() {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        let (local, _peer) = UnixStream::pair().unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let null = File::open("/dev/null").unwrap();
        let file = File::open("/proc/self/exe").unwrap();
        let directory = File::open("/").unwrap();
        let anonymous = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
        for (descriptor, expected, what) in [
            (reader.as_fd(), Kind::Harmless, "pipe"),
            (writer.as_fd(), Kind::Harmless, "pipe"),
            (null.as_fd(), Kind::Harmless, "/dev/null"),
            (file.as_fd(), Kind::Harmless, "file"),
            (local.as_fd(), Kind::LocalSocket, "unix socket"),
            (udp.as_fd(), Kind::Other, "UDP socket"),
            (tcp.as_fd(), Kind::Other, "TCP socket"),
            (directory.as_fd(), Kind::Other, "directory"),
            (anonymous.0.as_fd(), Kind::Other, "epoll"),
        ] {
            assert_eq!(kind(descriptor), Some(expected), "{what}");
        }
        assert_eq!(kind(borrow(1_000_000)), None, "not open");
    }
}
