//! Names and their addresses: what is known (`cache`), what clients ask (`message`) and what they may hear (`release`),
//! all pure; and how name servers are asked (`resolver`, a shell).

pub mod cache;
pub mod message;
pub mod question;
pub mod release;
pub mod resolver;
