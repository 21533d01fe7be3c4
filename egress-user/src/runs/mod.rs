//! Runs of `egress run` as other processes see them: their files under `/run/egress/runs`, who is alive, and what a dead
//! one left behind.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail, ensure};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::{cgroup::Cgroup, kernel};

/// Where every run has a directory named by its id.
pub const RUNS: &str = "/run/egress/runs";

/// Times that another id is tried when there is a run with it. Of 4 billion ids, two tries are one more than needed.
const ID_TRIES: u32 = 16;

/// What is known about a run, and kept in its `state.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The process of `egress run`.
    pub pid: u32,
    /// When it began, as RFC 3339.
    pub started: String,
    /// Name of the policy.
    pub policy: String,
    /// The command, without its arguments, which may hold secrets.
    pub command: String,
    /// Path of the cgroup from the root of the hierarchy; absent until there is one.
    pub cgroup: Option<PathBuf>,
    /// The cgroup namespace that the path is seen in.
    pub cgroup_namespace: Option<u64>,
}

/// The files of the run that this process is. They are removed when it is dropped, unless they are kept for `detach`.
#[derive(Debug)]
pub struct Run {
    id: String,
    directory: PathBuf,
    state: State,
    keep: bool,
    /// Held for as long as the run lives.
    _lock: Flock<File>,
}

/// A run that another process made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its id.
    pub id: String,
    /// What is known about it, if that can be read.
    pub state: Option<State>,
    /// Whether its process is alive.
    pub alive: bool,
}

impl Run {
    /// Makes the directory of a new run.
    pub fn create(state: State) -> anyhow::Result<Self> {
        let all = lock_all()?;
        for _ in 0..ID_TRIES {
            let id = new_id()?;
            let directory = Path::new(RUNS).join(&id);
            match DirBuilder::new().mode(0o755).create(&directory) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(error).with_context(|| format!("make `{}`", directory.display())),
            }
            let lock = match lock_run(&directory) {
                Ok(Some(lock)) => lock,
                Ok(None) => bail!("another process holds the lock of the new run `{id}`"),
                Err(error) => {
                    remove_files(&directory)?;
                    return Err(error);
                }
            };
            let run = Self { id, directory, state, keep: false, _lock: lock };
            let written = run.write_state();
            // Nobody takes the run for dead from here on; and to remove it takes this lock.
            drop(all);
            return written.map(|()| run);
        }
        bail!("no free id for a run in `{RUNS}`")
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Name of its cgroup.
    pub fn cgroup_name(&self) -> String {
        cgroup_name(&self.id)
    }

    /// Directory of its pins.
    pub fn pins(&self) -> PathBuf {
        pins(&self.id)
    }

    /// Notes the cgroup, so that it is found if this process is killed.
    pub fn note_cgroup(&mut self, path: &Path) -> anyhow::Result<()> {
        self.state.cgroup = Some(path.to_path_buf());
        self.write_state()
    }

    /// Leaves the files for `detach`, because something could not be removed.
    pub fn keep(&mut self) {
        self.keep = true;
    }

    fn write_state(&self) -> anyhow::Result<()> {
        let text = serde_json::to_vec_pretty(&self.state).context("write the state of the run")?;
        let (path, new) = (self.directory.join("state.json"), self.directory.join("state.json.new"));
        let written = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o644)
            .open(&new)
            .and_then(|mut file| file.write_all(&text))
            .and_then(|()| fs::rename(&new, &path));
        written.with_context(|| format!("write `{}`", path.display()))
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        // Whoever lists runs meanwhile would find half of this one, and make its lock anew.
        let removed = lock_all().and_then(|_all| remove_files(&self.directory));
        if let Err(error) = removed {
            tracing::warn!("{error:#}");
        }
    }
}

/// Every run there is, in the order of their ids.
pub fn list() -> anyhow::Result<Vec<Found>> {
    if !Path::new(RUNS).exists() {
        return Ok(Vec::new());
    }
    let _all = lock_all()?;
    let entries = fs::read_dir(RUNS).with_context(|| format!("list `{RUNS}`"))?;
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.with_context(|| format!("list `{RUNS}`"))?;
        if let Ok(id) = entry.file_name().into_string()
            && is_id(&id)
        {
            let alive = lock_run(&entry.path())?.is_none();
            found.push(Found { state: read_state(&entry.path()), id, alive });
        }
    }
    found.sort_by(|left, right| left.id.cmp(&right.id));
    Ok(found)
}

/// Kills what a dead run left running and removes everything of it.
pub fn detach(id: &str) -> anyhow::Result<()> {
    ensure!(is_id(id), "`{}` is no id of a run; `egress doctor` lists them", id.escape_debug());
    let directory = Path::new(RUNS).join(id);
    let all = lock_all()?;
    ensure!(directory.is_dir(), "there is no run `{id}`; `egress doctor` lists them");
    let state = read_state(&directory);
    let Some(_lock) = lock_run(&directory)? else {
        let pid = state.map_or_else(|| "unknown".to_owned(), |state| state.pid.to_string());
        bail!("run `{id}` is alive; end it by ending its process {pid}");
    };
    drop(all);
    if let Some(State { cgroup_namespace: Some(namespace), .. }) = state {
        // Elsewhere the cgroup would not be found, and what still lives would lose its policy with the pins.
        ensure!(namespace == cgroup_namespace()?, "run `{id}` is of another cgroup namespace; detach it there");
    }
    remove_cgroup(&cgroup_name(id))?;
    kernel::remove_pins(&pins(id))?;
    let _all = lock_all()?;
    remove_files(&directory)
}

/// The cgroup namespace of this process.
pub fn cgroup_namespace() -> anyhow::Result<u64> {
    let path = "/proc/self/ns/cgroup";
    Ok(fs::metadata(path).with_context(|| format!("read `{path}`"))?.ino())
}

/// Looks for the cgroup by its name, because what was noted may be gone, and without the pins what still lives in it would
/// be free.
fn remove_cgroup(name: &str) -> anyhow::Result<()> {
    let Some(cgroup) = Cgroup::find(name)? else {
        return Ok(());
    };
    ensure!(
        cgroup.kill_all()?,
        "processes in cgroup `{}` do not die; they stay governed, and this can be tried again",
        cgroup.path().display()
    );
    cgroup.remove()
}

/// Whoever holds this lock sees no run that is half made or half removed.
fn lock_all() -> anyhow::Result<Flock<File>> {
    DirBuilder::new().recursive(true).mode(0o755).create(RUNS).with_context(|| format!("make `{RUNS}`"))?;
    let directory = File::open(RUNS).with_context(|| format!("open `{RUNS}`"))?;
    Flock::lock(directory, FlockArg::LockExclusive)
        .map_err(|(_, error)| error)
        .with_context(|| format!("lock `{RUNS}`"))
}

/// The lock of a run; `None` when its process lives.
fn lock_run(directory: &Path) -> anyhow::Result<Option<Flock<File>>> {
    let path = directory.join("lock");
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = file.with_context(|| format!("open `{}`", path.display()))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, nix::Error::EWOULDBLOCK)) => Ok(None),
        Err((_, error)) => Err(error).with_context(|| format!("lock `{}`", path.display())),
    }
}

fn read_state(directory: &Path) -> Option<State> {
    serde_json::from_slice(&fs::read(directory.join("state.json")).ok()?).ok()
}

fn remove_files(directory: &Path) -> anyhow::Result<()> {
    fs::remove_dir_all(directory).with_context(|| format!("remove `{}`", directory.display()))
}

fn cgroup_name(id: &str) -> String {
    format!("egress-run-{id}")
}

fn pins(id: &str) -> PathBuf {
    Path::new(kernel::BPFFS).join("egress/run").join(id)
}

fn new_id() -> anyhow::Result<String> {
    let mut bytes = [0; 4];
    let read = File::open("/dev/urandom").and_then(|mut random| random.read_exact(&mut bytes));
    read.context("read `/dev/urandom`")?;
    Ok(format!("{:08x}", u32::from_ne_bytes(bytes)))
}

fn is_id(text: &str) -> bool {
    text.len() == 8 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_eight_hexadecimal_digits_and_nothing_that_could_be_a_path() {
        for (text, expected) in [
            ("0123abcd", true),
            ("0123ABCD", false),
            ("0123abc", false),
            ("0123abcde", false),
            ("../../et", false),
            ("", false),
            (".new-abc", false),
        ] {
            assert_eq!(is_id(text), expected, "{text}");
        }
        assert!(is_id(&new_id().unwrap()));
    }
}
