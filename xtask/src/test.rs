//! `cargo xtask test`: every test. Those of the package `egress-tests` load programs into the kernel, as root.

use std::process::Command;

use anyhow::bail;

use crate::{
    build::{self, Profile},
    command::{cargo, run as run_command},
    privilege::Privilege,
    setup,
};

const KERNEL_TESTS: &str = "egress-tests";

#[derive(Debug, Default, clap::Args)]
pub(crate) struct Args {
    /// Leave out the tests that need root and a kernel with eBPF
    #[arg(long)]
    no_kernel: bool,
    /// Only tests whose name contains this
    filter: Option<String>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let filter = args.filter.as_deref();
    if args.no_kernel {
        setup::toolchain()?;
        return run_command(&mut tests(["--workspace", "--exclude", KERNEL_TESTS], filter));
    }
    let privilege = Privilege::of_this_process();
    if privilege == Privilege::None {
        bail!(
            "the kernel tests need root: call this as root, or call `sudo -v` first.\n\
             `cargo xtask test --no-kernel` leaves them out"
        );
    }
    setup::everything()?;
    let egress = build::egress(Profile::Dev)?;
    if privilege == Privilege::Root {
        return run_command(tests(["--workspace"], filter).env("EGRESS_BIN", &egress));
    }
    // Only the test programs run as root, so that what cargo writes belongs to the person who called it.
    run_command(&mut tests(["--workspace", "--exclude", KERNEL_TESTS], filter))?;
    let runner = r#"target."cfg(unix)".runner=["sudo","-n","--preserve-env=EGRESS_BIN,INSTA_UPDATE,RUST_BACKTRACE"]"#;
    run_command(tests(["--package", KERNEL_TESTS, "--config", runner], filter).env("EGRESS_BIN", &egress))
}

/// A test run that goes on after a failure, so that its closing lines name every test that failed.
fn tests<const N: usize>(arguments: [&str; N], filter: Option<&str>) -> Command {
    let mut command = cargo("test");
    // A snapshot that differs fails; it is not written anew.
    command.args(["--no-fail-fast"]).args(arguments).args(filter).env("INSTA_UPDATE", "no");
    command
}
