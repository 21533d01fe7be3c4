//! Signals to `egress run` are meant for the command.

use anyhow::Context as _;
use nix::{
    libc,
    sys::{
        signal::{SigSet, SigmaskHow, Signal},
        signalfd::{SfdFlags, SignalFd},
    },
};

use super::readable::Readable;

/// The signals that are passed on.
const PASSED_ON: [Signal; 7] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGWINCH,
];

/// Signals that are held back from this process, to be read.
#[derive(Debug)]
pub(super) struct Held {
    held: SigSet,
    /// What was held back before, which the command gets back.
    pub(super) original: SigSet,
}

/// A signal that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Arrival {
    pub(super) signal: Signal,
    pub(super) sender: Sender,
}

/// Where a signal came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sender {
    /// The kernel; from the terminal it went to the command too, which is in the same process group.
    Kernel,
    /// A process.
    Process(u32),
}

/// Signals as they come.
#[derive(Debug)]
pub(super) struct Signals {
    descriptor: SignalFd,
    readable: Readable,
}

impl Held {
    /// Holds the signals back. To be called while there is one thread.
    pub(super) fn hold() -> anyhow::Result<Self> {
        let held = SigSet::from_iter(PASSED_ON);
        let original = held.thread_swap_mask(SigmaskHow::SIG_BLOCK).context("hold back signals")?;
        Ok(Self { held, original })
    }

    /// Reads them from now on.
    pub(super) fn watch(&self) -> anyhow::Result<Signals> {
        let descriptor = SignalFd::with_flags(&self.held, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC);
        let descriptor = descriptor.context("make a signalfd")?;
        let readable = Readable::watch(&descriptor)?;
        Ok(Signals { descriptor, readable })
    }
}

impl Signals {
    /// The next signal. Nothing is lost when this is dropped half way.
    pub(super) async fn next(&self) -> anyhow::Result<Arrival> {
        loop {
            match self.descriptor.read_signal().context("read the signalfd")? {
                Some(info) => {
                    if let Some(arrival) = Arrival::read(info.ssi_signo, info.ssi_code, info.ssi_pid) {
                        return Ok(arrival);
                    }
                }
                None => self.readable.wait().await?,
            }
        }
    }
}

impl Arrival {
    fn read(number: u32, code: i32, pid: u32) -> Option<Self> {
        let signal = Signal::try_from(i32::try_from(number).ok()?).ok()?;
        let sender = if code == libc::SI_KERNEL { Sender::Kernel } else { Sender::Process(pid) };
        Some(Self { signal, sender })
    }

    /// Whether the command is to get it: not if it has got it already, or sent it itself to its whole process group.
    pub(super) fn is_for_command(self, governed: impl FnOnce() -> Vec<u32>) -> bool {
        match self.sender {
            Sender::Kernel => false,
            Sender::Process(pid) => !governed().contains(&pid),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_command_has_not_got_yet_is_passed_on() {
        for (code, pid, expected) in [
            (libc::SI_USER, 7, true),
            (libc::SI_KERNEL, 0, false),
            (libc::SI_USER, 42, false),
            (libc::SI_QUEUE, 7, true),
        ] {
            let arrival = Arrival::read(15, code, pid).unwrap();
            assert_eq!(arrival.is_for_command(|| vec![41, 42]), expected, "code {code} from {pid}");
        }
        assert_eq!(Arrival::read(999, libc::SI_USER, 7), None);
    }
}
