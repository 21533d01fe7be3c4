//! How far an answer's chain of CNAMEs goes.

use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};

/// The name at which the chain from `name` ends, if there are no records of the type there.
pub(super) fn open_end(name: &Name, kind: RecordType, records: &[Record]) -> Option<Name> {
    if kind == RecordType::CNAME || kind == RecordType::ANY {
        return None;
    }
    let mut end = name;
    // A chain has at most as many links as there are records; one that bites its tail is not followed further.
    for _ in records {
        let next = records
            .iter()
            .filter(|record| record.name == *end)
            .find_map(|record| if let RData::CNAME(target) = &record.data { Some(&target.0) } else { None });
        match next {
            Some(target) => end = target,
            None if end == name || records.iter().any(|record| record.name == *end && record.record_type() == kind) => {
                return None;
            }
            None => return Some(end.clone()),
        }
    }
    // The last record was a link to a name that has none.
    let is_loop = records.iter().any(|record| record.name == *end);
    (end != name && !is_loop).then(|| end.clone())
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

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }
}
