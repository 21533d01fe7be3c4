//! The cgroup2 hierarchy as this process sees it.

use std::{
    fs::{self, DirBuilder, File},
    os::{
        fd::AsRawFd as _,
        unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::{
    mountinfo::{self, Mount},
    place::Step,
};

/// Where the hierarchy is mounted for a moment, if it is not mounted already.
const OWN_MOUNT: &str = "/run/egress/cgroup2";

/// A mount of cgroup2 that shows the own cgroup.
#[derive(Debug)]
pub struct Hierarchy {
    mount: Mount,
    own: PathBuf,
    /// The root of a mount that has no place in the file system, and lives as long as this.
    _private: Option<File>,
}

impl Hierarchy {
    /// Finds the mount, or makes one that only this process has: `ip netns exec`, for one, hides `/sys/fs/cgroup`.
    pub fn find() -> anyhow::Result<Self> {
        let own = fs::read_to_string("/proc/self/cgroup").context("read `/proc/self/cgroup`")?;
        let own = mountinfo::own_cgroup(&own).context(
            "this process is in no cgroup2 cgroup that still exists; start it from another shell or service",
        )?;
        let mounts = fs::read_to_string("/proc/self/mountinfo").context("read `/proc/self/mountinfo`")?;
        let mounts = mountinfo::cgroup2_mounts(&mounts);
        let shows_own = |mount: &Mount| mount.directory(&own).is_some_and(|directory| directory.is_dir());
        if let Some(mount) = mounts.into_iter().find(shows_own) {
            return Ok(Self { mount, own, _private: None });
        }
        let root = private_mount()?;
        // Open files are named so in every process that has `/proc`.
        let point = PathBuf::from(format!("/proc/self/fd/{}", root.as_raw_fd()));
        let mount = Mount { root: PathBuf::from("/"), point };
        if !shows_own(&mount) {
            bail!("no mount of cgroup2 shows the own cgroup `{}`", own.display());
        }
        Ok(Self { mount, own, _private: Some(root) })
    }

    /// Path of the own cgroup, from the root of the hierarchy.
    pub fn own(&self) -> &Path {
        &self.own
    }

    /// The directory of the topmost cgroup that is seen.
    pub(super) fn point(&self) -> &Path {
        &self.mount.point
    }

    /// The path of a cgroup, from its directory.
    pub(super) fn path(&self, directory: &Path) -> anyhow::Result<PathBuf> {
        let below = directory.strip_prefix(&self.mount.point);
        Ok(self.mount.root.join(below.with_context(|| format!("`{}` is no cgroup", directory.display()))?))
    }

    /// The directory of a cgroup.
    pub(super) fn directory(&self, cgroup: &Path) -> anyhow::Result<PathBuf> {
        self.mount.directory(cgroup).with_context(|| format!("no mount of cgroup2 shows `{}`", cgroup.display()))
    }

    /// The cgroups from the top of what is seen to the own one, each with whether the user may write to it.
    pub(super) fn steps(&self, uid: u32) -> anyhow::Result<Vec<Step>> {
        let mut steps = Vec::new();
        for cgroup in self.own.ancestors().take_while(|cgroup| cgroup.starts_with(&self.mount.root)) {
            let writable = may_move_processes(&self.directory(cgroup)?, uid)?;
            steps.push(Step { cgroup: cgroup.to_path_buf(), writable });
        }
        steps.reverse();
        Ok(steps)
    }
}

/// Mounts the hierarchy, keeps its root open and takes the mount away again.
fn private_mount() -> anyhow::Result<File> {
    let what_to_do = || format!("mount cgroup2 at `{OWN_MOUNT}`; it is not mounted at `/sys/fs/cgroup`");
    let none: Option<&str> = None;
    DirBuilder::new().recursive(true).mode(0o700).create(OWN_MOUNT).with_context(|| format!("make `{OWN_MOUNT}`"))?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("cgroup2"), OWN_MOUNT, Some("cgroup2"), flags, none).with_context(what_to_do)?;
    let root = File::open(OWN_MOUNT).with_context(|| format!("open `{OWN_MOUNT}`"));
    umount2(OWN_MOUNT, MntFlags::MNT_DETACH).with_context(|| format!("unmount `{OWN_MOUNT}`"))?;
    root
}

/// Whether a user that is not root may write `cgroup.procs` of this cgroup. A group that may counts as if the user were
/// in it.
fn may_move_processes(directory: &Path, uid: u32) -> anyhow::Result<bool> {
    let path = directory.join("cgroup.procs");
    let metadata = fs::metadata(&path).with_context(|| format!("read `{}`", path.display()))?;
    Ok(uid != 0 && (metadata.uid() == uid || metadata.permissions().mode() & 0o022 != 0))
}
