//! Waiting until a descriptor can be read.

use std::os::fd::{AsFd, OwnedFd};

use anyhow::Context as _;
use tokio::io::{Interest, unix::AsyncFd};

/// A second handle on an open file, which tells when there is something to read.
#[derive(Debug)]
pub(super) struct Readable(AsyncFd<OwnedFd>);

impl Readable {
    /// Watches the file that `descriptor` is a handle on.
    pub(super) fn watch(descriptor: &impl AsFd) -> anyhow::Result<Self> {
        let own = descriptor.as_fd().try_clone_to_owned().context("duplicate a descriptor")?;
        register(own).context("watch a descriptor").map(Self)
    }

    /// Returns when something has come since the last time. Whoever waits has read everything before.
    pub(super) async fn wait(&self) -> anyhow::Result<()> {
        self.0.readable().await.context("wait for a descriptor")?.clear_ready();
        Ok(())
    }
}

#[expect(unsafe_code, reason = "tokio leaves it to its caller that the descriptor stays open")]
fn register(own: OwnedFd) -> std::io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` always returns the same descriptor, and keeps it open until it is dropped, which the
    // `AsyncFd` that owns it does after it has taken it off the list.
    unsafe { AsyncFd::register_with_interest(own, Interest::READABLE) }.map_err(std::io::Error::from)
}
