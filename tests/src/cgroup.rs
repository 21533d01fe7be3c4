//! A cgroup for everything that one test starts.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use anyhow::{Context as _, Result, ensure};

use crate::deadline::{SOON, until};

static COUNTER: AtomicU64 = AtomicU64::new(0);

/// A cgroup that is killed and removed when it is dropped.
#[derive(Debug)]
pub struct Cgroup {
    directory: PathBuf,
}

impl Cgroup {
    /// A new cgroup below the one of this process.
    pub fn new() -> Result<Self> {
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let directory = own()?.join(format!("egress-test-{}-{number}", std::process::id()));
        fs::create_dir(&directory).with_context(|| format!("make the cgroup `{}`", directory.display()))?;
        Ok(Self { directory })
    }

    /// Its directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The cgroups directly below it.
    pub fn children(&self) -> Result<Vec<PathBuf>> {
        let mut children = Vec::new();
        for entry in fs::read_dir(&self.directory).with_context(|| format!("list `{}`", self.directory.display()))? {
            let entry = entry.context("list a cgroup")?;
            if entry.file_type().context("list a cgroup")?.is_dir() {
                children.push(entry.path());
            }
        }
        children.sort();
        Ok(children)
    }

    /// The processes in it and below it.
    pub fn processes(&self) -> Result<Vec<i32>> {
        let mut pids = Vec::new();
        for directory in [vec![self.directory.clone()], self.children()?].concat() {
            let path = directory.join("cgroup.procs");
            let text = fs::read_to_string(&path).with_context(|| format!("read `{}`", path.display()))?;
            pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
        }
        Ok(pids)
    }

    /// Kills what is left in it, and removes it and what is below it.
    fn remove(&self) -> Result<()> {
        fs::write(self.directory.join("cgroup.kill"), "1").context("kill a cgroup")?;
        until("an empty cgroup", SOON, || Ok(self.processes()?.is_empty().then_some(())))?;
        for child in self.children()? {
            fs::remove_dir(&child).with_context(|| format!("remove `{}`", child.display()))?;
        }
        fs::remove_dir(&self.directory).with_context(|| format!("remove `{}`", self.directory.display()))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // A test that failed already must not panic again; the name says whose it was.
        drop(self.remove());
    }
}

/// Where cgroup2 is mounted.
pub fn mount_point() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("read the mounts")?;
    let mut points =
        mounts.lines().filter(|line| line.contains(" - cgroup2 ")).filter_map(|line| line.split(' ').nth(4));
    points.next().map(PathBuf::from).context("cgroup2 is not mounted")
}

/// The directory of the cgroup of this process.
fn own() -> Result<PathBuf> {
    let cgroups = fs::read_to_string("/proc/self/cgroup").context("read the own cgroup")?;
    let path = cgroups.lines().find_map(|line| line.strip_prefix("0::/")).context("no cgroup2 cgroup")?;
    let directory = mount_point()?.join(path);
    ensure!(directory.join("cgroup.procs").exists(), "`{}` is no cgroup", directory.display());
    Ok(directory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Spec;

    #[test]
    fn a_cgroup_takes_its_processes_with_it() {
        let cgroup = Cgroup::new().unwrap();
        let directory = cgroup.directory().to_owned();
        let join = "mkdir $0/below && echo 0 > $0/below/cgroup.procs && echo inside && exec sleep 60";
        let mut running = Spec::new("sh").args(["-c", join]).arg(&directory).start().unwrap();
        running.until_printed("inside").unwrap();
        assert_eq!(cgroup.processes().unwrap(), [running.pid().unwrap().as_raw()]);
        drop(cgroup);
        assert!(!directory.exists());
        assert_eq!(running.finish().unwrap().code(), 128 + 9);
    }
}
