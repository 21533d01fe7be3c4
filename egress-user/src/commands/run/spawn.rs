//! Starts the command inside the cgroup.
//!
//! Between `fork` and `exec` the child joins the cgroup before anything else, so not one instruction of the command runs
//! ungoverned. Everything that needs memory is made before `fork`; after it only system calls are made.

use std::{
    ffi::{CStr, CString, OsString},
    fs::File,
    io::{self, Read as _},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::{ffi::OsStrExt as _, process::CommandExt as _},
    },
    path::Path,
    process::Command,
};

use anyhow::Context as _;
use nix::{
    errno::Errno,
    fcntl::OFlag,
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::{
        prctl,
        signal::{SigSet, Signal},
    },
    unistd::{self, Pid, pipe2, setgroups, setresgid, setresuid},
};
use tokio::process::Child;

use super::{descriptors::FileLimit, identity::Identity};

/// Sockets of services that resolve names for whoever asks: those of nscd, systemd-resolved and Avahi. The C library asks
/// DNS when nobody listens there, so what they would have answered comes from the policy's name servers.
const RESOLVER_SOCKETS: [&CStr; 4] = [
    c"/run/nscd/socket",
    c"/var/run/nscd/socket",
    c"/run/systemd/resolve/io.systemd.Resolve",
    c"/run/avahi-daemon/socket",
];

/// What is needed to start the command.
#[derive(Debug)]
pub(super) struct Start<'a> {
    /// The program and its arguments.
    pub(super) command: &'a [OsString],
    /// `cgroup.procs` of its cgroup, open for writing.
    pub(super) door: File,
    /// A directory that the command sees, and cannot write to whoever it runs as.
    pub(super) read_only: &'a Path,
    /// The file in it with refusals.
    pub(super) refusals: &'a Path,
    /// Whom it runs as, if not as this process.
    pub(super) identity: Option<Identity>,
    /// The signals that were held back when this process began.
    pub(super) signals: SigSet,
    /// How many files it may have open.
    pub(super) files: FileLimit,
}

/// Why the command did not start.
#[derive(Debug)]
pub(super) enum NotStarted {
    /// There is no such program.
    NotFound,
    /// There is, and it cannot be executed.
    NotExecutable(io::Error),
    /// It did not come to that.
    Prepare(anyhow::Error),
}

/// What the child does before the command, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Step {
    Join = b'a',
    OwnMounts,
    NoPropagation,
    Bind,
    ReadOnly,
    HideResolvers,
    Groups,
    Group,
    User,
    DieWithParent,
    ParentIsAlive,
    Signals,
    Files,
}

impl Step {
    const ALL: [Self; 13] = [
        Self::Join,
        Self::OwnMounts,
        Self::NoPropagation,
        Self::Bind,
        Self::ReadOnly,
        Self::HideResolvers,
        Self::Groups,
        Self::Group,
        Self::User,
        Self::DieWithParent,
        Self::ParentIsAlive,
        Self::Signals,
        Self::Files,
    ];

    fn words(self) -> &'static str {
        match self {
            Self::Join => "join the cgroup",
            Self::OwnMounts => "make a mount namespace for the command",
            Self::NoPropagation => "keep the command's mounts to itself",
            Self::Bind | Self::ReadOnly => "make the file of refusals read-only for the command",
            Self::HideResolvers => "hide the sockets of name services from the command",
            Self::Groups | Self::Group | Self::User => "change to the user of the command",
            Self::DieWithParent | Self::ParentIsAlive => "tie the command's life to this process",
            Self::Signals => "restore the signal mask",
            Self::Files => "restore the limit of open files",
        }
    }
}

/// The part of [`Start`] that the child needs, made before it is there.
#[derive(Debug)]
struct Preparation {
    door: OwnedFd,
    failed_step: OwnedFd,
    read_only: CString,
    identity: Option<Identity>,
    parent: Pid,
    signals: SigSet,
    files: FileLimit,
}

/// Starts the command.
#[expect(unsafe_code, reason = "the standard library lets code run between fork and exec only so")]
pub(super) fn start(start: Start<'_>) -> Result<Child, NotStarted> {
    let Start { command: words, door, read_only, refusals, identity, signals, files } = start;
    let (program, arguments) = words.split_first().context("no command was given").map_err(NotStarted::Prepare)?;
    let mut command = Command::new(program);
    command.args(arguments).env("EGRESS_REFUSALS", refusals);
    if let Some(identity) = &identity {
        command.envs(identity.environment.iter().map(|(key, value)| (key, value)));
    }
    let (failed_step, reporter) = pipe2(OFlag::O_CLOEXEC).context("make a pipe").map_err(NotStarted::Prepare)?;
    let read_only = CString::new(read_only.as_os_str().as_bytes()).context("spell the directory of the run");
    let preparation = Preparation {
        door: door.into(),
        failed_step: reporter,
        read_only: read_only.map_err(NotStarted::Prepare)?,
        identity,
        parent: unistd::getpid(),
        signals,
        files,
    };
    // SAFETY: `Preparation::run` makes system calls only: it takes no lock and no memory, as `signal-safety(7)` asks of
    // what runs between `fork` and `exec`.
    unsafe { command.pre_exec(move || preparation.run()) };
    let mut command = tokio::process::Command::from(command);
    command.spawn().map_err(|error| {
        // With the command the writing end of the pipe is closed.
        drop(command);
        not_started(error, failed_step)
    })
}

fn not_started(error: io::Error, failed_step: OwnedFd) -> NotStarted {
    let mut step = [0];
    // Without a step it was `fork` or `exec` that failed.
    let told = File::from(failed_step).read(&mut step).is_ok_and(|length| length == 1);
    match Step::ALL.into_iter().find(|known| told && [*known as u8] == step) {
        Some(step) => NotStarted::Prepare(anyhow::Error::from(error).context(step.words())),
        None if error.kind() == io::ErrorKind::NotFound => NotStarted::NotFound,
        // No more processes may be made.
        None if error.kind() == io::ErrorKind::WouldBlock => NotStarted::Prepare(error.into()),
        None => NotStarted::NotExecutable(error),
    }
}

impl Preparation {
    fn run(&self) -> io::Result<()> {
        for step in Step::ALL {
            if let Err(error) = self.take(step) {
                // Should the parent not hear which step it was, it still hears the error.
                unistd::write(self.failed_step.as_fd(), &[step as u8]).ok();
                return Err(io::Error::from_raw_os_error(error as i32));
            }
        }
        Ok(())
    }

    fn take(&self, step: Step) -> nix::Result<()> {
        const NONE: Option<&str> = None;
        let directory = self.read_only.as_c_str();
        match (step, &self.identity) {
            (Step::Join, _) => unistd::write(self.door.as_fd(), b"0").map(drop),
            (Step::OwnMounts, _) => unshare(CloneFlags::CLONE_NEWNS),
            (Step::NoPropagation, _) => mount(NONE, c"/", NONE, MsFlags::MS_REC | MsFlags::MS_SLAVE, NONE),
            (Step::Bind, _) => mount(Some(directory), directory, NONE, MsFlags::MS_BIND, NONE),
            (Step::ReadOnly, _) => mount(
                NONE,
                directory,
                NONE,
                MsFlags::MS_REMOUNT
                    | MsFlags::MS_BIND
                    | MsFlags::MS_RDONLY
                    | MsFlags::MS_NOSUID
                    | MsFlags::MS_NODEV
                    | MsFlags::MS_NOEXEC,
                NONE,
            ),
            (Step::HideResolvers, _) => RESOLVER_SOCKETS.into_iter().try_for_each(hide),
            (Step::Groups, Some(identity)) => setgroups(&identity.groups),
            (Step::Group, Some(Identity { gid, .. })) => setresgid(*gid, *gid, *gid),
            (Step::User, Some(Identity { uid, .. })) => setresuid(*uid, *uid, *uid),
            (Step::Groups | Step::Group | Step::User, None) => Ok(()),
            // After the change of user, which would undo it.
            (Step::DieWithParent, _) => prctl::set_pdeathsig(Signal::SIGKILL),
            (Step::ParentIsAlive, _) if unistd::getppid() == self.parent => Ok(()),
            (Step::ParentIsAlive, _) => Err(Errno::ESRCH),
            (Step::Signals, _) => self.signals.thread_set_mask(),
            (Step::Files, _) => self.files.restore(),
        }
    }
}

/// Puts in the place of a socket what nobody can connect to, so that `connect` fails with `ECONNREFUSED`.
fn hide(socket: &CStr) -> nix::Result<()> {
    const NONE: Option<&str> = None;
    match mount(Some(c"/dev/null"), socket, NONE, MsFlags::MS_BIND, NONE) {
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(()),
        outcome => outcome,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_is_known_by_its_number() {
        for (step, number) in Step::ALL.into_iter().zip(b'a'..) {
            assert_eq!(step as u8, number, "{step:?}");
        }
    }

    #[test]
    fn a_failure_of_exec_is_told_from_one_before_it() {
        for (error, step, expected) in [
            (Errno::ENOENT, None, "not found"),
            (Errno::EACCES, None, "not executable"),
            (Errno::ENOEXEC, None, "not executable"),
            (Errno::EAGAIN, None, "prepare"),
            (Errno::ENOENT, Some(Step::Join), "prepare"),
            (Errno::EPERM, Some(Step::OwnMounts), "prepare"),
        ] {
            let (reader, writer) = unistd::pipe().unwrap();
            if let Some(step) = step {
                unistd::write(&writer, &[step as u8]).unwrap();
            }
            drop(writer);
            let found = match not_started(io::Error::from(error), reader) {
                NotStarted::NotFound => "not found",
                NotStarted::NotExecutable(_) => "not executable",
                NotStarted::Prepare(_) => "prepare",
            };
            assert_eq!(found, expected, "{error} {step:?}");
        }
    }
}
