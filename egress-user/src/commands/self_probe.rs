//! `egress self-probe`, which `run` and `doctor` start in a cgroup to see what it can reach.

use std::net::SocketAddr;

use super::{Failure, OK};

/// Sends two datagrams to each address and prints the errno of each.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where to send
    #[arg(required = true, value_name = "ADDR:PORT")]
    addresses: Vec<SocketAddr>,
}

/// Runs the command and returns its exit code.
pub fn run(args: Args) -> Result<u8, Failure> {
    crate::probe::send_to(&args.addresses)?;
    Ok(OK)
}
