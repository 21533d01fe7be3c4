//! What a process sees when it uses the network: the reports of the `probe` program, which runs under `egress run`.

use std::{env, path::PathBuf};

use anyhow::{Context as _, Result, ensure};
use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use crate::deadline::SOON;

/// How one action went.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The action, as it was asked for.
    pub action: String,
    /// The system call that failed, or the last one.
    pub call: String,
    /// Its error, 0 for none.
    pub errno: i32,
    /// How long that call took.
    pub microseconds: u64,
    /// What came back.
    pub reply: String,
    /// Rounds that went well, for actions with rounds.
    pub successes: u64,
    /// Rounds that failed.
    pub failures: u64,
}

impl Report {
    /// An error unless every call of the action worked.
    pub fn expect_success(&self) -> Result<()> {
        ensure!(self.errno == 0 && self.failures == 0, "{self:?}: {}", Errno::from_raw(self.errno));
        Ok(())
    }

    /// An error unless this call failed, with this error, at once.
    pub fn expect_refusal(&self, call: &str, errno: Errno) -> Result<()> {
        ensure!(
            (self.call.as_str(), Errno::from_raw(self.errno)) == (call, errno),
            "{self:?}: expected `{call}` to fail with {errno}"
        );
        ensure!(u128::from(self.microseconds) < SOON.as_micros() / 10, "{self:?}: it took too long");
        Ok(())
    }
}

/// The `probe` program, which cargo builds with the tests.
pub fn program() -> Result<PathBuf> {
    sibling("probe")
}

/// Reads the reports in what `probe` wrote on standard output.
pub fn reports(stdout: &str) -> Result<Vec<Report>> {
    stdout.lines().map(|line| serde_json::from_str(line).with_context(|| format!("read the report `{line}`"))).collect()
}

/// A program of this build.
pub(crate) fn sibling(name: &str) -> Result<PathBuf> {
    let own = env::current_exe().context("ask for the path of this program")?;
    let mut directory = own.parent().context("this program has no directory")?;
    if directory.ends_with("deps") {
        directory = directory.parent().context("the build has no directory")?;
    }
    Ok(directory.join(name))
}
