//! Whatever happens in whatever order: no answer leaves before the kernel has its addresses, and every question has one
//! reply.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::{collection::vec, prelude::*};

use super::{talk::Talk, *};
use crate::{
    compile::Changes,
    dns::testing::{self, alias, asker, nothing, query},
};

/// What may happen next.
#[derive(Clone, Debug)]
enum Event {
    Ask {
        name: usize,
        kind: bool,
        workload: u32,
    },
    /// The name servers answer the oldest of the open questions, or a later one.
    Answer {
        skip: usize,
        content: u8,
        ttl: u32,
        first: u8,
    },
    /// The change on its way is made, or only so many of its steps.
    Apply {
        taken: Option<usize>,
    },
    Pass {
        seconds: u64,
    },
}

const NAMES: [&str; 4] = ["a.example.com", "b.example.com", "exact.example.org", "evil.example"];

fn happenings() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0..NAMES.len(), any::<bool>(), 1..3_u32)
            .prop_map(|(name, kind, workload)| Event::Ask { name, kind, workload }),
        4 => (0..3_usize, 0..6_u8, 0..20_u32, any::<u8>())
            .prop_map(|(skip, content, ttl, first)| Event::Answer { skip, content, ttl, first }),
        4 => proptest::option::weighted(0.2, 0..3_usize).prop_map(|taken| Event::Apply { taken }),
        1 => prop_oneof![3 => 0..3_u64, 1 => 20..400_u64].prop_map(|seconds| Event::Pass { seconds }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn no_answer_is_early_and_no_question_is_lost(events in vec(happenings(), 1..80)) {
        let mut world = World::new();
        for event in events {
            world.happen(&event)?;
        }
        // In the end everything is reported on, and what the kernel did not take is tried again.
        for _ in 0..4 {
            world.happen(&Event::Apply { taken: None })?;
            world.happen(&Event::Pass { seconds: 1 })?;
            while !world.open.is_empty() {
                world.happen(&Event::Answer { skip: 0, content: 5, ttl: 0, first: 0 })?;
            }
        }
        prop_assert_eq!(world.replied.len() as u64, world.asked, "every question has a reply");
    }
}

struct World {
    talk: Talk,
    asked: u64,
    replied: BTreeSet<u64>,
    open: VecDeque<Asked>,
    on_its_way: Option<Changes>,
    /// Until when each address may be used by whoever heard of it.
    promised: BTreeMap<String, u64>,
}

impl World {
    fn new() -> Self {
        let keys = "allow: ['*.example.com:443', 'exact.example.org:443']\ndns: {grace: 10s, addresses: {per_name: 20, total: 30}}";
        Self {
            talk: Talk::new(keys),
            asked: 0,
            replied: BTreeSet::new(),
            open: VecDeque::new(),
            on_its_way: None,
            promised: BTreeMap::new(),
        }
    }

    fn happen(&mut self, event: &Event) -> Result<(), TestCaseError> {
        let now = at(self.talk.second);
        let effects = match event {
            Event::Ask { name, kind, workload } => {
                let ticket = self.asked;
                self.asked += 1;
                let kind = if *kind { RecordType::A } else { RecordType::AAAA };
                let message = query(1, NAMES[*name], kind);
                let input = Input::Question(Ticket(ticket), &asker(*workload), Transport::Udp, &message);
                self.talk.engine.handle(input, now)
            }
            Event::Answer { skip, content, ttl, first } => {
                let Some(asked) = self.open.remove(skip % self.open.len().max(1)) else { return Ok(()) };
                let outcome = outcome(&asked, *content, *ttl, *first);
                self.talk.engine.handle(Input::Answered(&asked, &outcome), now)
            }
            Event::Apply { taken } => {
                let Some(mut changes) = self.on_its_way.take() else { return Ok(()) };
                let result = match taken {
                    Some(taken) if *taken < changes.steps.len() => {
                        changes.steps.truncate(*taken);
                        Err("the map is full".to_owned())
                    }
                    Some(_) | None => Ok(()),
                };
                changes.apply(&mut self.talk.kernel);
                self.talk.engine.handle(Input::Applied(changes.steps.len(), result), now)
            }
            Event::Pass { seconds } => {
                self.talk.second += seconds;
                self.talk.tick()
            }
        };
        self.follow(effects)
    }

    fn follow(&mut self, effects: Vec<Effect>) -> Result<(), TestCaseError> {
        for effect in effects {
            match effect {
                Effect::Ask(asked) => {
                    self.open.retain(|open| *open != asked);
                    self.open.push_back(asked);
                }
                Effect::Apply(changes) => {
                    prop_assert!(self.on_its_way.is_none(), "one change at a time");
                    self.on_its_way = Some(changes);
                }
                Effect::Reply(Ticket(ticket), reply) => {
                    prop_assert!(self.replied.insert(ticket), "{ticket} has two replies");
                    self.check(&testing::read(&reply.unwrap()))?;
                }
                Effect::Record(_) | Effect::Refuse(_) | Effect::Tell(_) => {}
            }
        }
        let second = self.talk.second;
        self.promised.retain(|_, until| second < *until);
        for ip in self.promised.keys() {
            prop_assert_eq!(verdict(&self.talk.kernel, ip, second).0, Verdict::Allow, "{} at {}", ip, second);
        }
        Ok(())
    }

    fn check(&mut self, reply: &testing::Reply) -> Result<(), TestCaseError> {
        for (ip, ttl) in reply.answers.iter().zip(&reply.ttls).filter(|(ip, _)| ip.parse::<IpAddr>().is_ok()) {
            let verdict = verdict(&self.talk.kernel, ip, self.talk.second);
            prop_assert_eq!(verdict.0, Verdict::Allow, "{} in {:?}", ip, reply);
            let until = self.talk.second + u64::from(*ttl) + 10;
            let promised = self.promised.entry(ip.clone()).or_default();
            *promised = until.max(*promised);
        }
        Ok(())
    }
}

fn outcome(asked: &Asked, content: u8, ttl: u32, first: u8) -> Outcome {
    let name = asked.name.as_str();
    let ip =
        |last: u8| if asked.kind == RecordType::A { format!("5.9.0.{last}") } else { format!("2a00:1450::{last:x}") };
    match content {
        0 => failed("timed out"),
        1 => nothing(true, ttl),
        2 => answered(vec![address(name, ttl, &ip(first)), address(name, ttl, "10.0.0.1")]),
        3 => answered(vec![alias(name, ttl, "cdn.example"), address("cdn.example", ttl + 1, &ip(first % 4))]),
        _ => answered((0..8).map(|index| address(name, ttl, &ip(first.wrapping_add(index)))).collect()),
    }
}
