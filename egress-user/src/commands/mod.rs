//! One file per subcommand.

use std::io::Write as _;

pub mod detach;
pub mod doctor;
pub mod explain;
mod name_servers;
pub mod policy;
pub mod run;
pub mod self_probe;

/// Exit code of success.
pub const OK: u8 = 0;
/// Exit code of a command that did not do what it was asked.
pub const FAILED: u8 = 1;
/// Exit code of wrong usage, or of a policy with problems.
pub const USAGE: u8 = 2;

/// Why a command ends without having done its work, and the exit code that says so.
#[derive(Debug)]
pub struct Failure {
    /// The exit code, as README.md lists them.
    pub code: u8,
    /// What was wrong, where, and what would be right.
    pub error: anyhow::Error,
}

impl Failure {
    /// A failure with this exit code.
    pub fn new(code: u8, error: impl Into<anyhow::Error>) -> Self {
        Self { code, error: error.into() }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self { code: FAILED, error }
    }
}

/// Prints an error with its causes on stderr. A closed stderr is nobody's fault and nobody's to hear about.
pub(crate) fn print_error(error: &anyhow::Error) {
    let written = writeln!(std::io::stderr(), "egress: {error:#}");
    drop(written);
}

/// Tells the person who runs this something on stderr.
fn say(text: &str) {
    let written = writeln!(std::io::stderr(), "egress: {text}");
    drop(written);
}

/// Prints a line on stdout. A closed stdout ends nothing: what was asked for is done all the same.
pub(crate) fn print_line(line: &str) {
    let written = writeln!(std::io::stdout(), "{line}");
    drop(written);
}
