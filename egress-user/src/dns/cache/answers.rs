//! Answers by what was asked, for as long as their TTL lasts.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use hickory_resolver::proto::{rr::Record, serialize::binary::BinEncodable as _};

use crate::dns::{question::Asked, release::Release};

/// Answers that are kept. A browser's day has a tenth of them. Beyond it the one that ends first goes, and is asked for
/// again.
pub const ANSWERS_MAX: usize = 16_384;

/// Bytes of all answers together, because the records of one can be long. Beyond it the one that ends first goes.
pub const ANSWERS_BYTES_MAX: usize = 32 << 20;

/// Seconds for which it is remembered that name servers gave no answer, so that dead ones are not asked over and over (RFC
/// 9520 section 3.2 has this least).
pub const FAILURE_SECONDS: u32 = 1;

/// What name servers answered to each question.
#[derive(Debug, Default)]
pub struct Answers {
    kept: BTreeMap<Asked, Kept>,
    ends: BTreeSet<(u64, Asked)>,
    bytes: usize,
}

#[derive(Debug)]
struct Kept {
    what: Result<Arc<Release>, String>,
    since: u64,
    until: u64,
    bytes: usize,
}

/// An answer as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// What is released, and the second in which it was fetched.
    Release(Arc<Release>, u64),
    /// Name servers gave no answer, for this reason.
    Failure(String),
}

impl Answers {
    /// The answer, if its time is not over.
    pub fn find(&self, asked: &Asked, now: u64) -> Option<Found> {
        let kept = self.kept.get(asked).filter(|kept| now < kept.until)?;
        Some(match &kept.what {
            Ok(release) => Found::Release(release.clone(), kept.since),
            Err(reason) => Found::Failure(reason.clone()),
        })
    }

    /// Keeps what is released of an answer that just came.
    pub fn keep(&mut self, asked: &Asked, release: Arc<Release>, now: u64) {
        let ttl = release.ttl;
        let bytes = release.records.iter().map(bytes_of).sum();
        self.put(asked, Kept { what: Ok(release), since: now, until: now.saturating_add(u64::from(ttl)), bytes });
    }

    /// Keeps that there was no answer.
    pub fn keep_failure(&mut self, asked: &Asked, reason: &str, now: u64) {
        // The second that has begun does not count.
        let until = now.saturating_add(u64::from(FAILURE_SECONDS) + 1);
        self.put(asked, Kept { what: Err(reason.to_owned()), since: now, until, bytes: reason.len() });
    }

    /// Forgets the answers whose time is over.
    pub fn expire(&mut self, now: u64) {
        while self.ends.first().is_some_and(|(end, _)| *end <= now) {
            self.forget_first();
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.kept.len()
    }

    fn put(&mut self, asked: &Asked, kept: Kept) {
        self.bytes += kept.bytes;
        self.ends.insert((kept.until, asked.clone()));
        let until = kept.until;
        if let Some(before) = self.kept.insert(asked.clone(), kept) {
            self.bytes -= before.bytes;
            if before.until != until {
                self.ends.remove(&(before.until, asked.clone()));
            }
        }
        while self.kept.len() > ANSWERS_MAX || self.bytes > ANSWERS_BYTES_MAX {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        if let Some((_, asked)) = self.ends.pop_first()
            && let Some(gone) = self.kept.remove(&asked)
        {
            self.bytes -= gone.bytes;
        }
    }
}

/// What a record costs: its place and about what its data has on the heap.
fn bytes_of(record: &Record) -> usize {
    // A record that came in a message has at most the bytes of one.
    size_of::<Record>() + record.to_bytes().map_or(usize::from(u16::MAX), |bytes| bytes.len())
}
