//! The kernel half as the user half sees it: loading, attaching and pinning the programs, filling their maps, reading
//! their events. The only module that knows aya and bpf(2).

mod events;
mod governor;
mod maps;
mod names;
mod object;
mod pins;
pub mod preflight;
mod programs;
mod sys;

pub use events::Events;
pub use governor::{Governor, Sizes};
pub use names::network_namespace;
pub use pins::{BPFFS, remove_pins};

/// Slot of the policy that the self-probe runs under.
pub const PROBE_SLOT: u32 = 1;

/// First of the two slots that a workload's policies take turns in.
pub const POLICY_SLOT: u32 = 2;

/// The workload number of events that the self-probe makes.
pub const PROBE_WORKLOAD: u32 = 1;

/// The workload number of the governed command.
pub const RUN_WORKLOAD: u32 = 2;
