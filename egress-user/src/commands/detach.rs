//! `egress detach`.

use super::{FAILED, Failure, OK, print_error};
use crate::runs;

/// Removes what runs that were killed have left behind: processes, cgroups, programs, maps and files.
///
/// Until then what they left running stays governed. `egress doctor` lists such runs. A run that is alive is not touched.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Ids of runs; without any, every run that is dead
    #[arg(value_name = "ID")]
    ids: Vec<String>,
}

/// Runs the command and returns its exit code.
pub fn run(args: Args) -> Result<u8, Failure> {
    let Args { mut ids } = args;
    if ids.is_empty() {
        ids = runs::list()?.into_iter().filter(|run| !run.alive).map(|run| run.id).collect();
    }
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
