//! A machine as its programs see it: a network namespace, its own name servers and its own BPF file system.

use std::{
    ffi::OsStr,
    fs::{self, File, Permissions},
    io,
    net::IpAddr,
    os::{fd::AsRawFd as _, unix::fs::PermissionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use tempfile::TempDir;

use crate::{
    cgroup::Cgroup,
    command,
    netns::{Namespace, in_thread},
};

/// A network namespace and a mount namespace in which `/etc/resolv.conf` and `/sys/fs/bpf` are the machine's own.
#[derive(Debug)]
pub struct Machine {
    /// Where its sockets live.
    pub network: Namespace,
    /// Where its processes run.
    pub cgroup: Cgroup,
    mounts: File,
    files: TempDir,
}

impl Machine {
    /// A machine that asks no name server yet.
    pub fn new() -> Result<Self> {
        let network = Namespace::new()?;
        let files = TempDir::with_prefix("egress-machine-").context("make a directory for a machine")?;
        let everybody = Permissions::from_mode(0o755);
        fs::set_permissions(files.path(), everybody).context("open the directory of a machine to every user")?;
        for (name, text) in [
            ("resolv.conf", ""),
            ("hosts", "127.0.0.1 localhost\n::1 localhost\n"),
            ("nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n"),
        ] {
            let path = files.path().join(name);
            fs::write(&path, text).with_context(|| format!("write `{}`", path.display()))?;
        }
        let mounts = in_thread(|| mount_own(files.path())).context("make a mount namespace with its own files")?;
        Ok(Self { network, cgroup: Cgroup::new()?, mounts, files })
    }

    /// Makes the machine ask these name servers.
    pub fn ask(&self, servers: &[IpAddr]) -> Result<()> {
        let lines: Vec<String> = servers.iter().map(|server| format!("nameserver {server}\n")).collect();
        let path = self.files.path().join("resolv.conf");
        // In place: the mount holds the file itself, not its name.
        fs::write(&path, lines.concat() + "options timeout:1 attempts:2\n")
            .with_context(|| format!("write `{}`", path.display()))
    }

    /// A directory for files of this machine that every user can read, gone with it.
    pub fn directory(&self) -> &Path {
        self.files.path()
    }

    /// A program that runs on this machine and dies with the thread that starts it.
    pub fn command(&self, program: impl AsRef<OsStr>) -> command::Spec {
        command::Spec::new("nsenter")
            .arg(format!("--net={}", self.network.path().display()))
            .arg(format!("--mount={}", self.mounts_path().display()))
            .args(["--", "setpriv", "--pdeathsig", "KILL", "--"])
            .args(["sh", "-c", "echo 0 > \"$0/cgroup.procs\" && exec \"$@\""])
            .arg(self.cgroup.directory())
            .arg(program)
    }

    /// Copies a program to where every user of this machine can run it, and returns the path.
    pub fn publish(&self, program: &Path) -> Result<PathBuf> {
        let copy = self.files.path().join(program.file_name().context("a program without a name")?);
        fs::copy(program, &copy).with_context(|| format!("copy `{}`", program.display()))?;
        Ok(copy)
    }

    /// The BPF objects that are pinned on this machine.
    pub fn pins(&self) -> Result<Vec<String>> {
        let find = self.command("find").args(["/sys/fs/bpf", "-type", "f", "!", "-name", "*.debug"]).finish()?;
        find.expect_success()?;
        Ok(find.stdout.lines().map(str::to_owned).collect())
    }

    fn mounts_path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.mounts.as_raw_fd()))
    }
}

fn mount_own(files: &Path) -> io::Result<File> {
    const NONE: Option<&str> = None;
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)?;
    for name in ["resolv.conf", "hosts", "nsswitch.conf"] {
        mount(Some(&files.join(name)), &Path::new("/etc").join(name), NONE, MsFlags::MS_BIND, NONE)?;
    }
    mount(Some("bpf"), "/sys/fs/bpf", Some("bpf"), MsFlags::empty(), Some("mode=0700"))?;
    // What runs leave behind is listed and removed machine by machine.
    mount(Some("run"), "/run", Some("tmpfs"), MsFlags::empty(), Some("mode=0755"))?;
    File::open("/proc/thread-self/ns/mnt")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_has_its_own_name_servers_pins_and_runs() {
        let (one, other) = (Machine::new().unwrap(), Machine::new().unwrap());
        one.ask(&["198.20.0.53".parse().unwrap()]).unwrap();
        let shown = |machine: &Machine| machine.command("cat").arg("/etc/resolv.conf").finish().unwrap().stdout;
        assert!(shown(&one).starts_with("nameserver 198.20.0.53\n"), "{}", shown(&one));
        assert_eq!(shown(&other), "");

        for directory in ["/sys/fs/bpf/pins", "/run/egress"] {
            one.command("mkdir").arg(directory).finish().unwrap().expect_success().unwrap();
            other.command("ls").arg(directory).finish().unwrap().expect_code(2).unwrap();
        }
    }
}
