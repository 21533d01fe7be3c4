//! `egress detach`.

use super::Failure;

/// detach.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command and returns its exit code.
pub fn run(_args: Args) -> Result<u8, Failure> {
    Ok(super::OK)
}
