//! `cargo xtask bench`: measurements that compare. They themselves are a binary of the package `egress-tests`.

use std::{env, path::PathBuf};

use anyhow::Context as _;

use crate::{
    build::{self, Profile},
    command::run as run_command,
    privilege::Privilege,
    setup,
};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Bench {
    /// How long a cached answer takes through `egress`, beside dnsmasq, unbound and the name server itself
    Dns(Args),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A quarter of a minute instead of a whole one
    #[arg(long)]
    quick: bool,
    /// Write everything that was measured to this file too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub(crate) fn run(bench: &Bench) -> anyhow::Result<()> {
    let Bench::Dns(Args { quick, json }) = bench;
    let mut measure = Privilege::of_this_process().command("env").context(
        "the measurements make network namespaces, which needs root: call this as root, or call `sudo -v` first",
    )?;
    setup::everything()?;
    let egress = build::egress(Profile::Release)?;
    let bench = build::binary("egress-tests", "bench", Profile::Release)?;
    measure.arg(format!("EGRESS_BIN={}", egress.display())).arg(bench).arg("dns");
    if *quick {
        measure.arg("--quick");
    }
    if let Some(json) = json {
        // The command runs elsewhere.
        measure.arg("--json").arg(env::current_dir().context("find the current folder")?.join(json));
    }
    run_command(&mut measure)
}
