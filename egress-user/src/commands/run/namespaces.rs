//! The network namespaces in which the workload has processes. Its questions about names are listened to in each.

use std::{
    collections::{BTreeMap, VecDeque},
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::Path,
};

use anyhow::Context as _;

use super::session::Session;
use crate::{
    dns::proxy::{Proxy, Sockets},
    kernel,
};

/// Network namespaces of one workload, each with ten sockets. In one more, questions are refused, and it is told.
const NAMESPACES_MAX: usize = 64;

/// Processes that are looked at in one tick. A run with no more than these is looked through at each, which takes a
/// hundred microseconds.
const LOOKS_PER_TICK: usize = 32;

/// Namespaces that are entered in one tick. Each takes a thread and ten sockets, a millisecond or a few, in which no
/// question is answered.
const ENTERED_PER_TICK: usize = 4;

/// Threads of one process that are looked at when its question found no listener. Hardly any process has threads in
/// different namespaces, and those that have, few.
const THREADS_MAX: usize = 64;

/// Where the workload has processes, and where its questions are listened to.
#[derive(Debug)]
pub(super) struct Namespaces {
    /// By the inode of `/proc/PID/ns/net`. It is nobody else's while there are sockets in the namespace.
    known: BTreeMap<u64, Known>,
    /// Processes to look at in this round.
    waiting: VecDeque<u32>,
    round: u64,
    is_full_told: bool,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    /// The kernel's number of it, where it is listened in.
    number: Option<u64>,
    /// The last round in which a process was seen there.
    round: u64,
}

impl Namespaces {
    /// Listens in the namespace of this process, in which the command starts.
    pub(super) fn begin(proxy: &mut Proxy, session: &mut Session) -> anyhow::Result<Self> {
        let own = inode(Path::new("/proc/self/ns/net")).context("look at `/proc/self/ns/net`")?;
        let number = listen(Sockets::open()?, proxy, session).context("listen for questions about names")?;
        // It stays, whoever is seen there.
        let known = [(own, Known { number: Some(number), round: u64::MAX })].into();
        Ok(Self { known, waiting: VecDeque::new(), round: 0, is_full_told: false })
    }

    /// Looks at some processes, and gives what a person should hear about it.
    pub(super) fn tick(&mut self, proxy: &mut Proxy, session: &mut Session) -> Vec<String> {
        if self.waiting.is_empty() {
            // A cgroup below may be removed while it is read. Nothing follows from a list that is not whole.
            match session.cgroup().and_then(crate::cgroup::Cgroup::pids) {
                Ok(pids) => self.begin_round(pids, proxy, session),
                Err(error) => tracing::debug!(%error, "list the processes of the command"),
            }
        }
        let known_max = self.known.len() + ENTERED_PER_TICK;
        let mut news = Vec::new();
        for _ in 0..LOOKS_PER_TICK {
            if self.known.len() >= known_max {
                break;
            }
            let Some(pid) = self.waiting.pop_front() else { break };
            news.extend(self.look(&net(pid), proxy, session));
        }
        news
    }

    /// Looks at every thread of a process whose question found no listener.
    pub(super) fn look_closely(&mut self, pid: u32, proxy: &mut Proxy, session: &mut Session) -> Vec<String> {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().take(THREADS_MAX);
        let threads = threads.filter_map(|thread| Some(thread.ok()?.path().join("ns/net")));
        threads.filter_map(|path| self.look(&path, proxy, session)).collect()
    }

    fn begin_round(&mut self, pids: Vec<u32>, proxy: &mut Proxy, session: &mut Session) {
        self.leave_empty(proxy, session);
        self.round += 1;
        self.waiting = pids.into();
    }

    fn look(&mut self, path: &Path, proxy: &mut Proxy, session: &mut Session) -> Option<String> {
        // The process may have ended meanwhile.
        let inode = inode(path).ok()?;
        if let Some(known) = self.known.get_mut(&inode) {
            known.round = known.round.max(self.round);
            return None;
        }
        if self.known.len() >= NAMESPACES_MAX {
            let is_told = std::mem::replace(&mut self.is_full_told, true);
            return (!is_told).then(|| {
                format!(
                    "names cannot be resolved in more than {NAMESPACES_MAX} network namespaces; questions there fail"
                )
            });
        }
        let (number, problem) = match enter(path, inode, proxy, session) {
            Ok(number) => (Some(number), None),
            Err(error) if is_gone(&error) => return None,
            Err(error) => (None, Some(format!("names cannot be resolved in a network namespace: {error:#}"))),
        };
        self.known.insert(inode, Known { number, round: self.round });
        problem
    }

    /// Forgets the namespaces in which no process was seen in the round that is over.
    fn leave_empty(&mut self, proxy: &mut Proxy, session: &mut Session) {
        let round = self.round;
        for (_, Known { number, round: _ }) in self.known.extract_if(.., |_, known| known.round < round) {
            let Some(number) = number else { continue };
            if let Err(error) = session.governor().and_then(|governor| governor.unregister(number)) {
                tracing::debug!(%error, "stop leading questions to a network namespace that is empty");
            }
            proxy.leave(number);
        }
    }
}

/// Listens in the namespace of a process, if it still is the one with this inode.
fn enter(path: &Path, expected: u64, proxy: &mut Proxy, session: &mut Session) -> anyhow::Result<u64> {
    let namespace = File::open(path).with_context(|| format!("open `{}`", path.display()))?;
    let found = namespace.metadata().with_context(|| format!("look at `{}`", path.display()))?.ino();
    if found != expected {
        return Err(anyhow::Error::from(io::Error::from(io::ErrorKind::NotFound)).context("it changed meanwhile"));
    }
    listen(Sockets::open_in(namespace)?, proxy, session)
}

/// Listens on sockets and has questions led to them, and gives the kernel's number of their namespace.
fn listen(sockets: Sockets, proxy: &mut Proxy, session: &mut Session) -> anyhow::Result<u64> {
    let number = kernel::network_namespace(sockets.any()?)?;
    let listener = proxy.listen(number, sockets).context("read from the sockets")?;
    let registered = session.governor()?.register(number, listener.ports(), &listener.sockets());
    if registered.is_err() {
        proxy.leave(number);
    }
    registered.context("lead questions about names to the proxy")?;
    Ok(number)
}

fn net(pid: u32) -> std::path::PathBuf {
    format!("/proc/{pid}/ns/net").into()
}

fn inode(path: &Path) -> io::Result<u64> {
    fs::metadata(path).map(|metadata| metadata.ino())
}

fn is_gone(error: &anyhow::Error) -> bool {
    error
        .chain()
        .any(|cause| cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::NotFound))
}
