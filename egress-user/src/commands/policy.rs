//! `egress policy`: look at policy files without enforcing anything.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow};

use super::Failure;
use crate::{
    compile::compile,
    policy::{self, FILE_BYTES_MAX, Known, Policy, Problems},
};

/// Check, show and describe policy files.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Report every problem of policy files; exit code 2 if there is one.
    Check {
        /// Policy files.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Print a policy as it was understood, with ports and defaults spelled out.
    Show {
        /// Policy file.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Print the JSON Schema of policy files, for editors.
    Schema,
}

/// Runs the command and returns its exit code.
pub fn run(args: Args) -> Result<u8, Failure> {
    match args.command {
        Command::Check { files } => check(&files),
        Command::Show { file } => print(&policy::show(&load(&file)?)),
        Command::Schema => print(&policy::schema()),
    }
}

/// Reads a policy file. Whatever is wrong with it is wrong usage, and all of it is in the error.
pub fn load(path: &Path) -> Result<Policy, Failure> {
    parse(path).map_err(|error| {
        if error.is::<Problems>() {
            // Each problem has a line of its own, which begins with its place.
            Failure::new(super::USAGE, anyhow!("the policy has problems\n{error}"))
        } else {
            Failure::new(super::USAGE, error)
        }
    })
}

fn parse(path: &Path) -> anyhow::Result<Policy> {
    let policy = policy::parse(&path.display().to_string(), &read(path)?)?;
    compile(&policy, &Known::default()).with_context(|| format!("compile `{}`", path.display()))?;
    Ok(policy)
}

/// Reads as much of a file as a policy can have.
fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let file = File::open(path).with_context(|| format!("open policy `{}`", path.display()))?;
    let mut bytes = Vec::new();
    let most = u64::try_from(FILE_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
    file.take(most).read_to_end(&mut bytes).with_context(|| format!("read policy `{}`", path.display()))?;
    Ok(bytes)
}

fn check(files: &[PathBuf]) -> Result<u8, Failure> {
    let mut code = super::OK;
    for file in files {
        match parse(file) {
            Ok(_) => {
                print(&format!("{}: ok\n", file.display()))?;
            }
            Err(error) => {
                let written = writeln!(std::io::stderr().lock(), "{error:#}");
                drop(written);
                code = super::USAGE;
            }
        }
    }
    Ok(code)
}

/// Writes a whole answer to stdout.
pub(super) fn print(text: &str) -> Result<u8, Failure> {
    let mut stdout = std::io::stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    match written {
        Ok(()) => Ok(super::OK),
        // Whoever read the answer has seen enough of it.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(super::OK),
        Err(error) => Err(Failure::from(anyhow!(error).context("write to stdout"))),
    }
}
