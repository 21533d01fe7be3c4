//! The `egress` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    egress_user::cli::main()
}
