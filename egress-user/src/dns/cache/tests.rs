//! Names and their addresses over time.

use super::*;

#[test]
fn an_address_that_is_gone_stays_until_its_grace_ends_and_one_that_is_answered_never_goes() {
    let mut cache = Cache::new([name("a.example")]);
    cache.answer(&name("a.example"), &answer(&[("192.0.2.1", 10), ("192.0.2.2", 10)]), 1000);
    for now in (1010..1400).step_by(10) {
        cache.answer(&name("a.example"), &answer(&[("192.0.2.2", 10)]), now);
        cache.expire(now);
        let expected = if now < 1310 { 2 } else { 1 };
        assert_eq!(addresses(&mut cache, "a.example").len(), expected, "at {now}");
        assert!(addresses(&mut cache, "a.example").contains_key(&ip("192.0.2.2")), "at {now}");
    }
}

#[test]
fn the_kernel_forgets_an_address_later_than_this_process_does() {
    let mut cache = Cache::new([name("a.example")]);
    cache.answer(&name("a.example"), &answer(&[("192.0.2.1", 10)]), 1000);
    assert_eq!(addresses(&mut cache, "a.example"), BTreeMap::from([(ip("192.0.2.1"), 1000 + 10 + 300 + 60)]));
    assert!(!cache.expire(1309));
    assert!(cache.expire(1310));
    assert_eq!((cache.tell(), cache.total()), (BTreeMap::new(), 0));
    assert_eq!(cache.names_of(ip("192.0.2.1")).count(), 0);
}

#[test]
fn the_kernel_is_told_again_before_it_forgets_an_address_that_is_still_answered_and_not_at_every_answer() {
    let mut cache = Cache::new([name("a.example")]);
    let first = cache.answer(&name("a.example"), &answer(&[("192.0.2.1", 5)]), 1000);
    assert!(first.addresses);
    let mut forgotten_at = addresses(&mut cache, "a.example").into_values().next().unwrap();
    let mut told = 0;
    for now in (1005..2000).step_by(5) {
        if cache.answer(&name("a.example"), &answer(&[("192.0.2.1", 5)]), now).addresses {
            told += 1;
            forgotten_at = addresses(&mut cache, "a.example").into_values().next().unwrap();
        }
        let removed_at = now + 5 + GRACE_SECONDS;
        assert!(u64::from(forgotten_at) > removed_at, "at {now}: the kernel forgets at {forgotten_at}");
    }
    assert_eq!(told, 33, "every 30 s of 995");
}

#[test]
fn a_shorter_ttl_does_not_take_back_what_a_longer_one_gave() {
    let mut cache = Cache::new([name("a.example")]);
    cache.answer(&name("a.example"), &answer(&[("192.0.2.1", 100)]), 1000);
    cache.answer(&name("a.example"), &answer(&[("192.0.2.1", 5)]), 1010);
    assert_eq!(addresses(&mut cache, "a.example"), BTreeMap::from([(ip("192.0.2.1"), 1100 + 360)]));
}

#[test]
fn a_name_is_asked_for_once_and_again_when_its_shortest_ttl_ends() {
    for (ttls, expected) in [(&[30, 20][..], 1020), (&[0], 1001), (&[86_400], 87_400)] {
        let mut cache = Cache::new([name("a.example")]);
        assert_eq!(cache.due(1000), [name("a.example")]);
        assert_eq!(cache.due(2000), [], "the question is on its way");
        let addresses = ttls.iter().enumerate().map(|(last, ttl)| (ip(&format!("192.0.2.{last}")), *ttl)).collect();
        cache.answer(&name("a.example"), &Answer { addresses, failure: None }, 1000);
        assert_eq!(cache.due(expected - 1), [], "{ttls:?}");
        assert_eq!(cache.due(expected), [name("a.example")], "{ttls:?}");
    }
}

#[test]
fn names_are_asked_for_before_their_time_at_most_once_a_second_and_only_if_they_resolve() {
    let mut cache = Cache::new([name("a.example"), name("b.example")]);
    cache.due(1000);
    assert!(!cache.hurry(1000), "questions are on their way");
    cache.answer(&name("a.example"), &answer(&[("192.0.2.1", 600)]), 1000);
    cache.answer(&name("b.example"), &failure("no such name"), 1000);
    cache.due(1001);
    cache.answer(&name("b.example"), &failure("no such name"), 1001);
    assert!(cache.hurry(1001));
    assert_eq!(cache.due(1001), [name("a.example")]);
    cache.answer(&name("a.example"), &answer(&[("192.0.2.1", 600)]), 1001);
    assert!(!cache.hurry(1001));
    assert!(cache.hurry(1002));
    assert_eq!(cache.due(1002), [name("a.example")]);
}

#[test]
fn stray_packets_do_not_set_off_a_flood_of_questions() {
    let mut cache = Cache::new((0..=HURRIED_NAMES_MAX).map(|index| name(&format!("n{index}.example"))));
    for due in cache.due(1000) {
        cache.answer(&due, &answer(&[("192.0.2.1", 600)]), 1000);
    }
    assert!(!cache.hurry(1100));
    assert_eq!(cache.due(1100), []);
}

#[test]
fn a_name_that_fails_is_reported_once_and_asked_for_at_growing_intervals() {
    let mut cache = Cache::new([name("a.example"), name("b.example")]);
    cache.due(0);
    cache.answer(&name("b.example"), &answer(&[("192.0.2.1", 10_000)]), 0);
    let mut now = 0;
    for (turn, wait) in [1, 2, 4, 8, 16, 32, 60, 60].into_iter().enumerate() {
        let change = cache.answer(&name("a.example"), &failure("no such name"), now);
        let news = (turn == 0).then(|| News::Fail("no such name".to_owned()));
        assert_eq!(change, Change { addresses: false, news }, "turn {turn}");
        assert_eq!(cache.due(now + wait - 1), [], "turn {turn}");
        now += wait;
        assert_eq!(cache.due(now), [name("a.example")], "turn {turn}");
    }
    let change = cache.answer(&name("a.example"), &answer(&[("192.0.2.2", 60)]), now);
    assert_eq!(change, Change { addresses: true, news: Some(News::Recover) });
}

#[test]
fn a_family_that_fails_is_asked_for_again_before_the_ttl_of_the_other_ends() {
    let mut cache = Cache::new([name("a.example")]);
    cache.due(0);
    let half = Answer { addresses: vec![(ip("192.0.2.1"), 3600)], failure: Some("timed out".to_owned()) };
    let change = cache.answer(&name("a.example"), &half, 0);
    assert_eq!(change, Change { addresses: true, news: None });
    assert_eq!(cache.due(1), [name("a.example")]);
}

#[test]
fn a_failure_leaves_the_addresses_that_are_known() {
    let mut cache = Cache::new([name("a.example")]);
    cache.answer(&name("a.example"), &answer(&[("192.0.2.1", 60)]), 0);
    cache.answer(&name("a.example"), &failure("timed out"), 60);
    assert!(addresses(&mut cache, "a.example").contains_key(&ip("192.0.2.1")));
}

#[test]
fn an_address_beyond_the_limit_is_counted_and_reported_once() {
    let mut cache = Cache::new([name("a.example")]);
    let many: Vec<_> = (0..u32::try_from(ADDRESSES_PER_NAME_MAX).unwrap())
        .map(|last| (IpAddr::from((0xc000_0000_u32 + last).to_be_bytes()), 60))
        .collect();
    assert_eq!(cache.answer(&name("a.example"), &Answer { addresses: many, failure: None }, 0).news, None);
    let more = answer(&[("198.51.100.1", 60), ("198.51.100.2", 60)]);
    assert_eq!(cache.answer(&name("a.example"), &more, 1).news, Some(News::Overflow));
    assert_eq!(cache.answer(&name("a.example"), &more, 2).news, None);
    assert_eq!((cache.total(), cache.not_added()), (ADDRESSES_PER_NAME_MAX, 4));
}

#[test]
fn once_settled_only_the_spare_room_is_left() {
    let mut cache = Cache::new((0..6).map(|index| name(&format!("n{index}.example"))));
    let many = |first: u32| (0..1000).map(|last| (IpAddr::from((first + last).to_be_bytes()), 60)).collect();
    cache.answer(&name("n0.example"), &Answer { addresses: many(0x0a00_0000), failure: None }, 0);
    cache.settle();
    for index in 1..6 {
        let answer = Answer { addresses: many(0x0b00_0000 + index * 1000), failure: None };
        cache.answer(&name(&format!("n{index}.example")), &answer, 0);
    }
    assert_eq!((cache.total(), cache.not_added()), (1000 + ADDRESSES_SPARE, 904));
}

#[test]
fn an_address_belongs_to_every_name_that_resolved_to_it_and_mapped_addresses_are_ipv4() {
    let mut cache = Cache::new([name("b.example"), name("a.example")]);
    cache.answer(&name("b.example"), &answer(&[("192.0.2.1", 60)]), 0);
    cache.answer(&name("a.example"), &answer(&[("::ffff:192.0.2.1", 60)]), 0);
    let names: Vec<_> = cache.names_of(ip("::ffff:192.0.2.1")).collect();
    assert_eq!(names, [&name("a.example"), &name("b.example")]);
    assert!(addresses(&mut cache, "a.example").contains_key(&ip("192.0.2.1")));
}

#[test]
fn an_answer_for_a_name_nobody_asked_for_adds_nothing() {
    let mut cache = Cache::new([name("a.example")]);
    assert_eq!(cache.answer(&name("evil.example"), &answer(&[("192.0.2.1", 60)]), 0), Change::default());
    assert_eq!(cache.tell(), BTreeMap::new());
}

fn name(text: &str) -> DomainName {
    DomainName::parse(text).unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn answer(addresses: &[(&str, u32)]) -> Answer {
    Answer { addresses: addresses.iter().map(|(address, ttl)| (ip(address), *ttl)).collect(), failure: None }
}

fn failure(reason: &str) -> Answer {
    Answer { addresses: Vec::new(), failure: Some(reason.to_owned()) }
}

fn addresses(cache: &mut Cache, of: &str) -> BTreeMap<IpAddr, u32> {
    cache.tell().remove(&name(of)).unwrap_or_default()
}
