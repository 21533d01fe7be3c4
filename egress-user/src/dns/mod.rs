//! Names and their addresses: what is known (`cache`), what clients ask (`message`), what they may ask (`admission`,
//! `budget`) and hear (`release`), all pure; and how name servers are asked (`resolver`, a shell).

pub mod admission;
pub mod budget;
pub mod cache;
#[cfg(feature = "testing")]
pub mod invariants;
pub mod message;
mod name;
pub mod question;
pub mod release;
pub mod resolver;
