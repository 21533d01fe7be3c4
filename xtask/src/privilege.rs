//! What this process may do: installing packages, and loading programs into the kernel, is for root.

use std::{
    ffi::OsStr,
    fs,
    process::{Command, Stdio},
};

/// How a command is run as root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Privilege {
    /// This process is root.
    Root,
    /// `sudo` runs commands without asking for a password.
    Sudo,
    /// Not at all.
    None,
}

impl Privilege {
    /// What this process has. Asks nobody for a password.
    pub(crate) fn of_this_process() -> Self {
        let is_root = fs::read_to_string("/proc/self/status").is_ok_and(|status| effective_user(&status) == Some(0));
        if is_root {
            return Self::Root;
        }
        let sudo = Command::new("sudo").args(["-n", "true"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
        if sudo.is_ok_and(|status| status.success()) { Self::Sudo } else { Self::None }
    }

    /// A command that runs as root, where that is possible. Variables set on it would not pass `sudo`.
    pub(crate) fn command(self, program: impl AsRef<OsStr>) -> Option<Command> {
        match self {
            Self::Root => Some(Command::new(program)),
            Self::Sudo => {
                let mut command = Command::new("sudo");
                command.arg("-n").arg(program);
                Some(command)
            }
            Self::None => None,
        }
    }
}

/// Reads the effective user id out of `/proc/PID/status`.
fn effective_user(status: &str) -> Option<u32> {
    status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_effective_user_counts_and_not_the_real_one() {
        for (status, expected) in [
            ("Name:\tcargo\nUid:\t0\t0\t0\t0\n", Some(0)),
            ("Uid:\t1000\t0\t0\t0\n", Some(0)),
            ("Uid:\t0\t1000\t0\t0\n", Some(1000)),
            ("Name:\tcargo\n", None),
        ] {
            assert_eq!(effective_user(status), expected, "{status:?}");
        }
    }
}
