//! Questions that are on their way to name servers, and the clients that wait for each.

use std::collections::{BTreeMap, BTreeSet};

use super::client::Client;
use crate::dns::question::Asked;

/// Clients that wait at once. Of a kilobyte each, 4 MiB. A client beyond it is told at once that there is no answer.
pub(super) const WAITING_MAX: usize = 4096;

/// Clients of one workload that wait at once: a quarter, so that a flood from one leaves room for others. A browser that
/// starts with a hundred tabs has a few hundred.
pub(super) const WAITING_OF_WORKLOAD_MAX: usize = WAITING_MAX / 4;

/// Seconds after which an answer is given up, should nobody report that it failed. Clients have given up long before.
pub(super) const DEADLINE_SECONDS: u64 = 30;

/// What is on its way.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    pending: BTreeMap<Asked, Pending>,
    by_age: BTreeSet<(u64, Asked)>,
    of_workloads: BTreeMap<u32, usize>,
    count: usize,
}

/// A question that is on its way.
#[derive(Debug)]
pub(super) struct Pending {
    since: u64,
    /// Whether its answer opens addresses.
    pub(super) learns: bool,
    /// Who waits for it.
    pub(super) clients: Vec<Client>,
}

impl Waiting {
    /// Puts a question on its way, and says whether it was not there already.
    pub(super) fn ask(&mut self, asked: &Asked, learns: bool, now: u64) -> bool {
        if let Some(pending) = self.pending.get_mut(asked) {
            pending.learns |= learns;
            return false;
        }
        self.by_age.insert((now, asked.clone()));
        self.pending.insert(asked.clone(), Pending { since: now, learns, clients: Vec::new() });
        true
    }

    /// Lets a client wait for a question that is on its way.
    pub(super) fn join(&mut self, asked: &Asked, client: Client) {
        if let Some(pending) = self.pending.get_mut(asked) {
            *self.of_workloads.entry(client.asker.workload).or_default() += 1;
            self.count += 1;
            pending.clients.push(client);
        }
    }

    /// Whether the question is on its way.
    pub(super) fn is_asked(&self, asked: &Asked) -> bool {
        self.pending.contains_key(asked)
    }

    /// Why no client of the workload may wait, beside so many that have their answer and not their reply.
    pub(super) fn is_full(&self, workload: u32, others: usize) -> Option<&'static str> {
        if self.count + others >= WAITING_MAX {
            Some("too many questions are waiting for name servers")
        } else if self.of_workloads.get(&workload).is_some_and(|count| *count >= WAITING_OF_WORKLOAD_MAX) {
            Some("too many questions of this workload are waiting for name servers")
        } else {
            None
        }
    }

    /// Takes a question that is no longer on its way.
    pub(super) fn take(&mut self, asked: &Asked) -> Option<Pending> {
        let pending = self.pending.remove(asked)?;
        self.by_age.remove(&(pending.since, asked.clone()));
        self.count -= pending.clients.len();
        for client in &pending.clients {
            let workload = client.asker.workload;
            if let Some(count) = self.of_workloads.get_mut(&workload) {
                *count -= 1;
                if *count == 0 {
                    self.of_workloads.remove(&workload);
                }
            }
        }
        Some(pending)
    }

    /// Takes the questions that have been on their way for too long.
    pub(super) fn overdue(&mut self, now: u64) -> Vec<(Asked, Pending)> {
        let mut overdue = Vec::new();
        while let Some((since, asked)) = self.by_age.first()
            && since.saturating_add(DEADLINE_SECONDS) <= now
        {
            let asked = asked.clone();
            match self.take(&asked) {
                Some(pending) => overdue.push((asked, pending)),
                None => drop(self.by_age.pop_first()),
            }
        }
        overdue
    }
}
