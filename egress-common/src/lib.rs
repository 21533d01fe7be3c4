//! What the kernel half and the user half of `egress` share: the wire types of maps and events, and the one decision
//! function that both run.
#![no_std]

pub mod address;
pub mod decide;
pub mod entry;
pub mod event;
pub mod limits;
pub mod packet;
pub mod question;
pub mod verdict;

pub use address::{Address, Protocol};
pub use decide::{Decision, Lookup, decide};
pub use verdict::{Reason, Verdict};
