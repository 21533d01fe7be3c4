//! Pins: what keeps links and maps in force when their process is gone.

use std::{
    fs::{self, DirBuilder, Metadata},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
    unistd::geteuid,
};

/// Where the BPF file system is mounted, by convention of every distribution.
pub const BPFFS: &str = "/sys/fs/bpf";

/// Mounts the BPF file system where it is missing.
pub(super) fn ensure_bpffs() -> Result<()> {
    if is_bpffs() {
        return Ok(());
    }
    mount(
        Some("bpf"),
        BPFFS,
        Some("bpf"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
        Some("mode=0700"),
    )
    .with_context(|| format!("mount the BPF file system at `{BPFFS}`"))
}

/// Makes a directory of pins, and the ones above it.
///
/// Some machines let every user write to the BPF file system, so each must be ours alone: whoever owns one of them could
/// take the pins away.
pub(super) fn make_directory(directory: &Path) -> Result<()> {
    let below =
        directory.strip_prefix(BPFFS).with_context(|| format!("`{}` is not below `{BPFFS}`", directory.display()))?;
    let mut path = PathBuf::from(BPFFS);
    for part in below {
        path.push(part);
        match DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => made.with_context(|| format!("make pin directory `{}`", path.display()))?,
        }
        let found = fs::symlink_metadata(&path).with_context(|| format!("read `{}`", path.display()))?;
        ensure!(is_ours(&found), "`{}` is not a directory that only root can write to; remove it", path.display());
    }
    Ok(())
}

fn is_ours(found: &Metadata) -> bool {
    found.is_dir() && found.uid() == geteuid().as_raw() && found.mode() & 0o022 == 0
}

/// Whether the BPF file system is mounted.
pub(super) fn is_bpffs() -> bool {
    statfs(BPFFS).is_ok_and(|found| found.filesystem_type() == BPF_FS_MAGIC)
}

/// Removes a directory of pins. One that is not there is no error.
pub fn remove_pins(directory: &Path) -> Result<()> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("read pins in `{}`", directory.display())),
    };
    for entry in entries {
        let path = entry.with_context(|| format!("read pins in `{}`", directory.display()))?.path();
        fs::remove_file(&path).with_context(|| format!("remove pin `{}`", path.display()))?;
    }
    fs::remove_dir(directory).with_context(|| format!("remove pin directory `{}`", directory.display()))
}
