//! What is known about names: their addresses, how long each may be used, and when to ask again.
//!
//! Seconds are those of `CLOCK_BOOTTIME`, which the kernel half compares expiries with.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::policy::DomainName;

/// Seconds that an address stays usable after its last TTL ended. Five minutes, because clients and the libraries in them
/// go on using an address that they have resolved well past its TTL: browsers and the JVM for minutes.
pub const GRACE_SECONDS: u64 = 300;

/// Seconds by which the expiry in the kernel is later than ours, so that it only counts when this process is dead.
pub const BACKSTOP_SECONDS: u64 = 60;

/// Seconds by which an address outlives what the kernel was told before the kernel is told again. Half of
/// [`BACKSTOP_SECONDS`], so it always expires there last, and the maps of a name with a short TTL are not written at
/// every answer.
const RETELL_SECONDS: u64 = BACKSTOP_SECONDS / 2;

/// Least seconds between two questions for one name. A TTL of 0 means that the answer changes often, so a longer wait
/// would refuse connections; a shorter one would be a flood.
pub const REFRESH_SECONDS_MIN: u64 = 1;

/// Most seconds between two questions for a name that does not resolve. The wait doubles up to it.
pub const RETRY_SECONDS_MAX: u64 = 60;

/// Names of a policy whose addresses are asked for before their time when the workload is refused. Of more, each stray
/// packet would set off a flood.
const HURRIED_NAMES_MAX: usize = 64;

/// Addresses per name. The largest pools that rotate a few addresses per answer stay below it within the grace. An
/// address beyond it is not added, and counted.
pub const ADDRESSES_PER_NAME_MAX: usize = 1024;

/// Addresses of all names together, when a run begins: 64 bytes of kernel memory each, so 4 MiB. An address beyond it is
/// not added, and counted.
pub const ADDRESSES_MAX: usize = 65_536;

/// Addresses that may come on top of those that were known when the run began, which is what the kernel's maps keep free.
/// An address beyond it is not added, and counted.
pub const ADDRESSES_SPARE: usize = 4096;

/// What a name resolved to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Addresses, each with its TTL in seconds.
    pub addresses: Vec<(IpAddr, u32)>,
    /// Why one or both families have no addresses, where that is not simply so.
    pub failure: Option<String>,
}

/// What an answer changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// The kernel is to be told of an address or of a later end.
    pub addresses: bool,
    /// What a person should hear about it.
    pub news: Option<News>,
}

/// What a person should hear about a name, once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// The name does not resolve, for this reason. It is asked for again.
    Fail(String),
    /// The name resolves again.
    Recover,
    /// The name has more addresses than there is room for.
    Overflow,
}

/// Names and their addresses.
#[derive(Clone, Debug)]
pub struct Cache {
    names: BTreeMap<DomainName, Entry>,
    owners: BTreeMap<IpAddr, BTreeSet<DomainName>>,
    total: usize,
    room: usize,
    not_added: u64,
}

/// What is known about one name.
#[derive(Clone, Debug, Default)]
struct Entry {
    addresses: BTreeMap<IpAddr, Validity>,
    /// The second in which it was last made due before its time.
    hurried_at: u64,
    refresh_at: u64,
    /// A question is on its way.
    asked: bool,
    /// Failures in a row.
    failures: u32,
    reported: bool,
    overflow_reported: bool,
}

/// How long an address is valid.
#[derive(Clone, Copy, Debug)]
struct Validity {
    /// The second in which its last TTL ends.
    until: u64,
    /// The same, as the kernel was told last.
    told: u64,
}

impl Cache {
    /// A cache that knows nothing about these names, all of which are due.
    pub fn new(names: impl IntoIterator<Item = DomainName>) -> Self {
        let names = names.into_iter().map(|name| (name, Entry::default())).collect();
        Self { names, owners: BTreeMap::new(), total: 0, room: ADDRESSES_MAX, not_added: 0 }
    }

    /// Leaves room for no more addresses than the kernel's maps, which are made now, will have.
    pub fn settle(&mut self) {
        self.room = self.total + ADDRESSES_SPARE;
    }

    /// Names to ask for now. Each is given out once and is due again after its answer.
    pub fn due(&mut self, now: u64) -> Vec<DomainName> {
        let due = self.names.iter_mut().filter(|(_, entry)| !entry.asked && entry.refresh_at <= now);
        due.map(|(name, entry)| {
            entry.asked = true;
            name.clone()
        })
        .collect()
    }

    /// Makes names due before their time: the workload was refused, perhaps because a name server has told it of an
    /// address that it has not told us yet. Once a second for each name. Says whether there are any.
    pub fn hurry(&mut self, now: u64) -> bool {
        let mut any = false;
        let few = self.names.len() <= HURRIED_NAMES_MAX;
        for entry in self.names.values_mut().filter(|entry| few && !entry.asked && entry.failures == 0) {
            if entry.hurried_at < now && now < entry.refresh_at {
                entry.hurried_at = now;
                entry.refresh_at = now;
                any = true;
            }
        }
        any
    }

    /// Takes the answer for a name. An address that is not in it any more stays until its grace ends.
    pub fn answer(&mut self, name: &DomainName, answer: &Answer, now: u64) -> Change {
        let Some(entry) = self.names.get_mut(name) else {
            return Change::default();
        };
        let Answer { addresses, failure } = answer;
        let (mut changed, mut overflow) = (false, false);
        for (address, ttl) in addresses {
            // An IPv4-mapped address is the IPv4 address, for the kernel as for us.
            let address = address.to_canonical();
            let until = now.saturating_add(u64::from(*ttl));
            if let Some(known) = entry.addresses.get_mut(&address) {
                known.until = until.max(known.until);
                changed |= known.until >= known.told.saturating_add(RETELL_SECONDS);
            } else if entry.addresses.len() < ADDRESSES_PER_NAME_MAX && self.total < self.room {
                changed = true;
                entry.addresses.insert(address, Validity { until, told: until });
                self.owners.entry(address).or_default().insert(name.clone());
                self.total += 1;
            } else {
                overflow = true;
                self.not_added += 1;
            }
        }
        entry.schedule(answer, now);
        let news = if overflow && !entry.overflow_reported {
            entry.overflow_reported = true;
            Some(News::Overflow)
        } else {
            entry.news(addresses.is_empty(), failure.as_deref())
        };
        Change { addresses: changed, news }
    }

    /// Forgets the addresses whose grace has ended, and says whether there were any.
    pub fn expire(&mut self, now: u64) -> bool {
        let before = self.total;
        for (name, entry) in &mut self.names {
            let gone = entry.addresses.extract_if(.., |_, known| known.until.saturating_add(GRACE_SECONDS) <= now);
            for (address, _) in gone {
                self.total -= 1;
                if let Some(owners) = self.owners.get_mut(&address) {
                    owners.remove(name);
                    if owners.is_empty() {
                        self.owners.remove(&address);
                    }
                }
            }
        }
        self.total != before
    }

    /// What the kernel is told: every name with its addresses and the second in which each is to be forgotten there, if
    /// nobody has taken it out before.
    pub fn tell(&mut self) -> BTreeMap<DomainName, BTreeMap<IpAddr, u32>> {
        let known = self.names.iter_mut().filter(|(_, entry)| !entry.addresses.is_empty());
        known
            .map(|(name, entry)| {
                let addresses = entry.addresses.iter_mut().map(|(address, known)| {
                    known.told = known.until;
                    (*address, backstop(known.told))
                });
                (name.clone(), addresses.collect())
            })
            .collect()
    }

    /// The names that resolved to an address.
    pub fn names_of(&self, address: IpAddr) -> impl Iterator<Item = &DomainName> {
        self.owners.get(&address.to_canonical()).into_iter().flatten()
    }

    /// Names that have no address.
    pub fn unresolved(&self) -> impl Iterator<Item = &DomainName> {
        self.names.iter().filter(|(_, entry)| entry.addresses.is_empty()).map(|(name, _)| name)
    }

    /// Addresses of all names together.
    pub fn total(&self) -> usize {
        self.total
    }

    /// Addresses that were not added because there was no room.
    pub fn not_added(&self) -> u64 {
        self.not_added
    }
}

impl Entry {
    fn schedule(&mut self, answer: &Answer, now: u64) {
        let Answer { addresses, failure } = answer;
        self.asked = false;
        let retry = if addresses.is_empty() || failure.is_some() {
            let wait = 1 << self.failures.min(6);
            self.failures = self.failures.saturating_add(1);
            Some(RETRY_SECONDS_MAX.min(wait))
        } else {
            self.failures = 0;
            None
        };
        let ttl = addresses.iter().map(|(_, ttl)| u64::from(*ttl)).min();
        // Of a partial answer the half that is there may have the shorter wait.
        let wait = ttl.into_iter().chain(retry).min().unwrap_or(RETRY_SECONDS_MAX);
        self.refresh_at = now.saturating_add(wait.max(REFRESH_SECONDS_MIN));
    }

    fn news(&mut self, empty: bool, failure: Option<&str>) -> Option<News> {
        match (empty, self.reported) {
            (true, false) => {
                self.reported = true;
                Some(News::Fail(failure.unwrap_or("it has no addresses").to_owned()))
            }
            (false, true) => {
                self.reported = false;
                Some(News::Recover)
            }
            (true, true) | (false, false) => None,
        }
    }
}

/// The kernel's expiry of an address. 0 would mean never, and cannot come out of the sum.
fn backstop(until: u64) -> u32 {
    let second = until.saturating_add(GRACE_SECONDS + BACKSTOP_SECONDS);
    u32::try_from(second).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
