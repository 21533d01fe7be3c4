//! Kernel events become flows, totals per destination and groups of refusals; answered questions become records.

pub mod advice;
pub mod alert;
pub mod flows;
pub mod lookup;
pub mod observation;
pub mod record;
pub mod refusals;

pub use alert::Alert;
pub use flows::{Destination, Flows, Total};
pub use lookup::Lookup;
pub use observation::{Observation, Traffic};
pub use refusals::{Refusal, Refusals, RefusedName};
