//! The only place of `egress run` that reads the clocks.

use anyhow::Context as _;
use jiff::Timestamp;
use nix::time::{ClockId, clock_gettime};

use crate::engine::Now;

/// Both clocks, one right after the other.
pub(super) fn now() -> anyhow::Result<Now> {
    let boot = clock_gettime(ClockId::CLOCK_BOOTTIME).context("read the clock")?;
    let wall = Timestamp::now();
    let (seconds, nanoseconds) = (u64::try_from(boot.tv_sec())?, u64::try_from(boot.tv_nsec())?);
    Ok(Now { boot_nanoseconds: seconds * 1_000_000_000 + nanoseconds, wall })
}
