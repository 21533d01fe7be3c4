//! One input and the time in, effects out. It owns the state of a run and does nothing itself.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use egress_common::{
    Reason,
    event::{Event, Kind},
};
use jiff::{SignedDuration, Timestamp};

use crate::{
    compile::{self, Changes, CompileError, CompiledPolicy, Update},
    dns::cache::{Answer, Cache, News},
    flow::{Flows, Observation, Refusals, advice, record, record::Source},
    policy::{Destination, DomainName, DomainPattern, Known, Policy},
};

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
    /// A name was asked for, and this came of it.
    Answer(&'a DomainName, &'a Answer),
    /// As many steps as this were taken in the kernel, and the next could not be, for this reason.
    Applied(usize, Result<(), String>),
    /// Time has passed.
    Tick,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Ask for a name.
    Resolve(DomainName),
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
    name_servers: BTreeSet<SocketAddr>,
    cache: Cache,
    in_force: Option<CompiledPolicy>,
    /// What will be in force when the changes on their way are made.
    on_its_way: Option<Update>,
    stale: bool,
    ticked_at: Option<u64>,
    recording: Recording,
    source: Source,
    flows: Flows,
    refusals: Refusals,
    unreadable: u64,
}

impl Engine {
    /// The engine of a run under this policy, in which the workload may ask these name servers.
    pub fn new(policy: Policy, name_servers: BTreeSet<SocketAddr>, recording: Recording) -> Self {
        let names = exact_names(&policy);
        let source = Source { cgroup: String::new(), policy: policy.name.to_string() };
        Self {
            policy,
            name_servers,
            cache: Cache::new(names),
            in_force: None,
            on_its_way: None,
            stale: false,
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
        let known = self.known(now);
        let compiled = compile::compile(&self.policy, &known)?;
        self.cache.settle();
        self.stale = false;
        Ok(self.in_force.insert(compiled))
    }

    /// Names the cgroup in records from now on.
    pub fn name_cgroup(&mut self, path: String) {
        self.source.cgroup = path;
    }

    /// Takes an input and says what is to be done.
    pub fn handle(&mut self, input: Input<'_>, now: Now) -> Vec<Effect> {
        match input {
            Input::Event(event) => self.observe(event, now),
            Input::Answer(name, answer) => self.learn(name, answer, now),
            Input::Applied(taken, outcome) => self.applied(taken, outcome),
            Input::Tick => self.tick(now),
        }
    }

    /// Names without an address.
    pub fn unresolved(&self) -> impl Iterator<Item = &DomainName> {
        self.cache.unresolved()
    }

    /// What went where.
    pub fn flows(&self) -> &Flows {
        &self.flows
    }

    /// What was refused.
    pub fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    /// Whether the workload may ask this name server.
    pub fn is_name_server(&self, address: SocketAddr) -> bool {
        self.name_servers.contains(&address)
    }

    /// The policy.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Addresses of names for which there was no room.
    pub fn addresses_not_added(&self) -> u64 {
        self.cache.not_added()
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
                self.hurry(&observation, now);
                effects.push(Effect::Refuse(advice::refusal_line(&observation, &names, &self.source, time)));
            }
            Kind::Start | Kind::Report | Kind::End => self.flows.observe(&observation, &names),
        }
        match self.recording {
            Recording::Events => {
                effects.push(Effect::Record(record::event_line(&observation, &names, &self.source, time)));
            }
            Recording::Refusals => {}
        }
        effects
    }

    fn hurry(&mut self, refusal: &Observation, now: Now) {
        let may_be_new = matches!(refusal.reason, Reason::NoRule | Reason::Expired);
        if may_be_new && self.cache.hurry(now.seconds()) {
            self.ticked_at = None;
        }
    }

    fn learn(&mut self, name: &DomainName, answer: &Answer, now: Now) -> Vec<Effect> {
        let change = self.cache.answer(name, answer, now.seconds());
        self.stale |= change.addresses;
        let news = change.news.map(|news| match news {
            News::Fail(reason) => format!("`{name}` does not resolve: {reason}; it will be asked for again"),
            News::Recover => format!("`{name}` resolves now"),
            News::Overflow => format!("`{name}` has more addresses than there is room for; some will be refused"),
        });
        news.map(Effect::Tell).into_iter().collect()
    }

    fn tick(&mut self, now: Now) -> Vec<Effect> {
        let mut effects = Vec::new();
        // Ticks come many times a second, and whole seconds are all that names know.
        if self.ticked_at != Some(now.seconds()) {
            self.ticked_at = Some(now.seconds());
            self.stale |= self.cache.expire(now.seconds());
            effects.extend(self.cache.due(now.seconds()).into_iter().map(Effect::Resolve));
        }
        if self.stale && self.in_force.is_some() && self.on_its_way.is_none() {
            self.stale = false;
            effects.extend(self.change(now));
        }
        effects
    }

    /// The way from what is in force to what is known now.
    fn change(&mut self, now: Now) -> Option<Effect> {
        let known = self.known(now);
        let in_force = self.in_force.as_ref()?;
        let update = compile::compile(&self.policy, &known)
            .and_then(|compiled| compile::diff(in_force, compiled, now.map_seconds()));
        match update {
            Ok(update) if update.changes.steps.is_empty() => None,
            Ok(update) => {
                let changes = update.changes.clone();
                self.on_its_way = Some(update);
                Some(Effect::Apply(changes))
            }
            Err(error) => Some(Effect::Tell(format!("new addresses are not allowed: {error}"))),
        }
    }

    fn applied(&mut self, taken: usize, outcome: Result<(), String>) -> Vec<Effect> {
        let Some(Update { mut changes, policy }) = self.on_its_way.take() else { return Vec::new() };
        match outcome {
            Ok(()) => {
                self.in_force = Some(policy);
                Vec::new()
            }
            // What the kernel has now is the start of the next change, which has what failed in it again.
            Err(reason) => {
                changes.steps.truncate(taken);
                if let Some(in_force) = &mut self.in_force {
                    changes.apply(in_force);
                }
                vec![Effect::Tell(format!("new addresses are not allowed: {reason}"))]
            }
        }
    }

    fn known(&mut self, now: Now) -> Known {
        let mut known = Known { addresses: self.cache.tell(), name_servers: self.name_servers.clone() };
        known.forget_expired(now.map_seconds());
        known
    }

    fn names_of(&self, address: IpAddr) -> String {
        let names: Vec<_> = self.cache.names_of(address).map(DomainName::as_str).collect();
        names.join(",")
    }
}

/// The names of the policy that stand for themselves.
fn exact_names(policy: &Policy) -> BTreeSet<DomainName> {
    let names = policy.allow.iter().filter_map(|rule| match &rule.destination {
        Destination::Domain(DomainPattern::Exact(name)) => Some(name.clone()),
        Destination::Domain(DomainPattern::Below(_)) | Destination::Network(_) => None,
    });
    names.collect()
}

#[cfg(test)]
mod tests;
