//! Network namespaces that exist as long as a file descriptor is open.

use std::{
    fs::{self, File},
    io,
    os::fd::AsRawFd as _,
    path::PathBuf,
    thread,
};

use anyhow::{Context as _, Result, anyhow};
use nix::sched::{CloneFlags, setns, unshare};

use crate::command;

/// A network namespace of its own. The kernel removes it with all its devices when the last descriptor is closed.
#[derive(Debug)]
pub struct Namespace {
    file: File,
}

impl Namespace {
    /// A new namespace with its loopback up and no other device.
    pub fn new() -> Result<Self> {
        let file = in_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            File::open("/proc/thread-self/ns/net")
        })
        .context("make a network namespace (root is needed)")?;
        let namespace = Self { file };
        // Addresses are usable at once, and an ordinary user may ping.
        namespace.sysctl("net/ipv6/conf/default/accept_dad", "0")?;
        namespace.sysctl("net/ipv4/ping_group_range", "0 2147483647")?;
        namespace.ip(&["link set lo up"])?;
        Ok(namespace)
    }

    /// A path to the namespace for `nsenter` and `ip`, valid while this process holds it.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd()))
    }

    /// Runs a closure inside the namespace. Sockets made there stay there wherever they are used later.
    pub fn enter<T: Send>(&self, act: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        in_thread(|| {
            setns(&self.file, CloneFlags::CLONE_NEWNET)?;
            act()
        })
    }

    /// Runs lines of `ip -batch` inside the namespace.
    pub fn ip(&self, lines: &[impl AsRef<str>]) -> Result<()> {
        let lines: Vec<&str> = lines.iter().map(AsRef::as_ref).collect();
        let finished = command::Spec::new("nsenter")
            .arg(format!("--net={}", self.path().display()))
            .args(["ip", "-batch", "-"])
            .stdin(lines.join("\n"))
            .finish()?;
        finished.expect_success().with_context(|| format!("run `ip` lines {lines:?}"))
    }

    /// Sets a value below `/proc/sys`.
    pub fn sysctl(&self, name: &str, value: &str) -> Result<()> {
        self.enter(|| fs::write(format!("/proc/sys/{name}"), value))
            .with_context(|| format!("set `{name}` to `{value}`"))
    }
}

/// Runs a closure in a thread of its own, whose namespaces nobody else uses.
pub(crate) fn in_thread<T: Send>(act: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| scope.spawn(act).join())
        .map_err(|panic| io::Error::other(anyhow!("a thread in a namespace panicked: {panic:?}")))?
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    #[test]
    fn two_namespaces_do_not_see_each_other() {
        let (one, other) = (Namespace::new().unwrap(), Namespace::new().unwrap());
        let listener = one.enter(|| TcpListener::bind("127.0.0.1:80")).unwrap();
        let address = listener.local_addr().unwrap();
        one.enter(|| std::net::TcpStream::connect(address)).unwrap();
        other.enter(|| std::net::TcpStream::connect(address)).unwrap_err();
    }

    #[test]
    fn a_new_namespace_has_no_way_out() {
        let namespace = Namespace::new().unwrap();
        let error = namespace.enter(|| UdpSocket::bind("0.0.0.0:0")?.connect("198.20.0.10:9")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NetworkUnreachable, "{error}");
    }
}
