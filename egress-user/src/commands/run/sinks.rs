//! The files that a run writes.

use std::{
    fs::{File, OpenOptions},
    io::{BufWriter, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use nix::libc;

/// Bytes of the file of refusals. `/run` is memory, and a command can be refused without end. What comes after is only
/// counted, and the file's last line says so.
const REFUSALS_BYTES_MAX: usize = 16 << 20;

/// The last line of a file of refusals that is full.
const FULL: &str = "{\"message\":\"this file is full; further refusals are only counted\"}\n";

/// The file that `EGRESS_REFUSALS` names.
#[derive(Debug)]
pub(super) struct RefusalsFile {
    path: PathBuf,
    file: File,
    room: usize,
}

impl RefusalsFile {
    pub(super) fn create(directory: &Path) -> anyhow::Result<Self> {
        let path = directory.join("refusals.jsonl");
        let file = OpenOptions::new().append(true).create_new(true).mode(0o644).open(&path);
        let file = file.with_context(|| format!("make `{}`", path.display()))?;
        Ok(Self { path, file, room: REFUSALS_BYTES_MAX })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a line at once, so that the command can read why its call failed.
    pub(super) fn write(&mut self, line: &str) -> anyhow::Result<()> {
        let line = match self.room.checked_sub(line.len()) {
            Some(room) => {
                self.room = room;
                line
            }
            None if self.room > 0 => {
                self.room = 0;
                FULL
            }
            None => return Ok(()),
        };
        let written = self.file.write_all(line.as_bytes());
        // After half a line nothing that follows could be read.
        self.room = if written.is_ok() { self.room } else { 0 };
        written.with_context(|| format!("write `{}`", self.path.display()))
    }
}

/// The file of `--events`.
#[derive(Debug)]
pub(super) struct EventsFile {
    path: PathBuf,
    file: BufWriter<File>,
}

impl EventsFile {
    pub(super) fn create(path: &Path) -> anyhow::Result<Self> {
        // The directory may be the command's, which could have put a link to any file of root there in an earlier run.
        // Only those of the kernel, such as `/dev/stdout`, are followed.
        let is_of_kernel = path.starts_with("/dev") || path.starts_with("/proc");
        let flags = if is_of_kernel { 0 } else { libc::O_NOFOLLOW };
        let file = OpenOptions::new().write(true).create(true).truncate(true).custom_flags(flags).open(path);
        let file = match file {
            Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
                bail!("`{}` is a symbolic link; name the file that it leads to", path.display())
            }
            opened => opened.with_context(|| format!("make `{}`", path.display()))?,
        };
        Ok(Self { path: path.to_path_buf(), file: BufWriter::new(file) })
    }

    pub(super) fn write(&mut self, line: &str) -> anyhow::Result<()> {
        self.file.write_all(line.as_bytes()).with_context(|| format!("write `{}`", self.path.display()))
    }

    pub(super) fn flush(&mut self) -> anyhow::Result<()> {
        self.file.flush().with_context(|| format!("write `{}`", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_file_of_refusals_says_so_once_and_takes_no_more() {
        let directory = std::env::temp_dir().join(format!("egress-sinks-{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        let mut file = RefusalsFile::create(&directory).unwrap();
        file.room = 10;
        for line in ["one\n", "two\n", "three\n", "four\n", "5\n"] {
            file.write(line).unwrap();
        }
        let text = std::fs::read_to_string(file.path()).unwrap();
        std::fs::remove_dir_all(&directory).unwrap();
        assert_eq!(text, format!("one\ntwo\n{FULL}"));
    }
}
