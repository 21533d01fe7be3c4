//! Names and their addresses: what is known (`cache`, pure), how workloads ask (`proxy`, a shell) and how name servers
//! are asked (`upstream`, a shell).

pub mod cache;
pub mod proxy;
pub mod question;
pub mod upstream;
