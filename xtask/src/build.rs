//! `cargo xtask build`: the `egress` binary.

use std::path::PathBuf;

use crate::{
    command::{cargo, run as run_command, target_directory},
    setup,
};

#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Args {
    /// With optimisations, as it is installed
    #[arg(long)]
    release: bool,
}

/// How a binary is compiled, and so where cargo puts it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Profile {
    Dev,
    Release,
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    setup::toolchain()?;
    let egress = egress(if args.release { Profile::Release } else { Profile::Dev })?;
    eprintln!("built {}", egress.display());
    Ok(())
}

/// Builds `egress`; returns where it is.
pub(crate) fn egress(profile: Profile) -> anyhow::Result<PathBuf> {
    binary("egress-user", "egress", profile)
}

/// Builds a binary of a package of this workspace; returns where it is.
pub(crate) fn binary(package: &str, name: &str, profile: Profile) -> anyhow::Result<PathBuf> {
    let mut command = cargo("build");
    command.args(["--package", package, "--bin", name]);
    let folder = match profile {
        Profile::Dev => "debug",
        Profile::Release => {
            command.arg("--release");
            "release"
        }
    };
    run_command(&mut command)?;
    Ok(target_directory()?.join(folder).join(name))
}
