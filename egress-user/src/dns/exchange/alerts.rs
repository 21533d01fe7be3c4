//! Alerts about questions: one for each workload and reason, while it lasts.

use std::collections::BTreeMap;

use super::{Moment, client::Refused};
use crate::{dns::question::Asker, flow::Alert};

/// Seconds without another one after which it is over, and the next is told again: as long as the budget looks back for
/// questions.
const QUIET_SECONDS: u64 = 60;

/// What is going on. There are as many as workloads and kinds of budgets.
#[derive(Debug, Default)]
pub(super) struct Alerts {
    last: BTreeMap<(u32, &'static str), u64>,
}

impl Alerts {
    /// The alert, unless it has been told and is not over.
    pub(super) fn warn(&mut self, asker: &Asker, refused: &Refused, now: Moment) -> Option<Box<Alert>> {
        let is_known = self.last.insert((asker.workload, refused.reason), now.second).is_some();
        (!is_known).then(|| {
            Box::new(Alert {
                time: now.wall,
                detector: "dns_budget",
                reason: refused.reason,
                asker: asker.clone(),
                message: refused.message.clone(),
            })
        })
    }

    /// Forgets what is over.
    pub(super) fn expire(&mut self, now: u64) {
        self.last.retain(|_, last| now < last.saturating_add(QUIET_SECONDS));
    }
}
