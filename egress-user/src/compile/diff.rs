//! The way from one compiled policy to the next while packets are being decided.
//!
//! At every moment of the way, what is allowed before and after is allowed, and what is refused before and after is
//! refused. The steps are in an order that ensures it:
//!
//! 1. Port sets, at indexes that no entry in force uses.
//! 2. The policy's slot with what both block.
//! 3. Addresses: new ones; and those whose network changes too get what either of the two allows.
//! 4. Networks put, the longest first, so a shorter one never shows through where a longer one will stand.
//! 5. Networks removed, the shortest first, for the same reason.
//! 6. Addresses at their final entry, then those that are gone.
//! 7. The policy's slot as it will be.

use std::collections::{BTreeMap, BTreeSet};

use egress_common::{
    Address,
    entry::{DestinationEntry, PolicyEntry, PortSet},
};

use super::{CompileError, CompiledPolicy, Prefix, port_sets::index_of};

/// One change of one map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Writes a port set at an index that no entry uses.
    PutPortSet(u16, Box<PortSet>),
    /// Writes the policy's slot.
    PutPolicy(Box<PolicyEntry>),
    /// Writes the entry of an address.
    PutAddress(Address, DestinationEntry),
    /// Writes the entry of a network.
    PutNetwork(Prefix, DestinationEntry),
    /// Removes the entry of a network.
    RemoveNetwork(Prefix),
    /// Removes the entry of an address.
    RemoveAddress(Address),
}

/// Steps, to be taken in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Each step.
    pub steps: Vec<Step>,
}

impl Changes {
    /// Takes every step.
    pub fn apply(&self, policy: &mut CompiledPolicy) {
        for step in &self.steps {
            step.apply(policy);
        }
    }
}

impl Step {
    /// Takes the step.
    pub fn apply(&self, policy: &mut CompiledPolicy) {
        match self {
            Self::PutPortSet(index, set) => {
                let index = usize::from(*index);
                if policy.port_sets.len() <= index {
                    policy.port_sets.resize(index + 1, PortSet::EMPTY);
                }
                if let Some(place) = policy.port_sets.get_mut(index) {
                    *place = **set;
                }
            }
            Self::PutPolicy(entry) => policy.policy.clone_from(entry),
            Self::PutAddress(address, entry) => {
                policy.addresses.insert(*address, *entry);
            }
            Self::PutNetwork(prefix, entry) => {
                policy.networks.insert(*prefix, *entry);
            }
            Self::RemoveNetwork(prefix) => {
                policy.networks.remove(prefix);
            }
            Self::RemoveAddress(address) => {
                policy.addresses.remove(address);
            }
        }
    }
}

/// How one compiled policy becomes another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// What is to be done.
    pub changes: Changes,
    /// What is in force then: the new policy, with its port sets at the indexes that they have in the kernel. It is the
    /// old policy of the next update.
    pub policy: CompiledPolicy,
}

/// The steps from the old policy, which is in force, to the new one.
pub fn diff(old: &CompiledPolicy, new: CompiledPolicy, now_seconds: u32) -> Result<Update, CompileError> {
    let mut places = Places::new(old);
    let new = places.renumber(new)?;
    let mut changes = Changes::default();
    let addresses = address_steps(old, &new, now_seconds, &mut places)?;
    let steps = &mut changes.steps;
    steps.extend(places.added.iter().map(|(index, set)| Step::PutPortSet(*index, set.clone())));
    if old.policy != new.policy {
        steps.push(Step::PutPolicy(both(&old.policy, &new.policy)));
    }
    steps.extend(addresses.first);
    steps.extend(network_steps(old, &new));
    steps.extend(addresses.last);
    if old.policy != new.policy {
        steps.push(Step::PutPolicy(new.policy.clone()));
    }
    let mut policy = new;
    policy.port_sets = places.sets;
    Ok(Update { changes, policy })
}

/// The port sets in the kernel, and which of them may be overwritten.
struct Places {
    sets: Vec<PortSet>,
    indexes: BTreeMap<Box<PortSet>, u16>,
    /// In use by the old policy, or given out.
    taken: BTreeSet<u16>,
    /// Every place before this one is taken.
    next: usize,
    added: Vec<(u16, Box<PortSet>)>,
}

impl Places {
    fn new(old: &CompiledPolicy) -> Self {
        let entries = old.addresses.values().chain(old.networks.values());
        let mut taken: BTreeSet<u16> = entries.map(|entry| entry.port_set).collect();
        taken.insert(0);
        let indexes = old.port_sets.iter().zip(0..).map(|(set, index)| (Box::new(*set), index)).collect();
        Self { sets: old.port_sets.clone(), indexes, taken, next: 0, added: Vec::new() }
    }

    /// The new policy, with its port sets where the kernel has them or will have them.
    fn renumber(&mut self, mut new: CompiledPolicy) -> Result<CompiledPolicy, CompileError> {
        let mut renumbered = BTreeMap::new();
        for (set, index) in new.port_sets.iter().zip(0_u16..) {
            renumbered.insert(index, self.index(set)?);
        }
        for entry in new.addresses.values_mut().chain(new.networks.values_mut()) {
            entry.port_set = renumbered.get(&entry.port_set).copied().unwrap_or(0);
        }
        Ok(new)
    }

    /// Where the set is, or is put.
    fn index(&mut self, set: &PortSet) -> Result<u16, CompileError> {
        if let Some(index) = self.indexes.get(set) {
            self.taken.insert(*index);
            return Ok(*index);
        }
        let index = loop {
            let index = index_of(self.next)?;
            self.next += 1;
            if !self.taken.contains(&index) {
                break index;
            }
        };
        self.taken.insert(index);
        self.added.push((index, Box::new(*set)));
        match self.sets.get_mut(usize::from(index)) {
            Some(place) => {
                self.indexes.remove(place);
                *place = *set;
            }
            None => self.sets.push(*set),
        }
        self.indexes.insert(Box::new(*set), index);
        Ok(index)
    }

    fn set(&self, index: u16) -> &PortSet {
        self.sets.get(usize::from(index)).unwrap_or(&PortSet::EMPTY)
    }

    /// The index of what either of two sets has.
    fn union(&mut self, one: u16, other: u16) -> Result<u16, CompileError> {
        let union = union(self.set(one), self.set(other));
        self.index(&union)
    }
}

/// What refuses whatever either of two policies refuses by itself.
fn both(old: &PolicyEntry, new: &PolicyEntry) -> Box<PolicyEntry> {
    let PolicyEntry { flags, refuse_errno: _, blocked } = old;
    Box::new(PolicyEntry {
        flags: flags & new.flags,
        refuse_errno: new.refuse_errno,
        blocked: union(blocked, &new.blocked),
    })
}

/// Words of a port set, all of which are bits.
const PORT_SET_WORDS: usize = size_of::<PortSet>() / size_of::<u64>();

fn union(one: &PortSet, other: &PortSet) -> PortSet {
    let mut words: [u64; PORT_SET_WORDS] = bytemuck::cast(*one);
    let others: [u64; PORT_SET_WORDS] = bytemuck::cast(*other);
    for (word, other) in words.iter_mut().zip(others) {
        *word |= other;
    }
    bytemuck::cast(words)
}

/// Steps about addresses before and after the networks change.
#[derive(Default)]
struct AddressSteps {
    first: Vec<Step>,
    last: Vec<Step>,
}

fn address_steps(
    old: &CompiledPolicy,
    new: &CompiledPolicy,
    now_seconds: u32,
    places: &mut Places,
) -> Result<AddressSteps, CompileError> {
    let mut steps = AddressSteps::default();
    let networks_change = old.networks != new.networks;
    for (address, entry) in &new.addresses {
        let before = old.addresses.get(address);
        if before == Some(entry) {
            continue;
        }
        let is_live = |entry: &&DestinationEntry| entry.expires_at == 0 || now_seconds < entry.expires_at;
        let network_changes = networks_change && old.longest(address) != new.longest(address);
        match before.filter(is_live).filter(|_| network_changes) {
            // Only this entry changes, or the old one counts no more: the new one can stand at once.
            None => steps.first.push(Step::PutAddress(*address, *entry)),
            // The old one counts until the networks have changed.
            Some(before) => {
                if is_live(&entry) {
                    let either = DestinationEntry {
                        expires_at: sooner(before.expires_at, entry.expires_at),
                        port_set: places.union(before.port_set, entry.port_set)?,
                        otherwise: entry.otherwise,
                        reserved: 0,
                    };
                    steps.first.push(Step::PutAddress(*address, either));
                }
                steps.last.push(Step::PutAddress(*address, *entry));
            }
        }
    }
    let gone = old.addresses.keys().filter(|address| !new.addresses.contains_key(address));
    steps.last.extend(gone.map(|address| Step::RemoveAddress(*address)));
    Ok(steps)
}

/// The sooner of two ends, of which 0 is never.
fn sooner(one: u32, other: u32) -> u32 {
    match (one, other) {
        (0, end) | (end, 0) => end,
        (one, other) => one.min(other),
    }
}

fn network_steps(old: &CompiledPolicy, new: &CompiledPolicy) -> Vec<Step> {
    let mut puts: Vec<(Prefix, DestinationEntry)> = new
        .networks
        .iter()
        .filter(|(prefix, entry)| old.networks.get(prefix) != Some(entry))
        .map(|(prefix, entry)| (*prefix, *entry))
        .collect();
    puts.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.length));
    let mut removals: Vec<Prefix> =
        old.networks.keys().filter(|prefix| !new.networks.contains_key(prefix)).copied().collect();
    removals.sort_by_key(|prefix| prefix.length);
    let puts = puts.into_iter().map(|(prefix, entry)| Step::PutNetwork(prefix, entry));
    puts.chain(removals.into_iter().map(Step::RemoveNetwork)).collect()
}
