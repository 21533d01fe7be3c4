//! `egress`: a transparent egress firewall for subagents and any Linux workload.
//!
//! `ARCHITECTURE.md` tells how the modules fit together.

pub mod cgroup;
pub mod cli;
pub mod commands;
pub mod compile;
pub mod dns;
pub mod engine;
pub mod flow;
pub mod kernel;
pub mod policy;
pub mod probe;
pub mod runs;
#[cfg(feature = "testing")]
pub mod testing;
