//! The command line: which subcommands there are, and how their outcome becomes an exit code.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::{
    commands::{self, Failure},
    probe,
};

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
    #[command(name = probe::SUBCOMMAND, hide = true)]
    SelfProbe(commands::self_probe::Args),
}

/// Parses the arguments of the process, runs the command and returns its exit code.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    log();
    let outcome = match cli.command {
        Command::Run(args) => commands::run::run(args),
        Command::Policy(args) => commands::policy::run(args),
        Command::Explain(args) => commands::explain::run(args),
        Command::Doctor(args) => commands::doctor::run(args),
        Command::Detach(args) => commands::detach::run(args),
        Command::SelfProbe(args) => commands::self_probe::run(args),
    };
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(Failure { code, error }) => {
            commands::print_error(&error);
            ExitCode::from(code)
        }
    }
}

/// Sends logs to stderr: warnings of our own, or what `EGRESS_LOG` asks for, such as `debug`.
fn log() {
    let filter = EnvFilter::try_from_env("EGRESS_LOG").unwrap_or_else(|_unset| EnvFilter::new("egress_user=warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).without_time().init();
}

/// Prints what clap has to say: help, the version, or what is wrong with the arguments.
fn usage(error: &clap::Error) -> ExitCode {
    let printed = error.print();
    // Nobody is left to tell that stdout or stderr is closed.
    drop(printed);
    let is_run = std::env::args_os().nth(1).is_some_and(|command| command == "run");
    match (error.use_stderr(), is_run) {
        (false, _) => ExitCode::from(commands::OK),
        (true, true) => ExitCode::from(commands::run::OWN_FAILURE),
        (true, false) => ExitCode::from(commands::USAGE),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_says_what_each_command_does() {
        let mut command = Cli::command();
        // Values of the environment are those of whoever runs the tests.
        let mut help = |name: &str| {
            let found = command.find_subcommand_mut(name).unwrap().clone().hide_possible_values(true);
            found.mut_args(|arg| arg.hide_env_values(true)).term_width(100).render_long_help().to_string()
        };
        for name in ["run", "policy", "explain", "doctor", "detach"] {
            insta::assert_snapshot!(format!("help_{name}"), help(name));
        }
    }
}
