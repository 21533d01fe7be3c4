//! `cargo xtask demo`: shows `egress run` on real traffic. The show itself is a binary of the package `egress-tests`.

use anyhow::Context as _;

use crate::{
    build::{self, Profile},
    command::run as run_command,
    privilege::Privilege,
    setup,
};

pub(crate) fn run() -> anyhow::Result<()> {
    let mut show = Privilege::of_this_process()
        .command("env")
        .context("the demo makes network namespaces, which needs root: call this as root, or call `sudo -v` first")?;
    setup::everything()?;
    let egress = build::egress(Profile::Release)?;
    let demo = build::binary("egress-tests", "demo", Profile::Release)?;
    // The demo runs it, from the folder that they share.
    build::binary("egress-tests", "probe", Profile::Release)?;
    run_command(show.arg(format!("EGRESS_BIN={}", egress.display())).arg(demo))
}
