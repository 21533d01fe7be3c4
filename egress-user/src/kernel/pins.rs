//! Pins: what keeps links and maps in force when their process is gone.

use std::{fs, io, path::Path};

use anyhow::{Context as _, Result};
use nix::{
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};

/// Where the BPF file system is mounted, by convention of every distribution.
pub const BPFFS: &str = "/sys/fs/bpf";

/// Mounts the BPF file system where it is missing.
pub(super) fn ensure_bpffs() -> Result<()> {
    if is_bpffs() {
        return Ok(());
    }
    mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC, None::<&str>)
        .with_context(|| format!("mount the BPF file system at `{BPFFS}`"))
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
