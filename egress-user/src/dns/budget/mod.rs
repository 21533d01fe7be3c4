//! What a workload may ask below wildcards: there, a name can carry data to whoever owns the zone.
//!
//! No measure of a name tells data from a name for certain, so the hard limits are those on questions and on different
//! names; that on names that look random only stops plain tunnels long before.

mod randomness;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use self::randomness::looks_random;
use crate::policy::{Budget, DomainName};

const MINUTE_SECONDS: u64 = 60;
const HOUR_SECONDS: u64 = 3600;

/// Different names of an hour from which on their share of random-looking ones is judged. Of fewer, a page or two with
/// generated names could be half; a tunnel gets a few kilobytes out with so many.
pub const NAMES_JUDGED_MIN: usize = 64;

/// The limit of a budget that is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OverBudget {
    /// Questions in a minute.
    Questions,
    /// Different names in an hour.
    Names,
    /// The share of names that look random.
    Random,
}

/// What one workload has asked below wildcards in the last hour. It grows to some 40 bytes for each of the names that the
/// budget allows in an hour.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Questions of each second of the last minute.
    questions: VecDeque<(u64, u32)>,
    names: Recent,
    /// Labels that look random: one for each name that brought a new one. A label that many names share, such as that of
    /// a tenant, carries nothing but once.
    random: Recent,
}

impl Ledger {
    /// Counts a question that is to go to a name server, unless it would exceed the budget; then it is not counted.
    pub fn charge(&mut self, budget: &Budget, name: &DomainName, now_seconds: u64) -> Result<(), OverBudget> {
        self.forget(now_seconds);
        let asked: u32 = self.questions.iter().map(|(_, count)| *count).fold(0, u32::saturating_add);
        if asked >= budget.questions_per_minute {
            return Err(OverBudget::Questions);
        }
        let name_hash = hash(name.as_str());
        let is_new = !self.names.has(name_hash);
        let names = self.names.len() + usize::from(is_new);
        if names > usize::try_from(budget.names_per_hour).unwrap_or(usize::MAX) {
            return Err(OverBudget::Names);
        }
        let labels = name.as_str().split('.').filter(|label| looks_random(label)).map(hash);
        let fresh = labels.into_iter().find(|label| is_new && !self.random.has(*label));
        if fresh.is_some() && names >= NAMES_JUDGED_MIN {
            let random = self.random.len() + 1;
            if random.saturating_mul(100) > names.saturating_mul(budget.random_percent.into()) {
                return Err(OverBudget::Random);
            }
        }
        match self.questions.back_mut() {
            Some((second, count)) if *second == now_seconds => *count = count.saturating_add(1),
            Some(_) | None => self.questions.push_back((now_seconds, 1)),
        }
        self.names.note(name_hash, now_seconds);
        if let Some(label) = fresh {
            self.random.note(label, now_seconds);
        }
        Ok(())
    }

    /// Forgets what is too long ago to count.
    pub fn forget(&mut self, now_seconds: u64) {
        while self.questions.front().is_some_and(|(second, _)| second.saturating_add(MINUTE_SECONDS) <= now_seconds) {
            self.questions.pop_front();
        }
        self.names.forget(now_seconds);
        self.random.forget(now_seconds);
    }

    /// Whether nothing counts any more, so that the ledger need not be kept.
    pub fn is_empty(&self) -> bool {
        self.questions.is_empty() && self.names.len() == 0
    }
}

/// What there was in the last hour, by its hash, and when it was last there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Recent {
    last: BTreeMap<u64, u64>,
    by_age: BTreeSet<(u64, u64)>,
}

impl Recent {
    fn has(&self, hash: u64) -> bool {
        self.last.contains_key(&hash)
    }

    fn len(&self) -> usize {
        self.last.len()
    }

    fn note(&mut self, hash: u64, now_seconds: u64) {
        if let Some(before) = self.last.insert(hash, now_seconds) {
            self.by_age.remove(&(before, hash));
        }
        self.by_age.insert((now_seconds, hash));
    }

    fn forget(&mut self, now_seconds: u64) {
        while let Some((second, hash)) = self.by_age.first().copied()
            && second.saturating_add(HOUR_SECONDS) <= now_seconds
        {
            self.by_age.pop_first();
            self.last.remove(&hash);
        }
    }
}

/// Whoever finds two names with one hash has them counted once, which is worth nothing.
fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}
