//! Names that are resolved before anybody asks: when each family of their addresses is asked for again.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    dns::question::Asked,
    policy::{DomainName, RecordType},
};

/// Least seconds between two questions for one name. A TTL of 0 means that the answer changes often, so a longer wait
/// would refuse connections; a shorter one would be a flood.
pub const REFRESH_SECONDS_MIN: u64 = 1;

/// Most seconds between two questions for a name that does not resolve. The wait doubles up to it.
pub const RETRY_SECONDS_MAX: u64 = 60;

/// Questions in advance that are on their way at once. Ten thousand names at 20 ms each are asked for within seconds, and
/// neither name servers nor the workload's own questions suffer.
pub const AT_ONCE: usize = 64;

/// The types of addresses.
const FAMILIES: [RecordType; 2] = [RecordType::A, RecordType::AAAA];

/// The exact names of a policy.
#[derive(Debug)]
pub struct Ahead {
    /// The families of addresses that are asked for.
    families: Vec<RecordType>,
    names: BTreeMap<DomainName, Name>,
    /// What is not on its way, by the second in which it is to be.
    due: BTreeSet<(u64, Asked)>,
    on_the_way: BTreeSet<Asked>,
}

#[derive(Debug, Default)]
struct Name {
    families: BTreeMap<RecordType, Family>,
    told: bool,
}

#[derive(Debug, Default)]
struct Family {
    due_at: u64,
    /// Failures in a row.
    failures: u32,
    last: Option<Resolved>,
}

/// What a question for one family of addresses came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolved {
    /// There are some, for as many seconds as the least TTL.
    Addresses(u32),
    /// There are none, which is certain for as many seconds, for this reason.
    Nothing(u32, &'static str),
    /// Nobody answered, for this reason.
    Fail(String),
}

/// What a person should hear about a name, once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// The name does not resolve, for this reason. It is asked for again.
    Fail(String),
    /// The name resolves again.
    Recover,
}

impl Ahead {
    /// These names, all of which are due, with the families of addresses that are among the types.
    pub fn new(names: impl IntoIterator<Item = DomainName>, types: &BTreeSet<RecordType>) -> Self {
        let families: Vec<RecordType> = FAMILIES.into_iter().filter(|family| types.contains(family)).collect();
        let names: BTreeMap<DomainName, Name> = names.into_iter().map(|name| (name, Name::default())).collect();
        let asked = |name: &DomainName| {
            let asked = families.iter().map(|kind| (0, Asked { name: name.clone(), kind: *kind }));
            asked.collect::<Vec<_>>()
        };
        Self { due: names.keys().flat_map(asked).collect(), families, names, on_the_way: BTreeSet::new() }
    }

    /// What has never been asked for.
    pub fn first(&mut self) -> Vec<Asked> {
        self.due(0)
    }

    /// What to ask for now. Each is given out once and is due again after its answer.
    pub fn due(&mut self, now: u64) -> Vec<Asked> {
        let mut due = Vec::new();
        while self.on_the_way.len() < AT_ONCE
            && self.due.first().is_some_and(|(at, _)| *at <= now)
            && let Some((_, asked)) = self.due.pop_first()
        {
            self.on_the_way.insert(asked.clone());
            due.push(asked);
        }
        due
    }

    /// Takes what a question came to, whoever asked it.
    pub fn answer(&mut self, asked: &Asked, resolved: Resolved, now: u64) -> Option<News> {
        self.on_the_way.remove(asked);
        let name = self.names.get_mut(&asked.name).filter(|_| self.families.contains(&asked.kind))?;
        let family = name.families.entry(asked.kind).or_default();
        self.due.remove(&(family.due_at, asked.clone()));
        family.due_at = now.saturating_add(family.wait(&resolved));
        family.last = Some(resolved);
        self.due.insert((family.due_at, asked.clone()));
        name.news(self.families.len())
    }

    /// The names.
    pub fn names(&self) -> impl Iterator<Item = &DomainName> {
        self.names.keys()
    }
}

impl Family {
    fn wait(&mut self, resolved: &Resolved) -> u64 {
        let wait = match resolved {
            Resolved::Addresses(ttl) => {
                self.failures = 0;
                u64::from(*ttl)
            }
            Resolved::Nothing(ttl @ 1.., _) => {
                self.failures = 0;
                RETRY_SECONDS_MAX.min(u64::from(*ttl))
            }
            Resolved::Nothing(0, _) | Resolved::Fail(_) => {
                let wait = 1 << self.failures.min(6);
                self.failures = self.failures.saturating_add(1);
                RETRY_SECONDS_MAX.min(wait)
            }
        };
        wait.max(REFRESH_SECONDS_MIN)
    }
}

impl Name {
    /// One family is enough. What is wrong is told when all have been asked for.
    fn news(&mut self, families: usize) -> Option<News> {
        let mut reason: Option<&str> = None;
        let mut count = 0;
        let mut resolves = false;
        for last in self.families.values().filter_map(|family| family.last.as_ref()) {
            count += 1;
            match last {
                Resolved::Addresses(_) => resolves = true,
                Resolved::Nothing(_, why) => reason = reason.or(Some(why)),
                // A failure hides what is there, so it comes before what is not there.
                Resolved::Fail(why) => reason = Some(why),
            }
        }
        match (resolves, self.told) {
            (true, true) => {
                self.told = false;
                Some(News::Recover)
            }
            (false, false) if count == families => {
                self.told = true;
                Some(News::Fail(reason.unwrap_or("it has no addresses").to_owned()))
            }
            (true | false, _) => None,
        }
    }
}
