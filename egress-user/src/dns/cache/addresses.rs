//! Addresses of names, and until when the kernel lets each be used.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::policy::{AddressLimits, Dns, DomainName};

/// Seconds by which the expiry in the kernel is later than ours, so that it only counts when this process is dead.
pub const BACKSTOP_SECONDS: u64 = 60;

/// Seconds by which an address outlives what the kernel was told before the kernel is told again. Half of
/// [`BACKSTOP_SECONDS`], so it always expires there last, and the maps of a name with a short TTL are not written at
/// every answer.
const RETELL_SECONDS: u64 = BACKSTOP_SECONDS / 2;

/// Every address of every name, from the moment it is handed out until its grace has ended.
#[derive(Debug)]
pub struct Addresses {
    grace_seconds: u64,
    limits: AddressLimits,
    names: BTreeMap<DomainName, Entry>,
    owners: BTreeMap<IpAddr, BTreeSet<DomainName>>,
    /// Each address of each name once, at a second before which its time is not over.
    ends: BTreeSet<(u64, DomainName, IpAddr)>,
    total: usize,
    told_full: bool,
}

#[derive(Debug, Default)]
struct Entry {
    addresses: BTreeMap<IpAddr, Validity>,
    told_full: bool,
}

/// How long an address is valid.
#[derive(Clone, Copy, Debug)]
struct Validity {
    /// The second in which its last TTL ends.
    until: u64,
    /// The same, as the kernel was told last.
    told: u64,
}

/// What became of an address of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learned {
    /// The kernel is to be told of it, or of a later end.
    Change,
    /// The kernel knows enough of it.
    Nothing,
    /// There is no room for it.
    Full(Limit),
}

/// A limit that is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Limit {
    /// Of the addresses of one name.
    Name,
    /// Of the addresses of all names.
    Total,
}

impl Addresses {
    /// No addresses yet.
    pub fn new(dns: &Dns) -> Self {
        Self {
            // Times are whole seconds, and the one that has begun does not count.
            grace_seconds: u64::from(dns.grace_seconds) + 1,
            limits: dns.addresses,
            names: BTreeMap::new(),
            owners: BTreeMap::new(),
            ends: BTreeSet::new(),
            total: 0,
            told_full: false,
        }
    }

    /// Takes an address of an answer for the name.
    pub fn learn(&mut self, name: &DomainName, address: IpAddr, ttl: u32, now: u64) -> Learned {
        // An IPv4-mapped address is the IPv4 address, for the kernel as for us.
        let address = address.to_canonical();
        let until = now.saturating_add(u64::from(ttl));
        let entry = self.names.get_mut(name);
        let count = entry.as_ref().map_or(0, |entry| entry.addresses.len());
        if let Some(known) = entry.and_then(|entry| entry.addresses.get_mut(&address)) {
            known.until = until.max(known.until);
            let is_late = known.until >= known.told.saturating_add(RETELL_SECONDS);
            return if is_late { Learned::Change } else { Learned::Nothing };
        }
        if count >= room(self.limits.per_name) {
            return Learned::Full(Limit::Name);
        }
        if self.total >= room(self.limits.total) {
            return Learned::Full(Limit::Total);
        }
        let entry = self.names.entry(name.clone()).or_default();
        entry.addresses.insert(address, Validity { until, told: until });
        self.owners.entry(address).or_default().insert(name.clone());
        self.ends.insert((until.saturating_add(self.grace_seconds), name.clone(), address));
        self.total += 1;
        Learned::Change
    }

    /// Whether nobody has been told yet that this limit is reached.
    pub fn is_news(&mut self, name: &DomainName, limit: Limit) -> bool {
        let told = match limit {
            Limit::Total => Some(&mut self.told_full),
            Limit::Name => self.names.get_mut(name).map(|entry| &mut entry.told_full),
        };
        told.is_some_and(|told| !std::mem::replace(told, true))
    }

    /// Forgets the addresses whose grace has ended, and says which the kernel is to forget for a name.
    pub fn expire(&mut self, now: u64) -> BTreeSet<IpAddr> {
        let mut gone = BTreeSet::new();
        while let Some((end, _, _)) = self.ends.first()
            && *end <= now
            && let Some((_, name, address)) = self.ends.pop_first()
        {
            let until = self.names.get(&name).and_then(|entry| entry.addresses.get(&address)).map(|known| known.until);
            let end = until.map_or(0, |until| until.saturating_add(self.grace_seconds));
            if end > now {
                self.ends.insert((end, name, address));
            } else {
                self.forget(&name, address);
                gone.insert(address);
            }
        }
        gone
    }

    fn forget(&mut self, name: &DomainName, address: IpAddr) {
        if let Some(entry) = self.names.get_mut(name)
            && entry.addresses.remove(&address).is_some()
        {
            self.total -= 1;
            self.told_full = false;
            entry.told_full = false;
            if entry.addresses.is_empty() {
                self.names.remove(name);
            }
        }
        if let Some(owners) = self.owners.get_mut(&address) {
            owners.remove(name);
            if owners.is_empty() {
                self.owners.remove(&address);
            }
        }
    }

    /// Notes that the kernel is told of these addresses now.
    pub fn tell(&mut self, addresses: &BTreeSet<IpAddr>) {
        for address in addresses {
            for name in self.owners.get(address).into_iter().flatten() {
                if let Some(known) = self.names.get_mut(name).and_then(|entry| entry.addresses.get_mut(address)) {
                    known.told = known.until;
                }
            }
        }
    }

    /// What the kernel was told of an address: each of its names, and the second in which it is to be forgotten there for
    /// this name, if nobody has taken it out before.
    pub fn told_of(&self, address: IpAddr) -> impl Iterator<Item = (&DomainName, u32)> {
        let names = self.names_of(address);
        names.filter_map(move |name| {
            let known = self.names.get(name)?.addresses.get(&address)?;
            Some((name, self.backstop(known.told)))
        })
    }

    /// The same for every name; the kernel is told of all of it now.
    pub fn tell_all(&mut self) -> BTreeMap<DomainName, BTreeMap<IpAddr, u32>> {
        for known in self.names.values_mut().flat_map(|entry| entry.addresses.values_mut()) {
            known.told = known.until;
        }
        let all = self.names.iter().map(|(name, entry)| {
            let addresses = entry.addresses.iter().map(|(address, known)| (*address, self.backstop(known.told)));
            (name.clone(), addresses.collect())
        });
        all.collect()
    }

    /// The names that resolved to an address.
    pub fn names_of(&self, address: IpAddr) -> impl Iterator<Item = &DomainName> {
        self.owners.get(&address.to_canonical()).into_iter().flatten()
    }

    /// Whether the name has an address.
    pub fn has(&self, name: &DomainName) -> bool {
        self.names.contains_key(name)
    }

    /// Addresses of all names together.
    pub fn total(&self) -> usize {
        self.total
    }

    /// The kernel's expiry of an address. 0 would mean never, and cannot come out of the sum.
    fn backstop(&self, until: u64) -> u32 {
        let second = until.saturating_add(self.grace_seconds + BACKSTOP_SECONDS);
        u32::try_from(second).unwrap_or(u32::MAX)
    }
}

fn room(limit: u32) -> usize {
    usize::try_from(limit).unwrap_or(usize::MAX)
}
