//! The binary under test, and what it leaves on record.

use std::{
    cell::OnceCell,
    env,
    ffi::{OsStr, OsString},
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::OnceLock,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use tempfile::TempDir;

use crate::{
    command::{Finished, Running, Spec},
    machine::Machine,
    probe::{self, Report},
    record::{self, Event, Question, Record},
};

/// How long one build of the binary may take on a busy machine.
const BUILD_MAX: Duration = Duration::from_secs(600);

/// The `egress` binary: the one that `EGRESS_BIN` names, else the one of this build, made if it is missing.
pub fn binary() -> Result<PathBuf> {
    static BINARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    BINARY.get_or_init(|| find().map_err(|error| format!("{error:#}"))).clone().map_err(|error| anyhow!(error))
}

fn find() -> Result<PathBuf> {
    if let Some(path) = env::var_os("EGRESS_BIN") {
        let path = PathBuf::from(path);
        ensure!(path.is_file(), "`EGRESS_BIN` names `{}`, which is no file", path.display());
        return path.canonicalize().context("find the path of `EGRESS_BIN`");
    }
    let path = probe::sibling("egress")?;
    let cargo = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut build = Spec::new(cargo)
        .args(["build", "--quiet", "--package", "egress-user", "--bin", "egress", "--manifest-path"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml"))
        .time_max(BUILD_MAX);
    if path.parent().is_some_and(|directory| directory.ends_with("release")) {
        build = build.arg("--release");
    }
    build.finish()?.expect_success().context("build `egress`")?;
    ensure!(path.is_file(), "the build left no `{}`", path.display());
    Ok(path)
}

/// One `egress run` in preparation, on a machine.
#[derive(Debug)]
pub struct Egress<'machine> {
    machine: &'machine Machine,
    directory: TempDir,
    wrapper: Vec<OsString>,
    options: Vec<OsString>,
    time_max: Duration,
}

impl<'machine> Egress<'machine> {
    /// A run without any option but `--events`.
    pub fn new(machine: &'machine Machine) -> Result<Self> {
        let directory = TempDir::with_prefix("egress-run-").context("make a directory for a run")?;
        let options = vec!["--events".into(), directory.path().join("events.jsonl").into()];
        Ok(Self { machine, directory, wrapper: Vec::new(), options, time_max: Duration::from_secs(60) })
    }

    /// A run without any option.
    pub fn without_events(machine: &'machine Machine) -> Result<Self> {
        Ok(Self { options: Vec::new(), ..Self::new(machine)? })
    }

    /// A run under this policy.
    pub fn under(machine: &'machine Machine, policy: &str) -> Result<Self> {
        let run = Self::new(machine)?;
        let path = run.directory.path().join("policy.yaml");
        fs::write(&path, policy).with_context(|| format!("write `{}`", path.display()))?;
        Ok(run.option("--policy").option(path))
    }

    /// Adds an option of `egress run`, or the value of one.
    #[must_use]
    pub fn option(mut self, word: impl AsRef<OsStr>) -> Self {
        self.options.push(word.as_ref().to_owned());
        self
    }

    /// Starts `egress` itself through another program, which gets its path and arguments.
    #[must_use]
    pub fn through(mut self, wrapper: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.wrapper = wrapper.into_iter().map(|word| word.as_ref().to_owned()).collect();
        self
    }

    /// How long it may take.
    #[must_use]
    pub fn time_max(mut self, time_max: Duration) -> Self {
        self.time_max = time_max;
        self
    }

    /// Starts the command under the policy.
    pub fn start(self, command: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<Governed> {
        let running = self
            .machine
            .command("env")
            .args(&self.wrapper)
            .arg(binary()?)
            .arg("run")
            .args(&self.options)
            .arg("--")
            .args(command)
            .time_max(self.time_max)
            .start()?;
        Ok(Governed { running, directory: self.directory })
    }

    /// Runs the command under the policy to its end.
    pub fn run(self, command: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<Outcome> {
        self.start(command)?.finish()
    }

    /// Runs `probe` with these actions under the policy; each action has a report.
    pub fn probe(self, actions: &[impl AsRef<str>]) -> Result<Outcome> {
        let command = [vec![probe::program()?.into_os_string()], actions.iter().map(|a| a.as_ref().into()).collect()];
        let outcome = self.run(command.concat())?;
        outcome.expect_success()?;
        let reports = outcome.reports()?.len();
        ensure!(reports == actions.len(), "{reports} reports of {} actions: {outcome:?}", actions.len());
        Ok(outcome)
    }
}

/// An `egress run` that runs; it is killed when this is dropped.
#[derive(Debug)]
pub struct Governed {
    /// Its process.
    pub running: Running,
    directory: TempDir,
}

impl Governed {
    /// What it has recorded so far about flows.
    pub fn events(&self) -> Result<Vec<Event>> {
        Ok(records(self.directory.path())?.into_iter().filter_map(Record::flow).collect())
    }

    /// What it has recorded so far about questions for names.
    pub fn questions(&self) -> Result<Vec<Question>> {
        Ok(records(self.directory.path())?.into_iter().filter_map(Record::question).collect())
    }

    /// Waits for its end.
    pub fn finish(self) -> Result<Outcome> {
        let Self { running, directory } = self;
        Ok(Outcome { finished: running.finish()?, directory, events: OnceCell::new() })
    }
}

/// An `egress run` that has ended.
#[derive(Debug)]
pub struct Outcome {
    /// Its output and exit code.
    pub finished: Finished,
    directory: TempDir,
    events: OnceCell<Vec<Event>>,
}

impl Outcome {
    /// The records of `--events` about flows.
    pub fn events(&self) -> Result<&[Event]> {
        if let Some(events) = self.events.get() {
            return Ok(events);
        }
        let events = records(self.directory.path())?.into_iter().filter_map(Record::flow).collect();
        Ok(self.events.get_or_init(|| events))
    }

    /// The records of `--events` about questions for names.
    pub fn questions(&self) -> Result<Vec<Question>> {
        Ok(records(self.directory.path())?.into_iter().filter_map(Record::question).collect())
    }

    /// The alerts among the records of `--events`.
    pub fn alerts(&self) -> Result<Vec<serde_json::Value>> {
        Ok(records(self.directory.path())?.into_iter().filter_map(Record::alert).collect())
    }

    /// The refusals on record, each with the address it names and its reason.
    pub fn refusals(&self) -> Result<Vec<&Event>> {
        Ok(self.events()?.iter().filter(|event| event.kind == "refusal").collect())
    }

    /// An error unless a refusal to this far end is on record with this reason.
    pub fn expect_refusal(&self, remote: SocketAddr, reason: &str) -> Result<()> {
        let refusals = self.refusals()?;
        let found = refusals.iter().any(|event| event.remote() == Some(remote) && event.reason == reason);
        ensure!(found, "no refusal to {remote} because of `{reason}` in {refusals:#?}");
        Ok(())
    }

    /// An error with all that is known unless it ended with success.
    pub fn expect_success(&self) -> Result<()> {
        self.finished.expect_success()
    }

    /// The reports of `probe`.
    pub fn reports(&self) -> Result<Vec<Report>> {
        probe::reports(&self.finished.stdout)
    }

    /// The report of the only action.
    pub fn report(&self) -> Result<Report> {
        let [report] = self.reports()?.try_into().map_err(|reports| anyhow!("not one report: {reports:?}"))?;
        Ok(report)
    }
}

fn records(directory: &Path) -> Result<Vec<Record>> {
    let path = directory.join("events.jsonl");
    let text = fs::read_to_string(&path).with_context(|| format!("read `{}`", path.display()))?;
    record::read(&text)
}
