//! How far an answer's chain of CNAMEs goes.

use std::collections::BTreeMap;

use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};

use crate::dns::release::{CHAIN_MAX, RECORDS_MAX};

/// The name at which the chain from `name` ends, if there are no records of the type there. There is none to a chain that
/// is longer than is released.
pub(super) fn open_end(name: &Name, kind: RecordType, records: &[Record]) -> Option<Name> {
    if kind == RecordType::CNAME || kind == RecordType::ANY {
        return None;
    }
    // An answer has thousands of records, and looking through all of them for each link would take seconds.
    let mut next: BTreeMap<&Name, &Name> = BTreeMap::new();
    for record in records.iter().take(RECORDS_MAX) {
        if let RData::CNAME(target) = &record.data {
            next.entry(&record.name).or_insert(&target.0);
        }
    }
    let (mut end, mut links) = (name, 0);
    // Each link is taken out, so a chain that bites its tail ends.
    while let Some(target) = next.remove(end) {
        (end, links) = (target, links + 1);
    }
    let is_answer = |record: &Record| [kind, RecordType::CNAME].contains(&record.record_type());
    let is_closed = records.iter().any(|record| is_answer(record) && record.name == *end);
    (end != name && links <= CHAIN_MAX && !is_closed).then(|| end.clone())
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use hickory_resolver::proto::rr::rdata::CNAME;

    use super::*;

    #[test]
    fn a_chain_is_open_where_it_ends_without_records_of_the_type() {
        let alias = |owner, target| Record::from_rdata(name(owner), 60, RData::CNAME(CNAME(name(target))));
        let address = |owner| Record::from_rdata(name(owner), 60, RData::from(IpAddr::from([192, 0, 2, 1])));
        for (records, expected) in [
            (vec![], None),
            (vec![address("a.example.")], None),
            (vec![address("other.example.")], None),
            (vec![alias("a.example.", "b.example.")], Some("b.example.")),
            (vec![alias("A.Example.", "b.example."), address("B.Example.")], None),
            (vec![address("c.example."), alias("b.example.", "c.example."), alias("a.example.", "b.example.")], None),
            (vec![alias("b.example.", "c.example."), alias("a.example.", "b.example.")], Some("c.example.")),
            (vec![alias("a.example.", "b.example."), alias("b.example.", "a.example.")], None),
            (vec![alias("a.example.", "a.example.")], None),
            (vec![alias("x.example.", "y.example.")], None),
        ] {
            let found = open_end(&name("a.example."), RecordType::A, &records);
            assert_eq!(found, expected.map(name), "{records:?}");
        }
        assert_eq!(open_end(&name("a.example."), RecordType::CNAME, &[alias("a.example.", "b.example.")]), None);
    }

    #[test]
    fn a_chain_that_is_longer_than_what_is_released_is_not_followed() {
        for (links, expected) in [(CHAIN_MAX, true), (CHAIN_MAX + 1, false), (RECORDS_MAX, false)] {
            let link = |number: usize| {
                let target = name(&format!("n{}.example.", number + 1));
                Record::from_rdata(name(&format!("n{number}.example.")), 60, RData::CNAME(CNAME(target)))
            };
            let records: Vec<Record> = (0..links).rev().map(link).collect();
            let end = open_end(&name("n0.example."), RecordType::A, &records);
            assert_eq!(end, expected.then(|| name(&format!("n{links}.example."))), "{links}");
        }
    }

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }
}
