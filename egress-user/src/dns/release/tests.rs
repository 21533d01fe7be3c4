//! Answers of well-meaning and of hostile name servers, and what is left of them.

use std::net::Ipv4Addr;

use hickory_resolver::proto::rr::rdata::{
    A, AAAA, CNAME, HTTPS, SVCB, TXT,
    svcb::{Alpn, EchConfigList, IpHint, Mandatory, SvcParamKey, SvcParamValue},
};
use proptest::{collection::vec, prelude::*, sample::select};

use super::*;
use crate::policy::{DomainName, parse};

const RULES: &str = "allow: [www.example.com, '*.cdn.example', {network: 10.20.0.0/16, ports: [443]}]";

#[test]
fn only_the_chain_from_the_asked_name_is_released_in_its_order() {
    let records = [
        address("edge.cdn.example.", 300, "192.88.98.1"),
        address("www.example.com.", 300, "192.88.98.66"),
        alias("www.cdn.example.", 20, "edge.cdn.example."),
        alias("WWW.example.com.", 600, "www.cdn.example."),
        address("other.example.", 300, "192.88.98.67"),
        address("EDGE.cdn.example.", 100, "192.88.98.2"),
        address("edge.cdn.example.", 100, "192.88.98.2"),
        address("edge.cdn.example.", 100, "2600::1"),
        Record::from_rdata(name("edge.cdn.example."), 1, RData::TXT(TXT::new(vec!["data".to_owned()]))),
    ];
    let release = of(RecordType::A, &records);
    assert_eq!(release.aliases, ["www.cdn.example", "edge.cdn.example"]);
    assert_eq!(
        release.addresses,
        [("192.88.98.1".parse().unwrap(), 20), ("192.88.98.2".parse().unwrap(), 20)],
        "each with the least TTL on the way"
    );
    assert_eq!(
        spelled(&release),
        [
            "WWW.example.com. 20 CNAME www.cdn.example.",
            "www.cdn.example. 20 CNAME edge.cdn.example.",
            "edge.cdn.example. 20 A 192.88.98.1",
            "EDGE.cdn.example. 20 A 192.88.98.2",
        ]
    );
    let of_aliases = of(RecordType::CNAME, &records);
    assert_eq!(spelled(&of_aliases), ["WWW.example.com. 600 CNAME www.cdn.example."]);
    assert_eq!(of_aliases.ttl, 600);
}

#[test]
fn chains_end() {
    for links in [1, 8, 16, CHAIN_MAX - 1, CHAIN_MAX, CHAIN_MAX + 1, 500] {
        let owner =
            |index: usize| if index == 0 { "www.example.com.".to_owned() } else { format!("n{index}.example.") };
        let mut records: Vec<Record> =
            (0..links).rev().map(|index| alias(&owner(index), 60, &owner(index + 1))).collect();
        records.insert(0, address(&owner(links), 60, "192.88.98.1"));
        let release = of(RecordType::A, &records);
        assert_eq!(release.addresses.len(), usize::from(links < CHAIN_MAX), "{links} links");
        assert_eq!(release.aliases.len(), links.min(CHAIN_MAX), "{links} links");
    }
    let tail = [alias("www.example.com.", 60, "a.example."), alias("a.example.", 60, "www.example.com.")];
    assert_eq!(of(RecordType::A, &tail).addresses, []);
    let own = [alias("www.example.com.", 60, "www.example.com.")];
    assert_eq!(of(RecordType::AAAA, &own).addresses, []);
}

#[test]
fn addresses_of_special_networks_are_withheld_unless_a_rule_opens_them() {
    for (text, reason) in [
        ("192.88.98.1", None),
        ("10.20.3.4", None),
        ("10.21.3.4", Some(Reason::SpecialPurpose)),
        ("127.0.0.1", Some(Reason::SpecialPurpose)),
        ("169.254.169.254", Some(Reason::SpecialPurpose)),
        ("0.0.0.0", Some(Reason::SpecialPurpose)),
        ("::ffff:10.20.3.4", None),
        ("::ffff:169.254.169.254", Some(Reason::SpecialPurpose)),
        ("64:ff9b::a9fe:a9fe", Some(Reason::SpecialPurpose)),
        ("fd00:ec2::254", Some(Reason::SpecialPurpose)),
        ("::1", Some(Reason::SpecialPurpose)),
    ] {
        let ip: IpAddr = text.parse().unwrap();
        let kind = if ip.is_ipv4() { RecordType::A } else { RecordType::AAAA };
        let records = [address("www.example.com.", 60, text)];
        let release = of(kind, &records);
        let address = ip.to_canonical();
        let expected: Vec<Withheld> = reason.map(|reason| Withheld { address, reason }).into_iter().collect();
        assert_eq!(release.withheld, expected, "{text}");
        assert_eq!(release.is_withheld(), reason.is_some(), "{text}");
        assert_eq!(release.records.len(), usize::from(reason.is_none()), "{text}");
        assert_eq!(release.addresses.len(), usize::from(reason.is_none()), "{text}");
        assert!(release.addresses.iter().all(|(found, _)| *found == address), "{text}");
        assert!(release.exists, "{text}");

        let audited = released(&format!("mode: audit\n{RULES}"), kind, &records);
        assert_eq!((audited.withheld, audited.records.len()), (expected, 1), "{text}");
        assert_eq!(audited.addresses, release.addresses, "{text}");
    }
    let mixed = [address("www.example.com.", 60, "10.0.0.1"), address("www.example.com.", 60, "192.88.98.1")];
    let release = of(RecordType::A, &mixed);
    assert_eq!((release.addresses.len(), release.withheld.len(), release.is_withheld()), (1, 1, false));
    assert_eq!(release.withheld[0].to_string(), "10.0.0.1 (private use, RFC 1918)");
    assert_eq!(released(&format!("tier: internal\n{RULES}"), RecordType::A, &mixed).addresses, []);
}

#[test]
fn a_thousand_addresses_are_released_and_what_is_withheld_is_told_in_short() {
    let many: Vec<Record> = (0..1000)
        .map(|index| address("www.example.com.", 60, &Ipv4Addr::from(0xc629_0000 + index).to_string()))
        .collect();
    assert_eq!(of(RecordType::A, &many).addresses.len(), 1000);
    let private: Vec<Record> = (0..1000)
        .map(|index| address("www.example.com.", 60, &Ipv4Addr::from(0x0a00_0000 + index).to_string()))
        .collect();
    assert_eq!(of(RecordType::A, &private).withheld.len(), WITHHELD_MAX);
}

#[test]
fn ttls_have_a_floor_and_a_ceiling() {
    for (ttl, floor, expected) in [
        (0, "1s", 1),
        (0, "0s", 0),
        (5, "1m", 60),
        (90, "1m", 90),
        (u32::MAX, "1s", 1),
        (i32::MAX.unsigned_abs(), "1s", TTL_SECONDS_MAX),
    ] {
        let rules = format!("{RULES}\ndns: {{ttl_floor: {floor}}}");
        let release = released(&rules, RecordType::A, &[address("www.example.com.", ttl, "192.88.98.1")]);
        assert_eq!((release.ttl, release.addresses[0].1, release.records[0].ttl), (expected, expected, expected));
    }
}

#[test]
fn what_is_not_there_is_kept_for_a_short_time() {
    let chain = [alias("www.example.com.", 60, "gone.example.")];
    for (exists, records, negative_ttl, expected) in [
        (false, &[][..], 900, NEGATIVE_TTL_SECONDS_MAX),
        (true, &[], 30, 30),
        (true, &[], 0, 1),
        (false, &chain, 900, 60),
        (true, &chain, 5, 5),
    ] {
        let answer = Answer { exists, records: records.to_vec(), negative_ttl };
        let release = release(&policy(RULES), &asked(RecordType::A), &answer);
        assert_eq!((release.exists, release.ttl), (exists, expected), "{exists} {records:?} {negative_ttl}");
        assert_eq!(release.records.len(), records.len());
    }
}

#[test]
fn services_are_released_without_what_leads_around_the_policy() {
    let alpn = || (SvcParamKey::Alpn, SvcParamValue::Alpn(Alpn(vec!["h2".to_owned()])));
    let mandatory = |key| (SvcParamKey::Mandatory, SvcParamValue::Mandatory(Mandatory(vec![key])));
    let hints = || {
        let v4 = SvcParamValue::Ipv4Hint(IpHint(vec![A::new(127, 0, 0, 1)]));
        let v6 = SvcParamValue::Ipv6Hint(IpHint(vec![AAAA::new(0, 0, 0, 0, 0, 0, 0, 1)]));
        let ech = SvcParamValue::EchConfigList(EchConfigList(vec![1, 2, 3]));
        [(SvcParamKey::Ipv4Hint, v4), (SvcParamKey::EchConfigList, ech), (SvcParamKey::Ipv6Hint, v6)]
    };
    let with = |before: Vec<_>| before.into_iter().chain(hints()).collect::<Vec<_>>();
    for (target, params, expected) in [
        (".", with(vec![alpn()]), Some(vec![alpn()])),
        ("www.example.com.", with(vec![]), Some(vec![])),
        ("a.cdn.example.", vec![alpn()], Some(vec![alpn()])),
        (".", with(vec![mandatory(SvcParamKey::Alpn), alpn()]), Some(vec![mandatory(SvcParamKey::Alpn), alpn()])),
        (".", with(vec![mandatory(SvcParamKey::EchConfigList), alpn()]), None),
        (".", with(vec![mandatory(SvcParamKey::Ipv4Hint)]), None),
        ("cdn.example.", vec![alpn()], None),
        ("evil.example.", vec![alpn()], None),
    ] {
        let service = |params| SVCB::new(1, name(target), params);
        let record = |data| Record::from_rdata(name("www.example.com."), 60, data);
        let records = [record(RData::HTTPS(HTTPS(service(params.clone())))), record(RData::SVCB(service(params)))];
        let https = expected.clone().map(|params| record(RData::HTTPS(HTTPS(service(params)))));
        assert_eq!(of(RecordType::HTTPS, &records).records, https.into_iter().collect::<Vec<_>>(), "{target}");
        let svcb = expected.map(|params| record(RData::SVCB(service(params))));
        assert_eq!(of(RecordType::SVCB, &records).records, svcb.into_iter().collect::<Vec<_>>(), "{target}");
    }
}

proptest! {
    #[test]
    fn nothing_is_released_that_is_not_on_the_chain_or_may_not_be_handed_out(
        records in vec(records(), 0..24), kind in select(vec![RecordType::A, RecordType::AAAA, RecordType::CNAME]),
    ) {
        let policy = policy(RULES);
        let release = of(kind, &records);
        let mut on_chain = vec![name("www.example.com.")];
        for record in &release.records {
            prop_assert!(on_chain.last() == Some(&record.name), "{release:?}");
            if let RData::CNAME(target) = &record.data {
                on_chain.push(target.0.clone());
            }
        }
        let opened: BTreeSet<IpAddr> =
            release.records.iter().filter_map(|record| Some(record.data.ip_addr()?.to_canonical())).collect();
        prop_assert_eq!(&opened, &release.addresses.iter().map(|(address, _)| *address).collect());
        prop_assert!(opened.iter().all(|address| policy.may_hand_out(*address).is_ok()));
    }
}

fn records() -> impl Strategy<Value = Record> {
    let names =
        ["www.example.com.", "WWW.example.com.", "a.example.", "b.example.", "c.cdn.example.", "other.example."];
    let names = select(names.map(name).to_vec());
    let data = prop_oneof![
        names.clone().prop_map(|target| RData::CNAME(CNAME(target))),
        crate::testing::addresses().prop_map(RData::from),
    ];
    (names, any::<u32>(), data).prop_map(|(owner, ttl, data)| Record::from_rdata(owner, ttl, data))
}

fn policy(rest: &str) -> Policy {
    parse("test.yaml", format!("version: 1\nname: test\n{rest}\n").as_bytes()).unwrap()
}

fn asked(kind: RecordType) -> Asked {
    Asked { name: DomainName::parse("www.example.com").unwrap(), kind }
}

fn of(kind: RecordType, records: &[Record]) -> Release {
    released(RULES, kind, records)
}

fn released(rules: &str, kind: RecordType, records: &[Record]) -> Release {
    release(&policy(rules), &asked(kind), &Answer { exists: true, records: records.to_vec(), negative_ttl: 60 })
}

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn address(owner: &str, ttl: u32, address: &str) -> Record {
    Record::from_rdata(name(owner), ttl, RData::from(address.parse::<IpAddr>().unwrap()))
}

fn alias(owner: &str, ttl: u32, target: &str) -> Record {
    Record::from_rdata(name(owner), ttl, RData::CNAME(CNAME(name(target))))
}

fn spelled(release: &Release) -> Vec<String> {
    let records = release.records.iter();
    records.map(|record| format!("{} {} {} {}", record.name, record.ttl, record.record_type(), record.data)).collect()
}
