//! Kernel events become flows, totals per destination and groups of refusals.

pub mod advice;
pub mod flows;
pub mod observation;
pub mod record;
pub mod refusals;

pub use flows::{Destination, Flows, Total};
pub use observation::{Observation, Traffic};
pub use refusals::{Refusal, Refusals};
