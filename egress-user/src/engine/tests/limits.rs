//! What is refused, what is bounded, and what is said of it.

use super::{
    talk::{A, Talk, reply},
    *,
};
use crate::dns::testing::{Reply, asker, nothing, query};

#[test]
fn a_name_without_a_rule_is_refused_with_its_reason_and_recorded() {
    let mut talk = Talk::new("allow: ['*.example.com']");
    for name in ["evil.example", "example.com", "badexample.com"] {
        let effects = talk.ask(1, name, A);
        let Reply { code, text, .. } = reply(&effects, 1);
        assert_eq!(code, "Refused", "{name}");
        assert!(text.contains(name) && text.contains("`test`"), "{text}");
        let Some(Effect::Refuse(line)) = effects.iter().find(|effect| matches!(effect, Effect::Refuse(_))) else {
            panic!("{effects:?}")
        };
        for text in [r#""reason":"no_rule""#, r#""protocol":"dns""#, name] {
            assert!(line.contains(text), "{text} in {line}");
        }
    }
    assert_eq!((talk.engine.refusals().count(), talk.engine.refusals().names().count()), (3, 3));
    assert_eq!(verdict(&talk.kernel, "5.9.0.1", 1000).0, Verdict::Deny);
}

#[test]
fn the_refusal_of_a_question_has_the_code_of_the_policy() {
    let mut talk = Talk::new("allow: []\ndns: {refuse: nxdomain}");
    assert_eq!(reply(&talk.ask(1, "evil.example", A), 1).code, "NXDomain");
}

#[test]
fn an_allowed_name_is_not_said_not_to_be_there_because_of_its_type_or_its_addresses() {
    let mut talk = Talk::new("allow: ['*.example.com']\ndns: {refuse: nxdomain, types: [A]}");
    let reply_to_type = reply(&talk.ask(1, "www.example.com", RecordType::AAAA), 1);
    talk.ask(2, "www.example.com", A);
    let effects = talk.answer("www.example.com", A, &answered(vec![address("www.example.com", 60, "10.0.0.1")]));
    for reply in [reply_to_type, reply(&effects, 2)] {
        assert!(reply.code == "NoError" && reply.answers.is_empty(), "{reply:?}");
        assert!(reply.text.contains("policy `test`"), "{reply:?}");
    }
    assert_eq!(reply(&talk.ask(3, "example.com", A), 3).code, "NXDomain");
}

#[test]
fn an_answer_of_special_purpose_addresses_is_refused_and_a_mixed_one_is_cut() {
    let mut talk = Talk::new("allow: ['*.example.com', 10.0.0.0/24]");
    for (id, ips, expected) in [
        (1, &["192.168.0.1", "169.254.169.254"][..], None),
        (2, &["192.168.0.1", "5.9.0.1"], Some("5.9.0.1")),
        (3, &["10.0.0.9", "10.0.1.9"], Some("10.0.0.9")),
    ] {
        let name = format!("n{id}.example.com");
        talk.ask(id, &name, A);
        let records = ips.iter().map(|ip| address(&name, 60, ip)).collect();
        let effects = talk.answer(&name, A, &answered(records));
        let effects = talk.apply(effects);
        let reply = reply(&effects, id);
        match expected {
            None => assert!(reply.code == "Refused" && reply.text.contains("does not open"), "{reply:?}"),
            Some(ip) => assert_eq!(reply.answers, [ip]),
        }
    }
    for ip in ["192.168.0.1", "169.254.169.254", "10.0.1.9"] {
        assert_eq!(verdict(&talk.kernel, ip, 1000).0, Verdict::Deny, "{ip}");
    }
    assert_eq!(reply(&talk.ask(4, "n1.example.com", A), 4).code, "Refused", "from the cache as well");
}

#[test]
fn addresses_above_a_limit_are_taken_out_of_the_answer_and_told_of_once() {
    let mut talk = Talk::new("allow: ['*.example.com']\ndns: {addresses: {per_name: 2, total: 3}}");
    let answer_with = |talk: &mut Talk, id: u64, name: &str, ips: &[&str]| {
        talk.ask(id, name, A);
        let records = ips.iter().map(|ip| address(name, 60, ip)).collect();
        let effects = talk.answer(name, A, &answered(records));
        let told = effects.iter().filter(|effect| matches!(effect, Effect::Tell(_))).count();
        let effects = talk.apply(effects);
        (reply(&effects, id), told)
    };
    let (first, told) = answer_with(&mut talk, 1, "a.example.com", &["5.9.0.1", "5.9.0.2", "5.9.0.3"]);
    assert_eq!((first.answers.len(), told), (2, 1));
    let (second, told) = answer_with(&mut talk, 2, "b.example.com", &["5.9.0.4", "5.9.0.5"]);
    assert_eq!((second.answers.len(), told), (1, 1));
    let (third, told) = answer_with(&mut talk, 3, "c.example.com", &["5.9.0.6"]);
    assert_eq!((third.code.as_str(), told), ("ServFail", 0));
    assert!(third.text.contains("`dns.addresses`"), "{}", third.text);
    assert_eq!(talk.engine.addresses_not_added(), 3);
    assert_eq!(verdict(&talk.kernel, "5.9.0.6", 1000).0, Verdict::Deny);
}

#[test]
fn a_flood_of_one_workload_leaves_room_for_another() {
    let mut talk =
        Talk::new("allow: ['*.example.com']\ndns: {budget: {questions_per_minute: 100000, names_per_hour: 100000}}");
    let mut refused = 0;
    for id in 0..2000 {
        let effects = talk.ask(id, &format!("n{id}.example.com"), A);
        refused += usize::from(effects.iter().any(|effect| matches!(effect, Effect::Reply(..))));
    }
    assert_eq!(refused, 2000 - 1024);
    let message = query(1, "other.example.com", A);
    let effects = talk.engine.handle(Input::Question(Ticket(9999), &asker(2), Transport::Udp, &message), talk.now());
    assert_eq!(effects, [Effect::Ask(asked("other.example.com", A))]);
}

#[test]
fn questions_beyond_the_budget_are_refused_with_one_alert_while_it_lasts() {
    let mut talk = Talk::new("allow: ['*.example.com']\ndns: {budget: {questions_per_minute: 3}}");
    let mut alerts = 0;
    for id in 0..6 {
        let effects = talk.ask(id, &format!("n{id}.example.com"), A);
        let is_alert = |effect: &&Effect| matches!(effect, Effect::Record(line) if line.contains(r#""kind":"alert""#));
        alerts += effects.iter().filter(is_alert).count();
        let is_refused = effects.iter().any(|effect| matches!(effect, Effect::Reply(..)));
        assert_eq!(is_refused, id >= 3, "{id}: {effects:?}");
    }
    assert_eq!((alerts, talk.engine.refusals().count()), (1, 3));
}

#[test]
fn a_label_that_is_too_long_is_an_alert_too() {
    for (mode, replies) in [("enforce", 3), ("audit", 0)] {
        let mut talk =
            Talk::new(&format!("mode: {mode}\nallow: ['*.example.com']\ndns: {{budget: {{label_bytes: 8}}}}"));
        let (mut alerts, mut refused) = (0, 0);
        for id in 0..3 {
            for effect in talk.ask(id, &format!("much-too-long-{id}.example.com"), A) {
                let is_alert = |line: &str| line.contains(r#""kind":"alert""#) && line.contains("long_label");
                alerts += usize::from(matches!(&effect, Effect::Record(line) if is_alert(line)));
                refused += usize::from(matches!(effect, Effect::Reply(..)));
            }
        }
        assert_eq!((alerts, refused), (1, replies), "{mode}");
    }
}

#[test]
fn a_policy_that_only_audits_lets_every_question_through_and_says_what_it_would_refuse() {
    let mut talk = Talk::new("mode: audit\nallow: ['*.example.com']");
    let txt = RecordType(16);
    assert_eq!(talk.ask(1, "evil.example", txt), [Effect::Ask(asked("evil.example", txt))]);
    let effects = talk.answer("evil.example", txt, &nothing(true, 30));
    assert_eq!(reply(&effects, 1).code, "NoError");
    let Some(Effect::Refuse(line)) = effects.iter().find(|effect| matches!(effect, Effect::Refuse(_))) else {
        panic!("{effects:?}")
    };
    assert!(line.contains(r#""verdict":"allow""#) && line.contains("only audits"), "{line}");

    talk.ask(2, "evil.example", A);
    let records = vec![address("evil.example", 60, "5.9.0.1"), address("evil.example", 60, "10.0.0.1")];
    let effects = talk.answer("evil.example", A, &answered(records));
    assert_eq!(reply(&effects, 2).answers, ["5.9.0.1", "10.0.0.1"]);
    assert_eq!(talk.kernel.addresses.len(), 0);
    assert_eq!(talk.names_of("5.9.0.1"), "");
}

#[test]
fn a_message_that_is_no_question_is_answered_or_not_and_counted() {
    let mut talk = Talk::new("allow: []");
    for (message, expected) in [(vec![0; 5], None), (vec![0; 12], Some("FormErr"))] {
        let effects = talk.engine.handle(Input::Question(Ticket(1), &asker(1), Transport::Udp, &message), talk.now());
        let [Effect::Reply(Ticket(1), reply)] = &effects[..] else { panic!("{effects:?}") };
        assert_eq!(reply.is_some(), expected.is_some());
    }
    assert_eq!(talk.engine.unreadable_messages(), 2);
}
