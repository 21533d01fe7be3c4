//! Scenarios: inputs with times, and the effects that must come of them.

mod any_order;
mod limits;
mod questions;
mod talk;

use egress_common::{Protocol, Reason, Verdict};

use super::*;
use crate::{
    dns::testing::{address, answered, asked, failed},
    flow::observation::tests::refusal,
    policy::{Flow, RecordType},
};

#[test]
fn every_exact_name_is_asked_for_at_the_first_tick_and_wildcards_are_not() {
    let mut engine = engine(&["b.example", "a.example:443", "*.c.example", "10.0.0.0/8"]);
    let effects = engine.handle(Input::Tick, at(1000));
    let both = |name| [RecordType::A, RecordType::AAAA].map(|kind| Effect::Ask(asked(name, kind)));
    assert_eq!(effects, [both("a.example"), both("b.example")].concat());
    assert_eq!(engine.handle(Input::Tick, at(1001)), [], "questions are on their way");
}

#[test]
fn before_the_policy_is_in_the_kernel_each_name_is_asked_for_once() {
    let mut engine = engine(&["a.example"]);
    engine.handle(Input::Tick, at(1000));
    for kind in [RecordType::A, RecordType::AAAA] {
        engine.handle(Input::Answered(&asked("a.example", kind), &failed("timed out")), at(1000));
    }
    assert_eq!(engine.handle(Input::Tick, at(1005)), []);
    engine.begin(at(1005)).unwrap();
    assert_eq!(engine.handle(Input::Tick, at(1006)).len(), 2);
}

#[test]
fn an_address_is_allowed_until_its_grace_has_ended_and_then_taken_out_of_the_maps() {
    let mut engine = engine(&["a.example:443"]);
    engine.handle(Input::Tick, at(1000));
    learn(&mut engine, "a.example", "5.9.0.1", 10, 1000);
    let mut kernel = engine.begin(at(1000)).unwrap().clone();
    assert_eq!(verdict(&kernel, "5.9.0.1", 1000), (Verdict::Allow, Reason::Rule));
    for second in 1001..1311 {
        turn(&mut engine, &mut kernel, second);
        assert_eq!(verdict(&kernel, "5.9.0.1", second), (Verdict::Allow, Reason::Rule), "at {second}");
    }
    turn(&mut engine, &mut kernel, 1311);
    assert_eq!(verdict(&kernel, "5.9.0.1", 1311), (Verdict::Deny, Reason::NoRule));
}

#[test]
fn a_name_that_turns_over_to_another_address_has_no_gap() {
    let mut engine = engine(&["a.example:443"]);
    engine.handle(Input::Tick, at(1000));
    learn(&mut engine, "a.example", "5.9.0.1", 10, 1000);
    let mut kernel = engine.begin(at(1000)).unwrap().clone();
    let effects = turn(&mut engine, &mut kernel, 1010);
    assert_eq!(effects, [Effect::Ask(asked("a.example", RecordType::A))]);
    let effects = learn(&mut engine, "a.example", "5.9.0.2", 10, 1010);
    make(&mut engine, &mut kernel, &effects, 1010);
    for address in ["5.9.0.1", "5.9.0.2"] {
        assert_eq!(verdict(&kernel, address, 1010), (Verdict::Allow, Reason::Rule), "{address}");
    }
}

#[test]
fn the_kernel_forgets_addresses_by_itself_when_nobody_ticks() {
    let mut engine = engine(&["a.example:443"]);
    engine.handle(Input::Tick, at(1000));
    learn(&mut engine, "a.example", "5.9.0.1", 10, 1000);
    let kernel = engine.begin(at(1000)).unwrap();
    assert_eq!(verdict(kernel, "5.9.0.1", 1370), (Verdict::Allow, Reason::Rule));
    assert_eq!(verdict(kernel, "5.9.0.1", 1371), (Verdict::Deny, Reason::Expired));
}

#[test]
fn changes_that_failed_are_made_again_a_second_later_and_told_of_once() {
    let mut engine = engine(&["a.example:443"]);
    engine.handle(Input::Tick, at(1000));
    let mut kernel = engine.begin(at(1000)).unwrap().clone();
    assert!(matches!(learn(&mut engine, "a.example", "5.9.0.1", 60, 1000)[..], [Effect::Apply(_)]));
    let told = engine.handle(Input::Applied(0, Err("the map is full".to_owned())), at(1000));
    assert_eq!(told, [Effect::Tell("new addresses are not allowed: the map is full".to_owned())]);
    assert_eq!(engine.handle(Input::Tick, at(1000)), [], "not in the same second");
    assert!(matches!(engine.handle(Input::Tick, at(1001))[..], [Effect::Apply(_)]));
    assert_eq!(engine.handle(Input::Applied(0, Err("the map is full".to_owned())), at(1001)), []);
    turn(&mut engine, &mut kernel, 1002);
    assert_eq!(verdict(&kernel, "5.9.0.1", 1002), (Verdict::Allow, Reason::Rule));
}

#[test]
fn what_a_failed_change_left_in_the_kernel_is_removed_when_its_time_is_over() {
    let mut engine = engine(&["a.example:443"]);
    engine.handle(Input::Tick, at(1000));
    let mut kernel = engine.begin(at(1000)).unwrap().clone();
    let two = answered(vec![address("a.example", 10, "5.9.0.1"), address("a.example", 10, "5.9.0.2")]);
    let effects = engine.handle(Input::Answered(&asked("a.example", RecordType::A), &two), at(1000));
    let [Effect::Apply(changes)] = &effects[..] else { panic!("{effects:?}") };
    changes.steps[0].apply(&mut kernel);
    assert!(verdict(&kernel, "5.9.0.1", 1000).0 == Verdict::Allow, "{changes:?}");
    engine.handle(Input::Applied(1, Err("the map is full".to_owned())), at(1000));
    turn(&mut engine, &mut kernel, 1400);
    assert_eq!(kernel.addresses.keys().collect::<Vec<_>>(), Vec::<&egress_common::Address>::new());
}

#[test]
fn no_second_change_is_made_while_one_is_on_its_way() {
    let mut engine = engine(&["a.example", "b.example"]);
    engine.handle(Input::Tick, at(1000));
    engine.begin(at(1000)).unwrap();
    assert!(matches!(learn(&mut engine, "a.example", "5.9.0.1", 60, 1000)[..], [Effect::Apply(_)]));
    assert_eq!(learn(&mut engine, "b.example", "5.9.0.2", 60, 1000), []);
    assert!(matches!(engine.handle(Input::Applied(1, Ok(())), at(1000))[..], [Effect::Apply(_)]));
}

#[test]
fn an_answer_into_a_private_network_opens_nothing() {
    let mut engine = engine(&["a.example"]);
    engine.handle(Input::Tick, at(1000));
    let private = ["10.0.0.1", "127.0.0.1", "169.254.169.254", "::1", "fd00:ec2::254"];
    for kind in [RecordType::A, RecordType::AAAA] {
        let outcome = answered(private.map(|ip| address("a.example", 60, ip)).to_vec());
        engine.handle(Input::Answered(&asked("a.example", kind), &outcome), at(1000));
    }
    let kernel = engine.begin(at(1000)).unwrap();
    for ip in private {
        assert_eq!(verdict(kernel, ip, 1000).0, Verdict::Deny, "{ip}");
    }
}

#[test]
fn a_refusal_is_a_line_with_its_name_and_the_time_of_the_kernel() {
    let mut engine = engine(&["a.example:80"]);
    engine.handle(Input::Tick, at(6));
    learn(&mut engine, "a.example", "5.9.0.1", 60, 6);
    engine.name_cgroup("/x".to_owned());
    let refused = Event { remote: egress_common::Address::from_v4([5, 9, 0, 1]), ..refusal("curl") };
    let effects = engine.handle(Input::Event(&refused), at(6));
    let [Effect::Refuse(line), Effect::Record(record)] = &effects[..] else {
        panic!("a line for each file: {effects:?}");
    };
    // The event is of the fifth second of a boot that was at 12:00:00.
    for text in
        [r#""time":"2026-11-22T12:00:05.000000000Z""#, r#""name":"a.example""#, r#""allow":"- a.example:443/tcp""#]
    {
        assert!(line.contains(text), "{text} in {line}");
    }
    for text in [r#""domain":"a.example""#, r#""cgroup":"/x""#, r#""policy":"command-line""#] {
        assert!(record.contains(text), "{text} in {record}");
    }
    assert_eq!(engine.refusals().count(), 1);
}

#[test]
fn an_event_without_meaning_is_counted() {
    let mut engine = engine(&[]);
    assert_eq!(engine.handle(Input::Event(&Event { kind: 99, ..refusal("x") }), at(1)), []);
    assert_eq!(engine.unreadable_events(), 1);
}

fn engine(allow: &[&str]) -> Engine {
    let allow: Vec<String> = allow.iter().map(|rule| (*rule).to_owned()).collect();
    Engine::new(crate::policy::from_arguments(&allow, &[]).unwrap(), Recording::Events)
}

/// One tick, its changes made.
fn turn(engine: &mut Engine, kernel: &mut CompiledPolicy, second: u64) -> Vec<Effect> {
    let effects = engine.handle(Input::Tick, at(second));
    make(engine, kernel, &effects, second);
    effects
}

/// Makes the changes, and says what follows.
fn make(engine: &mut Engine, kernel: &mut CompiledPolicy, effects: &[Effect], second: u64) -> Vec<Effect> {
    let mut following = Vec::new();
    for effect in effects {
        if let Effect::Apply(changes) = effect {
            changes.apply(kernel);
            following.extend(engine.handle(Input::Applied(changes.steps.len(), Ok(())), at(second)));
        }
    }
    following
}

/// The name servers answer the question about a name with one address.
fn learn(engine: &mut Engine, name: &str, ip: &str, ttl: u32, second: u64) -> Vec<Effect> {
    let kind = if ip.contains(':') { RecordType::AAAA } else { RecordType::A };
    let outcome = answered(vec![address(name, ttl, ip)]);
    engine.handle(Input::Answered(&asked(name, kind), &outcome), at(second))
}

fn at(second: u64) -> Now {
    let boot: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
    let wall = boot + SignedDuration::from_secs(i64::try_from(second).unwrap());
    Now { boot_nanoseconds: second * 1_000_000_000, wall }
}

fn verdict(kernel: &CompiledPolicy, address: &str, second: u64) -> (Verdict, Reason) {
    let flow = Flow { protocol: Protocol::Tcp, destination: address.parse().unwrap(), port: 443 };
    let decision = kernel.decide(&flow, u32::try_from(second).unwrap());
    (decision.verdict, decision.reason)
}
