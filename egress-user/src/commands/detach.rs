//! `egress detach`.

use super::{FAILED, Failure, OK, print_error};
use crate::runs;

/// Removes what runs that were killed have left behind: processes, cgroups, programs, maps and files.
///
/// Until then what they left running stays governed. `egress doctor` lists such runs. A run that is alive is not touched.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub struct Args {
    /// Ids of runs
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    /// Every run that is dead
    #[arg(long)]
    all: bool,
}

/// Runs the command and returns its exit code.
pub fn run(args: Args) -> Result<u8, Failure> {
    let Args { ids, all } = args;
    let ids = if all { runs::list()?.into_iter().filter(|run| !run.alive).map(|run| run.id).collect() } else { ids };
    let mut code = OK;
    for id in ids {
        match runs::detach(&id) {
            Ok(()) => super::print_line(&format!("removed run {id}")),
            Err(error) => {
                print_error(&error);
                code = FAILED;
            }
        }
    }
    Ok(code)
}
