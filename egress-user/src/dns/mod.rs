//! Names and their addresses: what is known (`cache`), what clients ask (`message`), what they may ask (`admission`,
//! `budget`) and hear (`release`), and the way of a question through all of these (`exchange`), all pure; and the shells:
//! how clients reach us (`proxy`) and how name servers are asked (`upstream`).

pub mod admission;
pub mod budget;
pub mod cache;
pub mod exchange;
#[cfg(feature = "testing")]
pub mod invariants;
pub mod message;
mod name;
pub mod proxy;
pub mod question;
pub mod release;
#[cfg(test)]
pub(crate) mod testing;
pub mod upstream;
