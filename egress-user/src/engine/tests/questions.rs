//! Conversations: a client's question, what is asked of name servers, what is put into the kernel, and the reply.

use std::collections::BTreeMap;

use super::{
    talk::{A, Talk, lines, reply},
    *,
};
use crate::dns::testing::{Reply, alias, asker, nothing, query};

#[test]
fn an_answer_leaves_only_after_the_kernel_has_its_addresses() {
    let mut talk = Talk::new("allow: ['*.example.com:443']");
    assert_eq!(talk.ask(1, "www.example.com", A), [Effect::Ask(asked("www.example.com", A))]);
    let effects = talk.answer("www.example.com", A, &answered(vec![address("www.example.com", 60, "5.9.0.1")]));
    let [Effect::Apply(changes)] = &effects[..] else { panic!("{effects:?}") };
    changes.apply(&mut talk.kernel);
    assert_eq!(verdict(&talk.kernel, "5.9.0.1", 1000), (Verdict::Allow, Reason::Rule));
    let effects = talk.engine.handle(Input::Applied(changes.steps.len(), Ok(())), talk.now());
    assert_eq!(reply(&effects, 1).answers, ["5.9.0.1"]);
}

#[test]
fn a_change_that_fails_fails_the_answers_that_need_it_and_no_other() {
    let mut talk = Talk::new("allow: ['*.example.com:443']");
    talk.ask(1, "a.example.com", A);
    talk.ask(2, "b.example.com", A);
    let effects = talk.answer("a.example.com", A, &answered(vec![address("a.example.com", 60, "5.9.0.1")]));
    assert!(matches!(effects[..], [Effect::Apply(_)]), "{effects:?}");
    assert_eq!(talk.answer("b.example.com", A, &answered(vec![address("b.example.com", 60, "5.9.0.2")])), []);
    let effects = talk.engine.handle(Input::Applied(0, Err("the map is full".to_owned())), talk.now());
    let Reply { code, text, .. } = reply(&effects, 1);
    assert!(code == "ServFail" && text.contains("the map is full"), "{code}: {text}");
    let effects = talk.apply(effects);
    assert_eq!(reply(&effects, 2).answers, ["5.9.0.2"]);
    talk.second += 1;
    let effects = talk.ask(3, "a.example.com", A);
    let effects = talk.apply(effects);
    assert_eq!(reply(&effects, 3).answers, ["5.9.0.1"], "the change was made with the next one");
    assert_eq!(verdict(&talk.kernel, "5.9.0.1", 1001).0, Verdict::Allow);
}

#[test]
fn questions_at_once_share_one_question_and_each_has_its_own_reply() {
    let mut talk = Talk::new("allow: ['*.example.com']");
    assert_eq!(talk.ask(1, "www.example.com", A).len(), 1);
    for (id, workload, transport, name) in
        [(2, 1, Transport::Tcp, "WWW.example.COM"), (3, 2, Transport::Udp, "www.example.com")]
    {
        let message = query(id, name, A);
        let input = Input::Question(Ticket(id.into()), &asker(workload), transport, &message);
        assert_eq!(talk.engine.handle(input, talk.now()), [], "{name}");
    }
    let effects = talk.answer("www.example.com", A, &answered(vec![address("www.example.com", 60, "5.9.0.1")]));
    let effects = talk.apply(effects);
    for (id, name) in [(1, "www.example.com."), (2, "WWW.example.COM."), (3, "www.example.com.")] {
        let reply = reply(&effects, id);
        assert_eq!((reply.id, reply.name.as_str()), (u16::try_from(id).unwrap(), name));
        assert_eq!(reply.answers, ["5.9.0.1"]);
    }
}

#[test]
fn a_repeated_question_is_answered_at_once_with_what_is_left_of_its_ttl() {
    for (ttl, floor, later, expected) in [
        (60, 1, 0, Some(60)),
        (60, 1, 59, Some(1)),
        (60, 1, 60, None),
        (0, 1, 0, Some(1)),
        (1, 5, 4, Some(1)),
        (0, 0, 0, None),
    ] {
        let mut talk = Talk::new(&format!("allow: ['*.example.com']\ndns: {{ttl_floor: {floor}s}}"));
        talk.ask(1, "www.example.com", A);
        let effects = talk.answer("www.example.com", A, &answered(vec![address("www.example.com", ttl, "5.9.0.1")]));
        talk.apply(effects);
        talk.second += later;
        let effects = talk.ask(2, "www.example.com", A);
        match expected {
            Some(left) => assert_eq!(reply(&effects, 2).ttls, [left], "{ttl} {floor} {later}"),
            None => assert_eq!(effects, [Effect::Ask(asked("www.example.com", A))], "{ttl} {floor} {later}"),
        }
    }
}

#[test]
fn what_is_not_there_is_kept_too() {
    for (exists, code) in [(true, "NoError"), (false, "NXDomain")] {
        let mut talk = Talk::new("allow: ['*.example.com']");
        talk.ask(1, "www.example.com", RecordType::AAAA);
        let effects = talk.answer("www.example.com", RecordType::AAAA, &nothing(exists, 30));
        assert_eq!(reply(&effects, 1).code, code);
        let effects = talk.ask(2, "www.example.com", RecordType::AAAA);
        assert_eq!((reply(&effects, 2).code.as_str(), reply(&effects, 2).answers.len()), (code, 0));
    }
}

#[test]
fn a_dead_name_server_fails_the_question_and_is_left_alone_for_a_moment() {
    let mut talk = Talk::new("allow: ['*.example.com']");
    talk.ask(1, "www.example.com", A);
    let effects = talk.answer("www.example.com", A, &failed("timed out"));
    assert_eq!((reply(&effects, 1).code.as_str(), reply(&effects, 1).text.as_str()), ("ServFail", "timed out"));
    let effects = talk.ask(2, "www.example.com", A);
    assert_eq!(reply(&effects, 2).code, "ServFail");
    assert_eq!(talk.ask(3, "other.example.com", A).len(), 1, "other names are asked for");
    talk.second += 2;
    assert_eq!(talk.ask(4, "www.example.com", A), [Effect::Ask(asked("www.example.com", A))]);
}

#[test]
fn a_question_that_nobody_reports_on_is_given_up() {
    let mut talk = Talk::new("allow: ['*.example.com']");
    talk.ask(1, "www.example.com", A);
    talk.second += 29;
    assert_eq!(talk.tick(), []);
    talk.second += 1;
    let effects = talk.tick();
    assert_eq!(reply(&effects, 1).code, "ServFail");
    let late = answered(vec![address("www.example.com", 60, "5.9.0.1")]);
    assert_eq!(talk.answer("www.example.com", A, &late), [], "it opens nothing either");
}

#[test]
fn a_chain_of_eight_opens_its_addresses_for_the_name_that_was_asked() {
    let mut talk = Talk::new("allow: ['www.example.com:443']");
    talk.tick();
    assert_eq!(talk.ask(1, "www.example.com", A), [], "it is asked for in advance");
    let mut records = vec![alias("www.example.com", 60, "c1.cdn.example")];
    records
        .extend((1..8).map(|link| alias(&format!("c{link}.cdn.example"), 60, &format!("c{}.cdn.example", link + 1))));
    records.push(address("c8.cdn.example", 60, "5.9.0.1"));
    let effects = talk.answer("www.example.com", A, &answered(records));
    let effects = talk.apply(effects);
    assert_eq!(reply(&effects, 1).answers.len(), 9);
    assert_eq!(verdict(&talk.kernel, "5.9.0.1", 1000), (Verdict::Allow, Reason::Rule));
    assert_eq!(talk.names_of("5.9.0.1"), "www.example.com");
}

#[test]
fn an_address_that_another_name_has_is_handed_out_at_once_and_kept_for_both() {
    let mut talk = Talk::new("allow: ['*.example.com']");
    for (id, name) in [(1, "a.example.com"), (2, "b.example.com")] {
        talk.ask(id, name, A);
        let effects = talk.answer(name, A, &answered(vec![address(name, 60, "5.9.0.1")]));
        assert_eq!(effects.iter().any(|effect| matches!(effect, Effect::Apply(_))), id == 1, "{effects:?}");
        let effects = talk.apply(effects);
        assert_eq!(reply(&effects, id).answers, ["5.9.0.1"]);
    }
    assert_eq!(talk.names_of("5.9.0.1"), "a.example.com,b.example.com");
}

#[test]
fn eight_of_a_thousand_addresses_at_a_time_are_all_open_within_their_grace() {
    let mut talk = Talk::new("allow: ['*.example.com:443']\ndns: {grace: 60s}");
    let mut handed_out: BTreeMap<String, u64> = BTreeMap::new();
    for turn in 0..300_u64 {
        talk.tick_and_apply();
        talk.ask(turn, "s3.example.com", A);
        let ips = (0..8).map(|index| (turn * 8 + index) % 1000).map(|n| format!("5.9.{}.{}", n / 256, n % 256));
        let ips: Vec<String> = ips.collect();
        let records = ips.iter().map(|ip| address("s3.example.com", 1, ip)).collect();
        let effects = talk.answer("s3.example.com", A, &answered(records));
        let effects = talk.apply(effects);
        assert_eq!(reply(&effects, turn).answers, ips);
        handed_out.extend(ips.into_iter().map(|ip| (ip, talk.second)));
        for ip in handed_out.iter().filter(|(_, at)| *at + 61 > talk.second).map(|(ip, _)| ip) {
            assert_eq!(verdict(&talk.kernel, ip, talk.second).0, Verdict::Allow, "{ip} at {}", talk.second);
        }
        talk.second += 1;
    }
    assert!(talk.kernel.addresses.len() <= 63 * 8, "{}", talk.kernel.addresses.len());
}

#[test]
fn the_name_of_an_address_that_was_handed_out_is_known_without_asking() {
    let mut talk = Talk::new("allow: ['*.example.com', 11.0.0.0/8]");
    talk.ask(1, "www.example.com", A);
    let effects = talk.answer("www.example.com", A, &answered(vec![address("www.example.com", 60, "5.9.0.1")]));
    talk.apply(effects);
    assert_eq!(reply(&talk.ask(2, "1.0.9.5.in-addr.arpa", RecordType::PTR), 2).answers, ["www.example.com."]);
    let reached = talk.ask(3, "1.0.0.11.in-addr.arpa", RecordType::PTR);
    assert_eq!(reached, [Effect::Ask(asked("1.0.0.11.in-addr.arpa", RecordType::PTR))]);
    assert_eq!(reply(&talk.ask(4, "8.8.8.8.in-addr.arpa", RecordType::PTR), 4).code, "Refused");
}

#[test]
fn every_question_is_a_line_with_what_came_of_it() {
    let mut talk = Talk::new("allow: ['*.example.com']");
    talk.ask(1, "www.example.com", A);
    let records = vec![alias("www.example.com", 60, "cdn.example"), address("cdn.example", 60, "5.9.0.1")];
    let effects = talk.answer("www.example.com", A, &answered(records));
    let mut lines = lines(&talk.apply(effects));
    lines.push_str(&self::lines(&talk.ask(2, "WWW.example.com", A)));
    lines.push_str(&self::lines(&talk.ask(3, "evil.example", A)));
    insta::assert_snapshot!(lines);
}
