//! Development tasks. `cargo xtask --help` lists them.
#![expect(clippy::print_stderr, reason = "the tasks speak to the person who calls them")]

mod bench;
mod build;
mod check;
mod command;
mod demo;
mod fuzz;
mod packages;
mod privilege;
mod setup;
mod test;
mod toolchain;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Development tasks of egress.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Install what is missing to build, test and show egress; the second time there is nothing to do
    Setup,
    /// Build `egress`
    Build(build::Args),
    /// Formatting, lints, documentation and the size of files
    Check,
    /// Every test: unit, property, snapshot, program and kernel tests
    Test(test::Args),
    /// Show `egress run` on real traffic between network namespaces of this machine
    Demo,
    /// Measure, beside others and on this machine
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Look for input that the parsers cannot bear, with libFuzzer
    Fuzz(fuzz::Args),
    /// What has to pass before a change goes in: `check`, then `test`
    Ci,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().task {
        Task::Setup => setup::everything(),
        Task::Build(args) => build::run(args),
        Task::Check => check::run(),
        Task::Test(args) => test::run(&args),
        Task::Demo => demo::run(),
        Task::Bench(bench) => bench::run(&bench),
        Task::Fuzz(args) => fuzz::run(&args),
        Task::Ci => check::run().and_then(|()| test::run(&test::Args::default())),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
