//! The kernel's events.

use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};

use aya::maps::{MapData, RingBuf};
use egress_common::{event::Event, limits::RING_BYTES};

/// Events that one read takes: as many as the ring holds. A flood that comes faster than it is read would never let go.
const READ_MAX: usize = RING_BYTES as usize / size_of::<Event>();

/// The reading end of the ring buffer.
pub struct Events {
    ring: RingBuf<MapData>,
}

impl Events {
    pub(super) fn new(ring: RingBuf<MapData>) -> Self {
        Self { ring }
    }

    /// Hands the events that are there to `receive`, oldest first.
    ///
    /// A refusal makes the descriptor readable; other events wait for the next read, so a reader also comes by itself
    /// every few milliseconds.
    pub fn drain(&mut self, mut receive: impl FnMut(&Event)) {
        for _ in 0..READ_MAX {
            let Some(item) = self.ring.next() else { break };
            // Both halves are built together, so every record has this size; the ring aligns records to 8 bytes.
            if let Ok(event) = bytemuck::try_from_bytes(&item) {
                receive(event);
            }
        }
    }
}

impl AsFd for Events {
    #[expect(unsafe_code, reason = "the ring buffer gives only its number")]
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the ring buffer owns the descriptor and lives as long as the borrow.
        unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) }
    }
}
