//! Names and their addresses: what is known (`cache`, pure) and how it is asked for (`resolver`, a shell).

pub mod cache;
pub mod question;
pub mod resolver;
