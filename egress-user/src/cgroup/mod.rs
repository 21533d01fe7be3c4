//! Cgroups: find the own one, make one for a run, kill what is in it, remove it.

use std::{
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Read as _, Seek as _},
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use nix::poll::{PollFd, PollFlags, PollTimeout};

pub use self::hierarchy::Hierarchy;

mod hierarchy;
mod mountinfo;
mod place;

/// Rounds of waiting for a killed cgroup to become empty, each of at most [`ROUND_MILLISECONDS`]: ten seconds, which
/// only processes stuck in the kernel outlast. What is left then stays governed.
const ROUNDS: u32 = 100;

/// See [`ROUNDS`].
const ROUND_MILLISECONDS: u16 = 100;

/// A cgroup2 cgroup.
#[derive(Debug)]
pub struct Cgroup {
    /// Keeps the directory in sight.
    _hierarchy: Hierarchy,
    path: PathBuf,
    directory: PathBuf,
    id: u64,
}

impl Cgroup {
    /// Makes the cgroup `name` for a command that will run as the user `uid`, under the own cgroup if that is safe.
    pub fn create(name: &str, uid: u32) -> anyhow::Result<Self> {
        let hierarchy = Hierarchy::find()?;
        let steps = hierarchy.steps(uid)?;
        let parent = place::parent_of_run(&steps).with_context(|| {
            format!("user {uid} may move processes out of every cgroup here; run as another user with `--user`")
        })?;
        let path = parent.join(name);
        let directory = hierarchy.directory(&path)?;
        fs::create_dir(&directory).with_context(|| format!("make cgroup `{}`", path.display()))?;
        match fs::metadata(&directory) {
            Ok(metadata) => Ok(Self { _hierarchy: hierarchy, path, directory, id: metadata.ino() }),
            Err(error) => {
                remove_tree(&directory)?;
                Err(error).with_context(|| format!("read cgroup `{}`", path.display()))
            }
        }
    }

    /// The cgroup with this name, wherever in the hierarchy it is.
    pub fn find(name: &str) -> anyhow::Result<Option<Self>> {
        let hierarchy = Hierarchy::find()?;
        let Some(directory) = tree(hierarchy.point())?.into_iter().find(|directory| directory.ends_with(name)) else {
            return Ok(None);
        };
        let metadata = fs::metadata(&directory).with_context(|| format!("read cgroup `{}`", directory.display()))?;
        let path = hierarchy.path(&directory)?;
        Ok(Some(Self { _hierarchy: hierarchy, path, directory, id: metadata.ino() }))
    }

    /// Its path from the root of the hierarchy.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its directory, for this process only.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The kernel's number of it, which is the inode of its directory.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// A file through which a process joins by writing `0`.
    pub fn door(&self) -> anyhow::Result<File> {
        let path = self.directory.join("cgroup.procs");
        OpenOptions::new().write(true).open(&path).with_context(|| format!("open `{}`", path.display()))
    }

    /// The processes in it and in the cgroups below it.
    pub fn pids(&self) -> anyhow::Result<Vec<u32>> {
        let mut pids = Vec::new();
        for directory in tree(&self.directory)? {
            let path = directory.join("cgroup.procs");
            let text = fs::read_to_string(&path).with_context(|| format!("read `{}`", path.display()))?;
            pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
        }
        Ok(pids)
    }

    /// Kills everything in it and below it, and waits until it is empty. `false` if something is still there in the end.
    pub fn kill_all(&self) -> anyhow::Result<bool> {
        let path = self.directory.join("cgroup.events");
        let mut events = File::open(&path).with_context(|| format!("open `{}`", path.display()))?;
        for _ in 0..ROUNDS {
            let mut text = String::new();
            events.rewind().with_context(|| format!("read `{}`", path.display()))?;
            events.read_to_string(&mut text).with_context(|| format!("read `{}`", path.display()))?;
            if is_empty(&text) {
                return Ok(true);
            }
            let kill = self.directory.join("cgroup.kill");
            fs::write(&kill, "1").with_context(|| format!("write `{}`", kill.display()))?;
            let mut changed = [PollFd::new(events.as_fd(), PollFlags::POLLPRI)];
            match nix::poll::poll(&mut changed, PollTimeout::from(ROUND_MILLISECONDS)) {
                Ok(_) | Err(nix::Error::EINTR) => {}
                Err(error) => return Err(error).with_context(|| format!("wait for `{}`", path.display())),
            }
        }
        Ok(false)
    }

    /// Removes it and the cgroups below it, which must be empty.
    pub fn remove(&self) -> anyhow::Result<()> {
        remove_tree(&self.directory)
    }
}

/// Whether the text of `cgroup.events` says that no live process is in the cgroup or below it.
fn is_empty(events: &str) -> bool {
    events.lines().any(|line| line == "populated 0")
}

/// The directory and all directories below it, each before those below it.
fn tree(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = vec![directory.to_path_buf()];
    let mut next = 0;
    while let Some(directory) = found.get(next).cloned() {
        next += 1;
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            // Removed meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(error).with_context(|| format!("list cgroup `{}`", directory.display())),
        };
        for entry in entries {
            let entry = entry.with_context(|| format!("list cgroup `{}`", directory.display()))?;
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                found.push(entry.path());
            }
        }
    }
    Ok(found)
}

fn remove_tree(directory: &Path) -> anyhow::Result<()> {
    for directory in tree(directory)?.iter().rev() {
        fs::remove_dir(directory).with_context(|| format!("remove cgroup `{}`", directory.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_is_empty_only_when_the_kernel_says_so() {
        for (text, expected) in [
            ("populated 0\nfrozen 0\n", true),
            ("populated 1\nfrozen 0\n", false),
            ("frozen 0\npopulated 0\n", true),
            ("", false),
        ] {
            assert_eq!(is_empty(text), expected, "{text:?}");
        }
    }
}
