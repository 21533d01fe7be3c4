//! Refusals, grouped by what was refused and why.

use std::{collections::BTreeMap, net::SocketAddr};

use egress_common::{Reason, Verdict, event::Hook};

use super::{lookup::Lookup, observation::Observation};
use crate::policy::RecordType;

/// Groups of refusals of flows, and as many of questions. An attacker can make new ones at will; those beyond it are only
/// counted.
const GROUPS_MAX: usize = 10_000;

/// What was refused, to whom and why.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Refusal {
    /// The far end, or what was asked for where there is none. The port of an inbound packet is 0, because the peer chose
    /// it.
    pub remote: SocketAddr,
    /// The protocol's number.
    pub protocol: u8,
    /// Why.
    pub reason: Reason,
    /// What the process did.
    pub hook: Hook,
    /// The process's command name.
    pub command: String,
    /// Whether it was let through all the same, as audit mode does.
    pub verdict: Verdict,
}

/// Which question about a name was refused, to whom and why.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RefusedName {
    /// The name as it was asked for, in printable characters.
    pub name: String,
    /// The type that was asked for.
    pub kind: RecordType,
    /// Why, in one word.
    pub reason: &'static str,
    /// The process's command name.
    pub command: String,
    /// Whether it was let through all the same, as audit mode does.
    pub verdict: Verdict,
}

/// Groups of refusals with how many are in each.
#[derive(Clone, Debug, Default)]
pub struct Refusals {
    groups: BTreeMap<Refusal, (u64, String)>,
    names: BTreeMap<RefusedName, u64>,
    other: u64,
}

impl Refusals {
    /// Takes a refusal, with the names of the far end.
    pub fn observe(&mut self, observation: &Observation, names: &str) {
        let refusal = Refusal::of(observation);
        if self.groups.len() >= GROUPS_MAX && !self.groups.contains_key(&refusal) {
            self.other += 1;
            return;
        }
        let (count, known) = self.groups.entry(refusal).or_default();
        *count += 1;
        if !names.is_empty() {
            names.clone_into(known);
        }
    }

    /// Takes a refused question.
    pub fn observe_lookup(&mut self, lookup: &Lookup) {
        let refused = RefusedName {
            name: lookup.name.clone(),
            kind: lookup.kind,
            reason: lookup.reason,
            command: lookup.asker.command.clone(),
            verdict: lookup.verdict,
        };
        if self.names.len() >= GROUPS_MAX && !self.names.contains_key(&refused) {
            self.other += 1;
            return;
        }
        *self.names.entry(refused).or_default() += 1;
    }

    /// Every group of refused questions with its count.
    pub fn names(&self) -> impl Iterator<Item = (&RefusedName, u64)> {
        self.names.iter().map(|(refused, count)| (refused, *count))
    }

    /// Every group with its count and the names of its far end.
    pub fn groups(&self) -> impl Iterator<Item = (&Refusal, u64, &str)> {
        self.groups.iter().map(|(refusal, (count, names))| (refusal, *count, names.as_str()))
    }

    /// Refusals beyond the limit of groups.
    pub fn other(&self) -> u64 {
        self.other
    }

    /// All refusals.
    pub fn count(&self) -> u64 {
        let counts = self.groups.values().map(|(count, _)| count).chain(self.names.values());
        counts.sum::<u64>().saturating_add(self.other)
    }
}

impl Refusal {
    fn of(observation: &Observation) -> Self {
        let mut remote = observation.remote;
        if observation.hook == Hook::Ingress {
            remote.set_port(0);
        }
        Self {
            remote,
            protocol: observation.protocol,
            reason: observation.reason,
            hook: observation.hook,
            command: observation.command.clone(),
            verdict: observation.verdict,
        }
    }
}

#[cfg(test)]
mod tests {
    use egress_common::event::Event;

    use super::*;
    use crate::flow::observation::tests::refusal;

    #[test]
    fn equal_refusals_are_counted_together_and_others_apart() {
        let mut refusals = Refusals::default();
        for (port, command) in [(443, "curl"), (443, "curl"), (22, "curl"), (443, "wget")] {
            refusals.observe(&read(&Event { remote_port: port, ..refusal(command) }), "");
        }
        let counts: Vec<_> =
            refusals.groups().map(|(group, count, _)| (group.remote.port(), &*group.command, count)).collect();
        assert_eq!(counts, [(22, "curl", 1), (443, "curl", 2), (443, "wget", 1)]);
        assert_eq!(refusals.count(), 4);
    }

    #[test]
    fn groups_beyond_the_limit_are_counted() {
        let mut refusals = Refusals::default();
        for index in 0..u32::try_from(GROUPS_MAX).unwrap() + 3 {
            let remote = egress_common::Address::from_v4(index.to_be_bytes());
            refusals.observe(&read(&Event { remote, ..refusal("scan") }), "");
        }
        assert_eq!((refusals.other(), refusals.count()), (3, GROUPS_MAX as u64 + 3));
    }

    fn read(event: &Event) -> Observation {
        Observation::read(event).unwrap()
    }
}
