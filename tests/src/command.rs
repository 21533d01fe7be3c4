//! Programs that run with a deadline and never outlive the test.

use std::{
    ffi::{OsStr, OsString},
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::process::ExitStatusExt as _,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::tempfile;

use crate::deadline::{SOON, until};

/// How long a program may run unless the test says otherwise.
const TIME_MAX: Duration = Duration::from_secs(30);

/// What to run.
#[derive(Debug)]
pub struct Spec {
    words: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    stdin: Vec<u8>,
    time_max: Duration,
}

impl Spec {
    /// A program, looked up in `PATH`, without arguments.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        let words = vec![program.as_ref().to_owned()];
        Self { words, environment: Vec::new(), stdin: Vec::new(), time_max: TIME_MAX }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, word: impl AsRef<OsStr>) -> Self {
        self.words.push(word.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args(mut self, words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.words.extend(words.into_iter().map(|word| word.as_ref().to_owned()));
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// What the program reads on its standard input; nothing unless set.
    #[must_use]
    pub fn stdin(mut self, text: impl Into<Vec<u8>>) -> Self {
        self.stdin = text.into();
        self
    }

    /// How long the program may run before it is killed.
    #[must_use]
    pub fn time_max(mut self, time_max: Duration) -> Self {
        self.time_max = time_max;
        self
    }

    /// Starts the program.
    pub fn start(self) -> Result<Running> {
        let Some((program, arguments)) = self.words.split_first() else { bail!("nothing to run") };
        let mut input = tempfile().context("make a file for standard input")?;
        input.write_all(&self.stdin).context("write standard input")?;
        input.seek(SeekFrom::Start(0)).context("rewind standard input")?;
        let (stdout, stderr) = (tempfile().context("make a file")?, tempfile().context("make a file")?);
        let child = Command::new(program)
            .args(arguments)
            .envs(self.environment)
            .stdin(Stdio::from(input))
            .stdout(Stdio::from(stdout.try_clone().context("share a file")?))
            .stderr(Stdio::from(stderr.try_clone().context("share a file")?))
            .spawn()
            .with_context(|| format!("start {:?} (`cargo xtask setup` installs what the tests need)", self.words))?;
        Ok(Running { words: self.words, child, stdout, stderr, time_max: self.time_max })
    }

    /// Runs the program to its end.
    pub fn finish(self) -> Result<Finished> {
        self.start()?.finish()
    }
}

/// A program that runs; it is killed when this is dropped.
#[derive(Debug)]
pub struct Running {
    words: Vec<OsString>,
    child: Child,
    stdout: std::fs::File,
    stderr: std::fs::File,
    time_max: Duration,
}

impl Running {
    /// Its process id.
    pub fn pid(&self) -> Result<Pid> {
        Ok(Pid::from_raw(i32::try_from(self.child.id()).context("a process id")?))
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(self.pid()?, signal).with_context(|| format!("send {signal} to {:?}", self.words))
    }

    /// What it has written on standard output so far.
    pub fn stdout(&self) -> Result<String> {
        read(&self.stdout)
    }

    /// What it has written on standard error so far.
    pub fn stderr(&self) -> Result<String> {
        read(&self.stderr)
    }

    /// Waits until its standard output contains the text.
    pub fn until_printed(&mut self, text: &str) -> Result<()> {
        until(&format!("`{text}` from {:?}", self.words), SOON, || {
            if self.stdout()?.contains(text) {
                return Ok(Some(()));
            }
            match self.child.try_wait().context("ask for the end of a program")? {
                None => Ok(None),
                Some(status) => bail!("{:?} ended with {status}: {}{}", self.words, self.stdout()?, self.stderr()?),
            }
        })
    }

    /// Waits for its end; kills it when its time is over, which is an error.
    pub fn finish(mut self) -> Result<Finished> {
        let status = until(&format!("the end of {:?}", self.words), self.time_max, || {
            self.child.try_wait().context("ask for the end of a program")
        });
        let status = match status {
            Ok(status) => status,
            Err(error) => return Err(error.context(format!("so far: {}{}", self.stdout()?, self.stderr()?))),
        };
        Ok(Finished { words: self.words.clone(), status, stdout: self.stdout()?, stderr: self.stderr()? })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only when the program has ended already, which is the aim.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn read(file: &std::fs::File) -> Result<String> {
    // A second description, so that the position of the program's own is left alone.
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(file));
    let mut bytes = Vec::new();
    std::fs::File::open(&path)
        .and_then(|mut file| file.read_to_end(&mut bytes))
        .with_context(|| format!("read what a program wrote in `{path}`"))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A program that has ended.
#[derive(Debug)]
pub struct Finished {
    words: Vec<OsString>,
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote on standard output.
    pub stdout: String,
    /// What it wrote on standard error.
    pub stderr: String,
}

impl Finished {
    /// Its exit code, or 128 and the number of the signal that ended it, as a shell says.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| 128 + self.status.signal().unwrap_or(0))
    }

    /// An error unless it ended with success.
    pub fn expect_success(&self) -> Result<()> {
        self.expect_code(0)
    }

    /// An error with everything it wrote unless it ended with this exit code.
    pub fn expect_code(&self, code: i32) -> Result<()> {
        if self.code() == code {
            return Ok(());
        }
        bail!(
            "{:?} ended with {} instead of exit code {code}\nstdout: {}\nstderr: {}",
            self.words,
            self.status,
            self.stdout,
            self.stderr
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_gives_its_output_and_code() {
        let finished = Spec::new("sh").args(["-c", "cat; echo problem >&2; exit 3"]).stdin("text").finish().unwrap();
        assert_eq!((finished.code(), finished.stdout.as_str(), finished.stderr.as_str()), (3, "text", "problem\n"));
        assert!(finished.expect_success().unwrap_err().to_string().contains("problem"));
    }

    #[test]
    fn a_program_that_hangs_is_killed() {
        let running = Spec::new("sleep").arg("60").time_max(Duration::from_millis(20)).start().unwrap();
        let pid = running.pid().unwrap();
        running.finish().unwrap_err();
        assert!(kill(pid, None).is_err(), "{pid} is alive");
    }
}
