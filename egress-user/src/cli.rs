//! The command line: which subcommands there are, and how their outcome becomes an exit code.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::commands::{self, Failure};

/// A transparent egress firewall for subagents and any Linux workload.
#[derive(Debug, Parser)]
#[command(name = "egress", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(commands::run::Args),
    Policy(commands::policy::Args),
    Explain(commands::explain::Args),
    Doctor(commands::doctor::Args),
    Detach(commands::detach::Args),
}

/// Parses the arguments of the process, runs the command and returns its exit code.
pub fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Run(args) => commands::run::run(args),
        Command::Policy(args) => commands::policy::run(args),
        Command::Explain(args) => commands::explain::run(args),
        Command::Doctor(args) => commands::doctor::run(args),
        Command::Detach(args) => commands::detach::run(args),
    };
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(Failure { code, error }) => {
            commands::print_error(&error);
            ExitCode::from(code)
        }
    }
}
