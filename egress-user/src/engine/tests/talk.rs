//! A conversation with an engine.

use super::*;
use crate::dns::{
    question::Outcome,
    testing::{self, Reply, asker, query},
};

pub(super) const A: RecordType = RecordType::A;

/// An engine, the kernel that it fills, and the time.
pub(super) struct Talk {
    pub(super) engine: Engine,
    pub(super) kernel: CompiledPolicy,
    pub(super) second: u64,
}

impl Talk {
    pub(super) fn new(keys: &str) -> Self {
        let policy = crate::policy::parse("test.yaml", format!("version: 1\nname: test\n{keys}").as_bytes()).unwrap();
        let mut engine = Engine::new(policy, Recording::Events);
        engine.name_cgroup("/a".to_owned());
        let kernel = engine.begin(at(1000)).unwrap().clone();
        Self { engine, kernel, second: 1000 }
    }

    pub(super) fn now(&self) -> Now {
        at(self.second)
    }

    pub(super) fn tick(&mut self) -> Vec<Effect> {
        self.engine.handle(Input::Tick, at(self.second))
    }

    pub(super) fn tick_and_apply(&mut self) {
        let effects = self.tick();
        self.apply(effects);
    }

    /// The question with this number.
    pub(super) fn ask(&mut self, id: u64, name: &str, kind: RecordType) -> Vec<Effect> {
        let message = query(u16::try_from(id).unwrap(), name, kind);
        self.engine.handle(Input::Question(Ticket(id), &asker(1), Transport::Udp, &message), at(self.second))
    }

    pub(super) fn answer(&mut self, name: &str, kind: RecordType, outcome: &Outcome) -> Vec<Effect> {
        self.engine.handle(Input::Answered(&asked(name, kind), outcome), at(self.second))
    }

    /// Makes the changes among the effects, and adds what follows from them.
    pub(super) fn apply(&mut self, mut effects: Vec<Effect>) -> Vec<Effect> {
        let following = make(&mut self.engine, &mut self.kernel, &effects, self.second);
        effects.extend(following);
        effects
    }

    pub(super) fn names_of(&self, address: &str) -> String {
        self.engine.names_of(address.parse().unwrap())
    }
}

/// The reply with this number.
pub(super) fn reply(effects: &[Effect], id: u64) -> Reply {
    let mut replies: Vec<Reply> = Vec::new();
    for effect in effects {
        if let Effect::Reply(Ticket(ticket), Some(reply)) = effect
            && *ticket == id
        {
            replies.push(testing::read(reply));
        }
    }
    let [reply] = &replies[..] else { panic!("one reply to {id}: {effects:?}") };
    reply.clone()
}

/// The record of events.
pub(super) fn lines(effects: &[Effect]) -> String {
    let mut lines = String::new();
    for effect in effects {
        if let Effect::Record(line) = effect {
            lines.push_str(line);
        }
    }
    lines
}
