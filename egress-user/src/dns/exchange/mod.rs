//! Questions of workloads from their arrival to their reply, and the questions to name servers that this takes.
//!
//! An answer waits in here until the kernel has its addresses: whoever owns this says when.

mod alerts;
mod client;
mod learn;
mod reverse;
mod waiting;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use jiff::Timestamp;

use self::{
    alerts::Alerts,
    client::{Client, Refused},
    learn::{resolved, tell},
    waiting::{Pending, Waiting},
};
use super::{
    admission::{self, Admission, Refusal},
    budget::Ledger,
    cache::{Addresses, Ahead, Answers, Found, Resolved},
    message::{self, Unreadable},
    question::{Answer, Asked, Asker, Outcome, Ticket, Transport},
    release::{self, Release},
};
use crate::{
    flow::{Alert, Lookup, lookup::Origin},
    policy::{DomainName, Mode, Policy},
};

/// A client's message.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    /// What the reply is to be marked with.
    pub ticket: Ticket,
    /// Who sent it.
    pub asker: &'a Asker,
    /// How it came.
    pub transport: Transport,
    /// Its bytes.
    pub message: &'a [u8],
}

/// The time, for the cache and for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Second of `CLOCK_BOOTTIME`.
    pub second: u64,
    /// The same moment for people.
    pub wall: Timestamp,
}

/// What comes of a message, an answer, or time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Ask the name servers.
    Ask(Asked),
    /// Send the client this, or nothing at all.
    Reply(Ticket, Option<Vec<u8>>),
    /// A question has been answered.
    Finish(Box<Lookup>),
    /// Somebody should look at this.
    Warn(Box<Alert>),
    /// A person should hear this.
    Tell(String),
}

/// Everything about names that a run knows.
#[derive(Debug)]
pub struct Exchange {
    addresses: Addresses,
    answers: Answers,
    ahead: Ahead,
    waiting: Waiting,
    /// Replies that leave once the kernel has their addresses.
    ready: Vec<Ready>,
    ledgers: BTreeMap<u32, Ledger>,
    alerts: Alerts,
    /// Addresses of which the kernel is to be told, or that it is to forget.
    changed: BTreeSet<IpAddr>,
    not_added: u64,
    unreadable: u64,
}

/// An answer and the client that waits for it.
#[derive(Debug)]
struct Ready {
    client: Client,
    release: Arc<Release>,
    since: u64,
    origin: Origin,
}

/// How an admitted question is treated on its way.
#[derive(Clone, Copy, Debug)]
struct Way {
    /// Whether its answer opens addresses.
    learns: bool,
    /// Whether it counts against the budget.
    counts: bool,
}

impl Exchange {
    /// Knows nothing yet about these names, which are asked for in advance.
    pub fn new(policy: &Policy, names: impl IntoIterator<Item = DomainName>) -> Self {
        Self {
            addresses: Addresses::new(&policy.dns),
            answers: Answers::default(),
            ahead: Ahead::new(names, &policy.dns.types),
            waiting: Waiting::default(),
            ready: Vec::new(),
            ledgers: BTreeMap::new(),
            alerts: Alerts::default(),
            changed: BTreeSet::new(),
            not_added: 0,
            unreadable: 0,
        }
    }

    /// Takes a client's message.
    pub fn question(&mut self, policy: &Policy, arrival: Arrival<'_>, now: Moment) -> Vec<Turn> {
        let Arrival { ticket, asker, transport, message } = arrival;
        let question = match message::read(message) {
            Ok(question) => question,
            Err(unreadable) => {
                self.unreadable += 1;
                let reply = match unreadable {
                    Unreadable::Silent => None,
                    Unreadable::Reply(reply) => Some(reply),
                };
                return vec![Turn::Reply(ticket, reply)];
            }
        };
        let client = Client { ticket, asker: asker.clone(), transport, question, time: now.wall, exempt: None };
        match admission::admit(policy, &client.question) {
            Admission::Forward { below } => self.forward(policy, client, Way { learns: true, counts: below }, now),
            Admission::NameOf(address) => self.name_of(policy, client, address, now),
            Admission::Refuse(refusal) => self.refuse(policy, client, refusal, now),
        }
    }

    /// Takes what came of asking the name servers.
    pub fn answered(&mut self, policy: &Policy, asked: &Asked, outcome: &Outcome, now: Moment) -> Vec<Turn> {
        let Some(pending) = self.waiting.take(asked) else { return Vec::new() };
        let Outcome { answer, took } = outcome;
        match answer {
            Ok(answer) => self.released(policy, asked, answer, pending, Origin::Upstream(*took), now),
            Err(reason) => self.failed(asked, reason, pending, Origin::Upstream(*took), now),
        }
    }

    /// Time has passed: a second or more.
    pub fn tick(&mut self, now: Moment) -> Vec<Turn> {
        self.changed.extend(self.addresses.expire(now.second));
        self.answers.expire(now.second);
        self.alerts.expire(now.second);
        self.ledgers.retain(|_, ledger| {
            ledger.forget(now.second);
            !ledger.is_empty()
        });
        let mut turns = Vec::new();
        for (asked, pending) in self.waiting.overdue(now.second) {
            turns.extend(self.failed(&asked, "the name servers did not answer in time", pending, Origin::Policy, now));
        }
        turns
    }

    /// What is to be asked for in advance.
    pub fn ask_ahead(&mut self, now: Moment) -> Vec<Turn> {
        let due = self.ahead.due(now.second);
        self.ask_all(due, now)
    }

    /// The same, without what was asked for before: whoever waits for the answers comes to an end.
    pub fn ask_first(&mut self, now: Moment) -> Vec<Turn> {
        let first = self.ahead.first();
        self.ask_all(first, now)
    }

    fn ask_all(&mut self, all: Vec<Asked>, now: Moment) -> Vec<Turn> {
        let new = all.into_iter().filter(|asked| self.waiting.ask(asked, true, now.second));
        new.map(Turn::Ask).collect()
    }

    /// The replies whose addresses are in the kernel, which has none of those that are behind.
    pub fn leave(&mut self, is_behind: impl Fn(IpAddr) -> bool, now: Moment) -> Vec<Turn> {
        let waits = |ready: &Ready| ready.release.addresses.iter().any(|(address, _)| is_behind(*address));
        let (stay, leave) = std::mem::take(&mut self.ready).into_iter().partition(waits);
        self.ready = stay;
        let turns = leave.into_iter().flat_map(|Ready { client, release, since, origin }| {
            let age = u32::try_from(now.second.saturating_sub(since)).unwrap_or(u32::MAX);
            // Whoever gets it later than this would use the addresses for longer than they are allowed.
            if release.addresses.is_empty() || age <= release.ttl.saturating_add(1) {
                client.answer(&release, age, origin)
            } else {
                client.turn_away("not_applied", "its addresses could not be allowed in time", origin)
            }
        });
        turns.collect()
    }

    /// The replies that cannot leave because the kernel did not take these addresses.
    pub fn give_up(&mut self, failed: &BTreeSet<IpAddr>, reason: &str) -> Vec<Turn> {
        let fails = |ready: &Ready| ready.release.addresses.iter().any(|(address, _)| failed.contains(address));
        let (given_up, stay) = std::mem::take(&mut self.ready).into_iter().partition(fails);
        self.ready = stay;
        let text = format!("its addresses could not be allowed: {reason}");
        let turns = given_up.into_iter().flat_map(|ready| ready.client.turn_away("not_applied", &text, ready.origin));
        turns.collect()
    }

    /// The addresses of names.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// The addresses of names, for whoever tells the kernel of them.
    pub fn addresses_mut(&mut self) -> &mut Addresses {
        &mut self.addresses
    }

    /// Addresses that changed since this was asked last.
    pub fn take_changed(&mut self) -> BTreeSet<IpAddr> {
        std::mem::take(&mut self.changed)
    }

    /// Names of the policy that have no address.
    pub fn unresolved(&self) -> impl Iterator<Item = &DomainName> {
        self.ahead.names().filter(|name| !self.addresses.has(name))
    }

    /// Addresses that were taken out of an answer because there was no room.
    pub fn not_added(&self) -> u64 {
        self.not_added
    }

    /// Messages that were no question.
    pub fn unreadable(&self) -> u64 {
        self.unreadable
    }

    /// A question that the policy has something against.
    fn refuse(&mut self, policy: &Policy, mut client: Client, refusal: Refusal, now: Moment) -> Vec<Turn> {
        let is_over_budget = matches!(refusal, Refusal::LongLabel | Refusal::OverBudget(_));
        let refused = Refused::by(refusal, &client.question, policy);
        let warning = if is_over_budget { self.alerts.warn(&client.asker, &refused, now) } else { None };
        let mut turns: Vec<Turn> = warning.map(Turn::Warn).into_iter().collect();
        match policy.mode {
            Mode::Enforce => turns.extend(client.refuse(policy.dns.refuse, refused)),
            Mode::Audit => {
                client.exempt = Some(refused);
                turns.extend(self.forward(policy, client, Way { learns: false, counts: false }, now));
            }
        }
        turns
    }

    fn forward(&mut self, policy: &Policy, mut client: Client, way: Way, now: Moment) -> Vec<Turn> {
        let Some(name) = client.question.name().cloned() else {
            return client.turn_away("not_a_name", "such a name cannot be asked for", Origin::Policy).into();
        };
        let asked = Asked { name, kind: client.question.kind() };
        match self.answers.find(&asked, now.second) {
            Some(Found::Release(release, since)) => return self.serve(policy, client, release, since, Origin::Cache),
            Some(Found::Failure(reason)) => return client.fail(&reason, Origin::Cache).into(),
            None => {}
        }
        if let Some(reason) = self.waiting.is_full(client.asker.workload, self.ready.len()) {
            return client.turn_away("busy", reason, Origin::Policy).into();
        }
        let mut turns = Vec::new();
        if way.counts && !self.waiting.is_asked(&asked) {
            let ledger = self.ledgers.entry(client.asker.workload).or_default();
            if let Err(over) = ledger.charge(&policy.dns.budget, &asked.name, now.second) {
                let refused = Refused::by(Refusal::OverBudget(over), &client.question, policy);
                turns.extend(self.alerts.warn(&client.asker, &refused, now).map(Turn::Warn));
                match policy.mode {
                    Mode::Enforce => {
                        turns.extend(client.refuse(policy.dns.refuse, refused));
                        return turns;
                    }
                    Mode::Audit => client.exempt = Some(refused),
                }
            }
        }
        if self.waiting.ask(&asked, way.learns, now.second) {
            turns.push(Turn::Ask(asked.clone()));
        }
        self.waiting.join(&asked, client);
        turns
    }

    /// The names of an address: those by which we know it, and else what name servers say of an address that the policy
    /// reaches.
    fn name_of(&mut self, policy: &Policy, client: Client, address: IpAddr, now: Moment) -> Vec<Turn> {
        if let Some(release) = reverse::release(&client.question, self.addresses.names_of(address)) {
            return client.answer(&release, 0, Origin::Cache).into();
        }
        if policy.reaches(address) {
            return self.forward(policy, client, Way { learns: false, counts: false }, now);
        }
        self.refuse(policy, client, Refusal::UnknownAddress(address), now)
    }

    fn released(
        &mut self,
        policy: &Policy,
        asked: &Asked,
        answer: &Answer,
        pending: Pending,
        origin: Origin,
        now: Moment,
    ) -> Vec<Turn> {
        let mut release = release::release(policy, asked, answer);
        if policy.mode == Mode::Audit {
            // What only audits changes nothing that a workload can see.
            release.records.clone_from(&answer.records);
        }
        let mut turns = Vec::new();
        let had = !release.addresses.is_empty();
        if pending.learns {
            turns.extend(self.learn(policy, asked, &mut release, now));
        }
        let news = self.ahead.answer(asked, resolved(&release), now.second);
        turns.extend(tell(&asked.name, news));
        if had && release.addresses.is_empty() && policy.mode == Mode::Enforce {
            let text = "there is no room for its addresses; `dns.addresses` of the policy says how many there may be";
            self.answers.keep_failure(asked, text, now.second);
            turns.extend(pending.clients.into_iter().flat_map(|client| client.turn_away("no_room", text, origin)));
            return turns;
        }
        let release = Arc::new(release);
        self.answers.keep(asked, release.clone(), now.second);
        for client in pending.clients {
            turns.extend(self.serve(policy, client, release.clone(), now.second, origin));
        }
        turns
    }

    fn failed(&mut self, asked: &Asked, reason: &str, pending: Pending, origin: Origin, now: Moment) -> Vec<Turn> {
        self.answers.keep_failure(asked, reason, now.second);
        let news = self.ahead.answer(asked, Resolved::Fail(reason.to_owned()), now.second);
        let mut turns: Vec<Turn> = tell(&asked.name, news).into_iter().collect();
        turns.extend(pending.clients.into_iter().flat_map(|client| client.fail(reason, origin)));
        turns
    }

    /// Gives a client an answer that is there.
    fn serve(
        &mut self,
        policy: &Policy,
        mut client: Client,
        release: Arc<Release>,
        since: u64,
        origin: Origin,
    ) -> Vec<Turn> {
        if let Some(withheld) = release.withheld.first().filter(|_| release.is_withheld()) {
            let refused = Refused::by(Refusal::Withheld(*withheld), &client.question, policy);
            match policy.mode {
                Mode::Enforce => return client.refuse_with(policy.dns.refuse, refused, &release, origin).into(),
                Mode::Audit => client.exempt = client.exempt.or(Some(refused)),
            }
        }
        self.ready.push(Ready { client, release, since, origin });
        Vec::new()
    }
}
