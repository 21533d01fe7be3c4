//! One input and the time in, effects out. It owns the state of a run and does nothing itself.

mod maps;
mod questions;

use std::{collections::BTreeSet, net::IpAddr};

use egress_common::event::{Event, Kind};
use jiff::{SignedDuration, Timestamp};

use self::maps::Maps;
use crate::{
    compile::{Changes, CompileError, CompiledPolicy},
    dns::{
        exchange::{Arrival, Exchange},
        question::{Asked, Asker, Outcome, Ticket, Transport},
    },
    flow::{Flows, Observation, Refusals, advice, record, record::Source},
    policy::{Destination, DomainName, DomainPattern, Policy},
};

/// Names of one address in a record. Most have one or two; below a wildcard thousands can share one, and each event would
/// cost as much. The others are left out.
const NAMES_MAX: usize = 16;

/// The time, as the shell that read the clocks hands it in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Nanoseconds of `CLOCK_BOOTTIME`, the clock of the kernel half.
    pub boot_nanoseconds: u64,
    /// The same moment for people.
    pub wall: Timestamp,
}

impl Now {
    /// Seconds of `CLOCK_BOOTTIME`.
    pub fn seconds(self) -> u64 {
        self.boot_nanoseconds / 1_000_000_000
    }

    /// Seconds of `CLOCK_BOOTTIME` as map entries hold them.
    pub fn map_seconds(self) -> u32 {
        u32::try_from(self.seconds()).unwrap_or(u32::MAX)
    }

    /// A moment of `CLOCK_BOOTTIME` for people.
    fn wall_of(self, boot_nanoseconds: u64) -> Timestamp {
        let ago = i128::from(self.boot_nanoseconds) - i128::from(boot_nanoseconds);
        let ago = i64::try_from(ago).map_or(SignedDuration::ZERO, SignedDuration::from_nanos);
        self.wall.checked_sub(ago).unwrap_or(self.wall)
    }
}

/// What happened.
#[derive(Debug)]
pub enum Input<'a> {
    /// The kernel half tells something.
    Event(&'a Event),
    /// A client of a governed workload sent this message to a name server.
    Question(Ticket, &'a Asker, Transport, &'a [u8]),
    /// Name servers were asked, and this came of it.
    Answered(&'a Asked, &'a Outcome),
    /// As many steps as this were taken in the kernel, and the next could not be, for this reason.
    Applied(usize, Result<(), String>),
    /// Time has passed.
    Tick,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Ask the name servers, and say what came of it in any case.
    Ask(Asked),
    /// Send the client this reply, or none at all and end its connection.
    Reply(Ticket, Option<Vec<u8>>),
    /// Change the maps, and say how it went.
    Apply(Changes),
    /// Add a line to the record of events.
    Record(String),
    /// Add a line to the file of refusals.
    Refuse(String),
    /// Tell the person who runs this.
    Tell(String),
}

/// Which records are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recording {
    /// Every event becomes a line.
    Events,
    /// Only refusals become lines, in their own file.
    Refusals,
}

/// The state of a run.
#[derive(Debug)]
pub struct Engine {
    policy: Policy,
    exchange: Exchange,
    maps: Maps,
    /// Why the kernel did not take a change, as it was told last.
    told_failure: Option<String>,
    ticked_at: Option<u64>,
    recording: Recording,
    source: Source,
    flows: Flows,
    refusals: Refusals,
    unreadable: u64,
}

impl Engine {
    /// The engine of a run under this policy.
    pub fn new(policy: Policy, recording: Recording) -> Self {
        let names = exact_names(&policy);
        let source = Source { cgroup: String::new(), policy: policy.name.to_string() };
        Self {
            exchange: Exchange::new(&policy, names),
            maps: Maps::new(&policy),
            policy,
            told_failure: None,
            ticked_at: None,
            recording,
            source,
            flows: Flows::default(),
            refusals: Refusals::default(),
            unreadable: 0,
        }
    }

    /// Compiles the policy with the addresses that are known. From now on changes are made to what this returns.
    pub fn begin(&mut self, now: Now) -> Result<&CompiledPolicy, CompileError> {
        self.maps.begin(&self.policy, self.exchange.addresses_mut(), now.map_seconds())
    }

    /// Names the cgroup in records from now on.
    pub fn name_cgroup(&mut self, path: String) {
        self.source.cgroup = path;
    }

    /// Takes an input and says what is to be done.
    pub fn handle(&mut self, input: Input<'_>, now: Now) -> Vec<Effect> {
        let mut effects = match input {
            Input::Event(event) => self.observe(event, now),
            Input::Question(ticket, asker, transport, message) => {
                self.ask(Arrival { ticket, asker, transport, message }, now)
            }
            Input::Answered(asked, outcome) => self.answered(asked, outcome, now),
            Input::Applied(taken, outcome) => self.applied(taken, outcome),
            Input::Tick => self.tick(now),
        };
        effects.extend(self.settle(now));
        effects
    }

    /// Names without an address.
    pub fn unresolved(&self) -> impl Iterator<Item = &DomainName> {
        self.exchange.unresolved()
    }

    /// What went where.
    pub fn flows(&self) -> &Flows {
        &self.flows
    }

    /// What was refused.
    pub fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    /// The policy.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Addresses of names for which there was no room.
    pub fn addresses_not_added(&self) -> u64 {
        self.exchange.not_added()
    }

    /// Messages to name servers that were no question.
    pub fn unreadable_messages(&self) -> u64 {
        self.exchange.unreadable()
    }

    /// Events of the kernel half that made no sense.
    pub fn unreadable_events(&self) -> u64 {
        self.unreadable
    }

    fn observe(&mut self, event: &Event, now: Now) -> Vec<Effect> {
        let Some(observation) = Observation::read(event) else {
            self.unreadable += 1;
            return Vec::new();
        };
        let names = self.names_of(observation.remote.ip());
        let time = now.wall_of(observation.time_nanoseconds);
        let mut effects = Vec::new();
        match observation.kind {
            Kind::Refusal => {
                self.refusals.observe(&observation, &names);
                effects.push(Effect::Refuse(advice::refusal_line(&observation, &names, &self.source, time)));
            }
            Kind::Start | Kind::Report | Kind::End => self.flows.observe(&observation, &names),
        }
        effects.extend(self.record(|source| record::event_line(&observation, &names, source, time)));
        effects
    }

    /// A line of the record of events, if that is wanted.
    fn record(&self, line: impl FnOnce(&Source) -> String) -> Option<Effect> {
        match self.recording {
            Recording::Events => Some(Effect::Record(line(&self.source))),
            Recording::Refusals => None,
        }
    }

    fn names_of(&self, address: IpAddr) -> String {
        let names = self.exchange.addresses().names_of(address).map(DomainName::as_str);
        names.take(NAMES_MAX).collect::<Vec<_>>().join(",")
    }
}

/// The names of the policy that stand for themselves.
pub fn exact_names(policy: &Policy) -> BTreeSet<DomainName> {
    let names = policy.allow.iter().filter_map(|rule| match &rule.destination {
        Destination::Domain(DomainPattern::Exact(name)) => Some(name.clone()),
        Destination::Domain(DomainPattern::Below(_)) | Destination::Network(_) => None,
    });
    names.collect()
}

#[cfg(test)]
mod tests;
