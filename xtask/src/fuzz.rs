//! `cargo xtask fuzz`: libFuzzer on the parsers, with the compiler that is here: no nightly, no `cargo-fuzz`.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, bail};

use crate::{
    command::{cargo, find_program, run as run_command, target_directory, workspace},
    packages, setup, toolchain,
};

/// What tells libFuzzer which branches an input took: as `cargo-fuzz` has it, without the sanitizers, which need a
/// nightly compiler and find little in code without `unsafe`.
const RUSTFLAGS: [&str; 7] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cdebug-assertions",
    "--cfg=fuzzing",
];

/// Seconds that one input may take. The targets take less than a millisecond; what takes seconds is a finding.
const INPUT_SECONDS_MAX: u32 = 5;

/// Memory of a target, in MiB. It stays below 200; what takes this much is a finding.
const MEMORY_MIB_MAX: u32 = 1024;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only this target
    #[arg(value_enum)]
    target: Option<Target>,
    /// Seconds for each target
    #[arg(long, default_value_t = 30)]
    seconds: u32,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
enum Target {
    /// A client's message: read, decided about, answered
    ClientMessage,
    /// A name server's answer: what is released of it
    NameServerAnswer,
    /// A policy file: read, shown, and read again
    PolicyFile,
}

impl Target {
    const ALL: [Self; 3] = [Self::ClientMessage, Self::NameServerAnswer, Self::PolicyFile];

    fn name(self) -> &'static str {
        match self {
            Self::ClientMessage => "client_message",
            Self::NameServerAnswer => "name_server_answer",
            Self::PolicyFile => "policy_file",
        }
    }

    /// Where its seeds are, in the workspace.
    fn seeds(self) -> &'static [&'static str] {
        match self {
            Self::ClientMessage => &["fuzz/corpus/client_message"],
            Self::NameServerAnswer => &["fuzz/corpus/name_server_answer"],
            Self::PolicyFile => &["policies", "policies/invalid"],
        }
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    if find_program("c++").is_none() {
        bail!("libFuzzer needs a C++ compiler, and there is no `c++`; {}", packages::install_command(&["g++"]));
    }
    setup::toolchain()?;
    let host = host()?;
    // The versions of what egress is built from, with what the targets need besides.
    let lock = workspace().join("Cargo.lock");
    fs::copy(&lock, workspace().join("fuzz/Cargo.lock")).with_context(|| format!("copy `{}`", lock.display()))?;
    let folder = target_directory()?.join("fuzz");
    let mut build = cargo("build");
    // With a target given, what runs while building is not built with these flags.
    build.args(["--release", "--manifest-path", "fuzz/Cargo.toml", "--target", &host, "--target-dir"]);
    run_command(build.arg(&folder).env("CARGO_ENCODED_RUSTFLAGS", RUSTFLAGS.join("\x1f")))?;

    let targets = args.target.map_or(Target::ALL.to_vec(), |target| vec![target]);
    // One after the other, and all of them: a finding in one says nothing of the others.
    let runs = targets.iter().map(|target| fuzz(*target, &folder, &host, args.seconds));
    let failures: Vec<String> = runs.filter_map(Result::err).map(|error| format!("{error:#}")).collect();
    if !failures.is_empty() {
        bail!("fuzzing found something; add the input to the seeds once it is mended\n  - {}", failures.join("\n  - "));
    }
    Ok(())
}

fn fuzz(target: Target, folder: &Path, host: &str, seconds: u32) -> anyhow::Result<()> {
    let name = target.name();
    // libFuzzer adds what it finds to the first of its folders.
    let (grown, findings) = (folder.join("corpus").join(name), folder.join("findings"));
    for folder in [&grown, &findings] {
        fs::create_dir_all(folder).with_context(|| format!("create `{}`", folder.display()))?;
    }
    let mut command = Command::new(folder.join(host).join("release").join(name));
    command.arg(format!("-max_total_time={seconds}"));
    command.arg(format!("-timeout={INPUT_SECONDS_MAX}"));
    command.arg(format!("-rss_limit_mb={MEMORY_MIB_MAX}"));
    command.arg(format!("-artifact_prefix={}/{name}-", findings.display()));
    command.arg(grown).args(target.seeds().iter().map(|seeds| workspace().join(seeds)));
    run_command(&mut command)
}

/// The machine's own target, as the compiler calls it.
fn host() -> anyhow::Result<String> {
    let version = toolchain::output(Command::new("rustc").arg("-vV")).map_err(anyhow::Error::msg)?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("`rustc -vV` names no host")
}
