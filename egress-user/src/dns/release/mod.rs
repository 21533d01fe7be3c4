//! What of a name server's answer a workload gets to see, and which addresses it opens.
//!
//! Name servers are trusted no more than what they say: only the chain of CNAMEs from the name that was asked for counts,
//! only the type that was asked for, and no address that the policy's networks have to open.

mod service;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

use egress_common::Reason;
use hickory_resolver::proto::rr::{DNSClass, Name, RData, Record, RecordData as _};

use super::{
    name,
    question::{Answer, Asked},
};
use crate::policy::{Mode, Policy, RecordType, special};

/// Records that are taken from one answer. A message of 65,535 bytes has no more, at 16 bytes for an IPv4 address; what an
/// answer has beyond is left out, so it opens nothing.
pub const RECORDS_MAX: usize = 4096;

/// CNAMEs that are followed from one name. Resolvers give up earlier (BIND after 16); at the end of a longer chain there is
/// nothing.
pub const CHAIN_MAX: usize = 32;

/// Withheld addresses of one answer that are told of. Of more, the first ones say enough.
pub const WITHHELD_MAX: usize = 16;

/// Seconds for which an answer may be kept. Longer TTLs are mistakes or worse: what is kept cannot be corrected.
pub const TTL_SECONDS_MAX: u32 = 86_400;

/// Seconds for which "there is nothing" may be kept, so that a name that comes to be is soon found.
pub const NEGATIVE_TTL_SECONDS_MAX: u32 = 300;

/// What is released of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// Whether the name exists.
    pub exists: bool,
    /// The records, first the chain of CNAMEs from the name that was asked for, in its order. All have the TTL of the
    /// whole, so that nobody keeps a part of it for longer than it counts.
    pub records: Vec<Record>,
    /// The addresses among them, each once and none IPv4-mapped, with the seconds for which they may be used.
    pub addresses: Vec<(IpAddr, u32)>,
    /// The names that the chain leads over, in its order, without the one that was asked for.
    pub aliases: Vec<String>,
    /// Seconds for which all of it may be kept.
    pub ttl: u32,
    /// Addresses that were taken out, or would have been but for `mode: audit`; [`WITHHELD_MAX`] of them at most.
    pub withheld: Vec<Withheld>,
}

/// An address that a workload does not get to see, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Withheld {
    /// The address, not IPv4-mapped.
    pub address: IpAddr,
    /// What speaks against it.
    pub reason: Reason,
}

impl Release {
    /// Whether there would be addresses, had they not all been withheld.
    pub fn is_withheld(&self) -> bool {
        !self.withheld.is_empty() && self.records.iter().all(|record| record.data.ip_addr().is_none())
    }
}

impl fmt::Display for Withheld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, reason } = self;
        match (reason, special::zone(*address)) {
            (Reason::SpecialPurpose, Some(zone)) => write!(f, "{address} ({}, {})", zone.name, zone.source),
            (reason, _) => write!(f, "{address} ({})", reason.name()),
        }
    }
}

/// Decides what is released of the name servers' answer.
pub fn release(policy: &Policy, asked: &Asked, answer: &Answer) -> Release {
    let taken = || answer.records.iter().take(RECORDS_MAX).filter(|record| record.dns_class == DNSClass::IN);
    let Chain { links, end } = follow(name::write(&asked.name), asked.kind, taken());
    let mut found = Found::default();
    for record in taken().filter(|record| end.as_ref() == Some(&record.name)) {
        found.add(policy, asked.kind, record);
    }
    let Found { records: data, addresses, withheld, ttl_least, .. } = found;

    let aliases = links.iter().filter_map(|link| Some(name::spell(target(link)?))).collect();
    let is_answered = !data.is_empty() || !withheld.is_empty() || asked.kind == RecordType::CNAME && !links.is_empty();
    let nothing_ttl = if is_answered { u32::MAX } else { answer.negative_ttl.min(NEGATIVE_TTL_SECONDS_MAX) };
    let ttl = links.iter().map(|link| ttl(link)).chain([ttl_least, nothing_ttl]).min().unwrap_or(0);
    let ttl_max = if is_answered { TTL_SECONDS_MAX } else { NEGATIVE_TTL_SECONDS_MAX };
    let ttl = ttl.max(policy.dns.ttl_floor_seconds).min(ttl_max);

    let mut records: Vec<Record> = links.into_iter().cloned().chain(data).collect();
    for record in &mut records {
        record.ttl = ttl;
    }
    Release {
        exists: answer.exists || is_answered,
        records,
        addresses: addresses.into_iter().map(|address| (address, ttl)).collect(),
        aliases,
        ttl,
        withheld: withheld.into_iter().take(WITHHELD_MAX).collect(),
    }
}

/// A chain of CNAMEs.
struct Chain<'a> {
    links: Vec<&'a Record>,
    /// The name whose records answer the question, if any may.
    end: Option<Name>,
}

/// Follows the CNAMEs from a name, whatever the order of the records. A question for CNAMEs is answered with the first.
fn follow<'a>(start: Option<Name>, kind: RecordType, records: impl Iterator<Item = &'a Record>) -> Chain<'a> {
    let mut next: BTreeMap<&Name, &Record> = BTreeMap::new();
    for record in records.filter(|record| target(record).is_some()) {
        next.entry(&record.name).or_insert(record);
    }
    let links_max = if kind == RecordType::CNAME { 1 } else { CHAIN_MAX };
    let mut chain = Chain { links: Vec::new(), end: start };
    // Each link is taken out, so a chain that bites its tail ends.
    while let Some(link) = chain.end.as_ref().and_then(|name| next.remove(name)) {
        chain.links.push(link);
        chain.end = target(link).filter(|_| chain.links.len() < links_max).cloned();
    }
    chain
}

/// What is found at the end of the chain.
struct Found {
    records: Vec<Record>,
    addresses: Vec<IpAddr>,
    withheld: BTreeSet<Withheld>,
    seen: BTreeSet<IpAddr>,
    ttl_least: u32,
}

impl Default for Found {
    fn default() -> Self {
        Self {
            records: Vec::new(),
            addresses: Vec::new(),
            withheld: BTreeSet::new(),
            seen: BTreeSet::new(),
            ttl_least: u32::MAX,
        }
    }
}

impl Found {
    fn add(&mut self, policy: &Policy, kind: RecordType, record: &Record) {
        if u16::from(record.record_type()) != kind.0 || record.data.is_update() {
            return;
        }
        let kept = match kind {
            RecordType::A | RecordType::AAAA => self.address(policy, record),
            RecordType::SVCB | RecordType::HTTPS => service::without_hints(policy, record),
            // It would have been followed.
            RecordType::CNAME => None,
            _ => Some(record.clone()),
        };
        if let Some(kept) = kept {
            self.ttl_least = self.ttl_least.min(ttl(record));
            self.records.push(kept);
        }
    }

    fn address(&mut self, policy: &Policy, record: &Record) -> Option<Record> {
        let address = record.data.ip_addr()?.to_canonical();
        if let Err(reason) = policy.may_hand_out(address) {
            self.withheld.insert(Withheld { address, reason });
            // Where nothing is refused, the answer stays whole, but the name still opens nothing.
            return match policy.mode {
                Mode::Enforce => None,
                Mode::Audit => Some(record.clone()),
            };
        }
        self.seen.insert(address).then(|| {
            self.addresses.push(address);
            record.clone()
        })
    }
}

fn target(record: &Record) -> Option<&Name> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the parser knows dozens of types")]
    match &record.data {
        RData::CNAME(target) => Some(&target.0),
        _ => None,
    }
}

/// The TTL of a record: with the highest bit, it is none (RFC 2181 section 8).
fn ttl(record: &Record) -> u32 {
    if i32::try_from(record.ttl).is_ok() { record.ttl } else { 0 }
}
