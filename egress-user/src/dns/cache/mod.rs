//! What is known about names: their addresses and how long each may be used, the answers to questions, and when to ask
//! again in advance.
//!
//! Seconds are those of `CLOCK_BOOTTIME`, which the kernel half compares expiries with.

pub mod addresses;
pub mod ahead;
pub mod answers;

pub use self::{
    addresses::{Addresses, Learned, Limit},
    ahead::{Ahead, News, Resolved},
    answers::{Answers, Found},
};

#[cfg(test)]
mod tests;
