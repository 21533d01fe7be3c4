//! Names, their addresses and their answers over time.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use super::{
    addresses::BACKSTOP_SECONDS,
    ahead::AT_ONCE,
    answers::{ANSWERS_BYTES_MAX, ANSWERS_MAX},
    *,
};
use crate::{
    dns::{question::Asked, release::Release, testing},
    policy::{AddressLimits, Dns, DomainName, RecordType},
};

#[test]
fn an_address_that_is_gone_stays_until_its_grace_ends_and_one_that_is_answered_never_goes() {
    let mut addresses = addresses();
    addresses.learn(&name("a.example"), ip("192.0.2.1"), 10, 1000);
    for now in (1000..1400).step_by(10) {
        addresses.learn(&name("a.example"), ip("192.0.2.2"), 10, now);
        let gone = addresses.expire(now);
        assert_eq!(gone.contains(&ip("192.0.2.1")), now == 1320, "at {now}");
        assert_eq!(addresses.names_of(ip("192.0.2.2")).count(), 1, "at {now}");
    }
}

#[test]
fn the_kernel_forgets_an_address_later_than_this_process_does() {
    let mut addresses = addresses();
    addresses.learn(&name("a.example"), ip("192.0.2.1"), 10, 1000);
    assert_eq!(end(&addresses, "192.0.2.1"), Some(1000 + 10 + 301 + 60));
    assert_eq!(addresses.expire(1310), BTreeSet::new());
    assert_eq!(addresses.expire(1311), BTreeSet::from([ip("192.0.2.1")]));
    assert_eq!((addresses.total(), end(&addresses, "192.0.2.1")), (0, None));
}

#[test]
fn the_kernel_is_told_again_before_it_forgets_an_address_that_is_still_answered_and_not_at_every_answer() {
    let mut addresses = addresses();
    assert_eq!(addresses.learn(&name("a.example"), ip("192.0.2.1"), 5, 1000), Learned::Change);
    let mut told = 0;
    for now in (1005..2000).step_by(5) {
        if addresses.learn(&name("a.example"), ip("192.0.2.1"), 5, now) == Learned::Change {
            told += 1;
            addresses.tell(&BTreeSet::from([ip("192.0.2.1")]));
        }
        let forgotten_at = end(&addresses, "192.0.2.1").unwrap();
        assert!(u64::from(forgotten_at) > now + 5 + 300, "at {now}: the kernel forgets at {forgotten_at}");
        assert!(u64::from(forgotten_at) <= now + 5 + 301 + BACKSTOP_SECONDS, "at {now}: {forgotten_at}");
    }
    assert_eq!(told, 33, "every 30 s of 995");
}

#[test]
fn a_shorter_ttl_does_not_take_back_what_a_longer_one_gave() {
    let mut addresses = addresses();
    addresses.learn(&name("a.example"), ip("192.0.2.1"), 100, 1000);
    addresses.learn(&name("a.example"), ip("192.0.2.1"), 5, 1010);
    addresses.tell(&BTreeSet::from([ip("192.0.2.1")]));
    assert_eq!(end(&addresses, "192.0.2.1"), Some(1100 + 361));
}

#[test]
fn an_address_belongs_to_every_name_that_resolved_to_it_and_mapped_addresses_are_ipv4() {
    let mut addresses = addresses();
    addresses.learn(&name("b.example"), ip("192.0.2.1"), 60, 0);
    assert_eq!(addresses.learn(&name("a.example"), ip("::ffff:192.0.2.1"), 60, 0), Learned::Change);
    let names: Vec<_> = addresses.names_of(ip("::ffff:192.0.2.1")).collect();
    assert_eq!(names, [&name("a.example"), &name("b.example")]);
    assert_eq!(addresses.told_of(ip("192.0.2.1")).count(), 2);
}

#[test]
fn what_is_above_a_limit_is_not_added_and_is_news_once() {
    for (limits, limit) in [
        (AddressLimits { per_name: 2, total: 9 }, Limit::Name),
        (AddressLimits { per_name: 9, total: 2 }, Limit::Total),
    ] {
        let mut addresses = Addresses::new(&Dns { addresses: limits, ..Dns::default() });
        for last in 1..=2 {
            assert_eq!(addresses.learn(&name("a.example"), v4(last), 10, 0), Learned::Change, "{limits:?}");
        }
        for _ in 0..2 {
            assert_eq!(addresses.learn(&name("a.example"), v4(3), 10, 0), Learned::Full(limit), "{limits:?}");
        }
        assert!(addresses.is_news(&name("a.example"), limit) && !addresses.is_news(&name("a.example"), limit));
        assert_eq!(addresses.learn(&name("a.example"), v4(1), 10, 0), Learned::Nothing, "there is room for the known");
        assert_eq!(addresses.expire(311).len(), 2, "{limits:?}");
        assert_eq!(addresses.learn(&name("a.example"), v4(3), 10, 311), Learned::Change, "{limits:?}");
    }
}

#[test]
fn eight_of_thousands_of_addresses_at_a_time_lose_none_within_its_grace() {
    let mut addresses = addresses();
    for now in 0..2000_u32 {
        for index in 0..8 {
            let learned = addresses.learn(&name("s3.example"), v4((now * 8 + index) % 5000), 5, u64::from(now));
            assert!(!matches!(learned, Learned::Full(_)), "at {now}");
        }
        addresses.expire(u64::from(now));
        for before in now.saturating_sub(304)..=now {
            assert!(addresses.names_of(v4(before * 8 % 5000)).next().is_some(), "{before} at {now}");
        }
    }
    assert!(addresses.total() <= 307 * 8, "{}", addresses.total());
}

#[test]
fn an_answer_is_found_until_its_ttl_ends_with_the_second_of_its_birth() {
    let mut answers = Answers::default();
    let asked = testing::asked("a.example", RecordType::A);
    answers.keep(&asked, release(10), 1000);
    assert_eq!(answers.find(&asked, 1009), Some(Found::Release(release(10), 1000)));
    assert_eq!(answers.find(&testing::asked("a.example", RecordType::AAAA), 1009), None);
    assert_eq!(answers.find(&asked, 1010), None);
    answers.keep(&asked, release(0), 1010);
    assert_eq!(answers.find(&asked, 1010), None, "a TTL of 0 is not kept");
    answers.expire(1010);
    assert_eq!(answers.count(), 0);
}

#[test]
fn a_failure_is_kept_for_a_second_or_two() {
    let mut answers = Answers::default();
    let asked = testing::asked("a.example", RecordType::A);
    answers.keep_failure(&asked, "timed out", 1000);
    assert_eq!(answers.find(&asked, 1001), Some(Found::Failure("timed out".to_owned())));
    assert_eq!(answers.find(&asked, 1002), None);
}

#[test]
fn answers_are_bounded_in_number_and_in_bytes_and_the_one_that_ends_first_goes() {
    let mut answers = Answers::default();
    let question = |index: usize| testing::asked(&format!("n{index}.example"), RecordType::A);
    for index in 0..ANSWERS_MAX + 2 {
        answers.keep(&question(index), release(10 + u32::try_from(index).unwrap()), 0);
    }
    assert_eq!(answers.count(), ANSWERS_MAX);
    assert_eq!((answers.find(&question(1), 0), answers.find(&question(2), 0).is_some()), (None, true));

    let record = testing::address("a.example", 60, "192.0.2.1");
    let long = Release { records: vec![record; 4096], ..(*release(60)).clone() };
    for index in 0..200 {
        answers.keep(&question(index), Arc::new(long.clone()), 0);
    }
    let least = 4096 * size_of::<hickory_resolver::proto::rr::Record>();
    assert!(answers.count() < ANSWERS_BYTES_MAX / least + ANSWERS_MAX, "{}", answers.count());
    answers.expire(u64::MAX);
    assert_eq!(answers.count(), 0);
}

#[test]
fn both_families_of_a_name_are_asked_for_once_and_each_again_when_its_ttl_ends() {
    for (ttl, expected) in [(20, 1020), (0, 1001), (86_400, 87_400)] {
        let mut ahead = ahead(&["a.example"]);
        let both = [testing::asked("a.example", RecordType::A), testing::asked("a.example", RecordType::AAAA)];
        assert_eq!(ahead.due(1000), both);
        assert_eq!(ahead.due(2000), [], "the questions are on their way");
        assert_eq!(ahead.answer(&both[0], Resolved::Addresses(ttl), 1000), None);
        assert_eq!(ahead.due(expected - 1), [], "{ttl}");
        assert_eq!(ahead.due(expected), [both[0].clone()], "{ttl}");
    }
}

#[test]
fn a_name_that_fails_is_told_of_once_and_asked_for_at_growing_intervals() {
    let mut ahead = ahead(&["a.example"]);
    let both = ahead.due(0);
    assert_eq!(ahead.answer(&both[1], Resolved::Nothing(10_000, "it has no addresses"), 0), None);
    let mut now = 0;
    for (turn, wait) in [1, 2, 4, 8, 16, 32].into_iter().enumerate() {
        let news = ahead.answer(&both[0], Resolved::Fail("timed out".to_owned()), now);
        assert_eq!(news, (turn == 0).then(|| News::Fail("timed out".to_owned())), "turn {turn}");
        assert!(!ahead.due(now + wait - 1).contains(&both[0]), "turn {turn}");
        now += wait;
        assert!(ahead.due(now).contains(&both[0]), "turn {turn}");
    }
    assert_eq!(ahead.answer(&both[0], Resolved::Addresses(60), now), Some(News::Recover));
}

#[test]
fn only_so_many_names_are_asked_for_at_once_and_only_types_that_the_policy_has() {
    let names: Vec<String> = (0..100).map(|index| format!("n{index}.example")).collect();
    let names = names.iter().map(|text| name(text));
    let mut ahead = Ahead::new(names, &BTreeSet::from([RecordType::A, RecordType::HTTPS]));
    let due: Vec<Asked> = ahead.due(0);
    assert_eq!(due.len(), AT_ONCE);
    ahead.answer(&due[0], Resolved::Addresses(60), 0);
    assert_eq!(ahead.due(0).len(), 1);
    for asked in &due[1..] {
        ahead.answer(asked, Resolved::Addresses(60), 0);
    }
    assert_eq!(ahead.due(0).len(), 100 - AT_ONCE - 1);
}

fn addresses() -> Addresses {
    Addresses::new(&Dns::default())
}

fn ahead(names: &[&str]) -> Ahead {
    Ahead::new(names.iter().map(|text| name(text)), &Dns::default().types)
}

fn release(ttl: u32) -> Arc<Release> {
    Arc::new(Release {
        exists: true,
        records: Vec::new(),
        addresses: Vec::new(),
        aliases: Vec::new(),
        ttl,
        withheld: Vec::new(),
    })
}

fn end(addresses: &Addresses, address: &str) -> Option<u32> {
    addresses.told_of(ip(address)).map(|(_, end)| end).next()
}

fn name(text: &str) -> DomainName {
    DomainName::parse(text).unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn v4(index: u32) -> IpAddr {
    IpAddr::from((0x0800_0000 + index).to_be_bytes())
}
