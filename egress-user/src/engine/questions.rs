//! Questions about names: what the exchange says, as effects, with their records.

use std::{collections::BTreeSet, net::IpAddr};

use super::{Effect, Engine, Now};
use crate::{
    dns::{
        exchange::{Arrival, Moment, Turn},
        question::{Asked, Outcome},
    },
    flow::Lookup,
};

impl Engine {
    pub(super) fn ask(&mut self, arrival: Arrival<'_>, now: Now) -> Vec<Effect> {
        let turns = self.exchange.question(&self.policy, arrival, now.moment());
        self.follow(turns)
    }

    pub(super) fn answered(&mut self, asked: &Asked, outcome: &Outcome, now: Now) -> Vec<Effect> {
        let turns = self.exchange.answered(&self.policy, asked, outcome, now.moment());
        self.follow(turns)
    }

    pub(super) fn applied(&mut self, taken: usize, outcome: Result<(), String>) -> Vec<Effect> {
        let failed = self.maps.applied(taken, outcome.is_ok());
        match outcome {
            Ok(()) => {
                self.told_failure = None;
                Vec::new()
            }
            Err(reason) => self.not_applied(&failed, &reason),
        }
    }

    pub(super) fn tick(&mut self, now: Now) -> Vec<Effect> {
        // Ticks come many times a second, and whole seconds are all that names know.
        if self.ticked_at == Some(now.seconds()) {
            return Vec::new();
        }
        self.ticked_at = Some(now.seconds());
        self.maps.retry();
        let turns = self.exchange.tick(now.moment());
        self.follow(turns)
    }

    /// What follows from any input: what changed goes to the kernel, and what the kernel has goes to the clients.
    pub(super) fn settle(&mut self, now: Now) -> Vec<Effect> {
        self.maps.change(self.exchange.take_changed());
        let next = self.maps.next(&self.policy, self.exchange.addresses_mut(), now.map_seconds());
        let mut effects = match next {
            Ok(changes) => changes.map(Effect::Apply).into_iter().collect(),
            Err((error, failed)) => self.not_applied(&failed, &error.to_string()),
        };
        let maps = &self.maps;
        let mut turns = self.exchange.leave(|address| maps.is_behind(address), now.moment());
        turns.extend(if maps.has_begun() {
            self.exchange.ask_ahead(now.moment())
        } else {
            self.exchange.ask_first(now.moment())
        });
        effects.extend(self.follow(turns));
        effects
    }

    fn not_applied(&mut self, failed: &BTreeSet<IpAddr>, reason: &str) -> Vec<Effect> {
        let turns = self.exchange.give_up(failed, reason);
        let mut effects = self.follow(turns);
        // It is tried again every second, and told once.
        if self.told_failure.as_deref() != Some(reason) {
            self.told_failure = Some(reason.to_owned());
            effects.push(Effect::Tell(format!("new addresses are not allowed: {reason}")));
        }
        effects
    }

    fn follow(&mut self, turns: Vec<Turn>) -> Vec<Effect> {
        let mut effects = Vec::new();
        for turn in turns {
            match turn {
                Turn::Ask(asked) => effects.push(Effect::Ask(asked)),
                Turn::Reply(ticket, reply) => effects.push(Effect::Reply(ticket, reply)),
                Turn::Finish(lookup) => self.note(&lookup, &mut effects),
                Turn::Warn(alert) => {
                    effects.extend(self.record(|source| alert.event_line(source)));
                    effects.push(Effect::Tell(alert.message));
                }
                Turn::Tell(text) => effects.push(Effect::Tell(text)),
            }
        }
        effects
    }

    fn note(&mut self, lookup: &Lookup, effects: &mut Vec<Effect>) {
        if lookup.is_refusal() {
            self.refusals.observe_lookup(lookup);
            effects.push(Effect::Refuse(lookup.refusal_line(&self.source)));
        }
        effects.extend(self.record(|source| lookup.event_line(source)));
    }
}

impl Now {
    fn moment(self) -> Moment {
        Moment { second: self.seconds(), wall: self.wall }
    }
}
