//! The names of an address that we handed out ourselves.

use hickory_resolver::proto::rr::{RData, Record, rdata::PTR};

use crate::{
    dns::{message::Question, name, release::Release},
    policy::DomainName,
};

/// Names in one answer: what fits in the smallest datagram with names of ordinary length. The others are left out.
const NAMES_MAX: usize = 8;

/// Seconds for which it may be kept: names come and go with each answer.
const TTL_SECONDS: u32 = 60;

/// The answer that has these names, if there are any.
pub(super) fn release<'a>(question: &Question, names: impl Iterator<Item = &'a DomainName>) -> Option<Release> {
    let owner = name::write(question.name()?)?;
    let records: Vec<Record> = names
        .take(NAMES_MAX)
        .filter_map(|known| Some(Record::from_rdata(owner.clone(), TTL_SECONDS, RData::PTR(PTR(name::write(known)?)))))
        .collect();
    (!records.is_empty()).then(|| Release {
        exists: true,
        records,
        addresses: Vec::new(),
        aliases: Vec::new(),
        ttl: TTL_SECONDS,
        withheld: Vec::new(),
    })
}
