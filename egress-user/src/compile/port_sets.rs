//! Port sets: each set once, and each union of two computed once.

use std::collections::BTreeMap;

use egress_common::{Protocol, entry::PortSet, limits::PORT_SETS_MAX};

use super::CompileError;
use crate::policy::Ports;

/// A set among [`Unions`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PortsId(usize);

impl PortsId {
    /// The set of nothing.
    pub(super) const NONE: Self = Self(0);
}

/// Every set met, and which set two of them make.
#[derive(Debug)]
pub(super) struct Unions {
    sets: Vec<Ports>,
    ids: BTreeMap<Ports, PortsId>,
    pairs: BTreeMap<(PortsId, PortsId), PortsId>,
}

impl Default for Unions {
    fn default() -> Self {
        Self { sets: vec![Ports::NONE], ids: BTreeMap::from([(Ports::NONE, PortsId::NONE)]), pairs: BTreeMap::new() }
    }
}

impl Unions {
    pub(super) fn intern(&mut self, ports: &Ports) -> PortsId {
        if let Some(id) = self.ids.get(ports) {
            return *id;
        }
        let id = PortsId(self.sets.len());
        self.sets.push(ports.clone());
        self.ids.insert(ports.clone(), id);
        id
    }

    pub(super) fn union(&mut self, one: PortsId, other: PortsId) -> PortsId {
        match (one, other) {
            (PortsId::NONE, id) | (id, PortsId::NONE) => return id,
            (one, other) if one == other => return one,
            (_, _) => {}
        }
        let pair = (one.min(other), one.max(other));
        if let Some(id) = self.pairs.get(&pair) {
            return *id;
        }
        let union = self.set(one).union(self.set(other));
        let id = self.intern(&union);
        self.pairs.insert(pair, id);
        id
    }

    pub(super) fn set(&self, id: PortsId) -> &Ports {
        const NOTHING: &Ports = &Ports::NONE;
        self.sets.get(id.0).unwrap_or(NOTHING)
    }
}

/// The sets that entries use, in the order of their first use.
pub(super) struct PortSetTable {
    indexes: BTreeMap<PortsId, u16>,
    used: Vec<PortsId>,
}

impl Default for PortSetTable {
    fn default() -> Self {
        Self { indexes: BTreeMap::from([(PortsId::NONE, 0)]), used: vec![PortsId::NONE] }
    }
}

impl PortSetTable {
    /// The index of the set in the kernel's map.
    pub(super) fn index(&mut self, id: PortsId) -> Result<u16, CompileError> {
        if let Some(index) = self.indexes.get(&id) {
            return Ok(*index);
        }
        let index = index_of(self.used.len())?;
        self.used.push(id);
        self.indexes.insert(id, index);
        Ok(index)
    }

    pub(super) fn port_sets(&self, unions: &Unions) -> Vec<PortSet> {
        self.used.iter().map(|id| to_port_set(unions.set(*id))).collect()
    }
}

/// The index, if the kernel's map has it.
pub(super) fn index_of(position: usize) -> Result<u16, CompileError> {
    match u16::try_from(position) {
        Ok(index) if u32::from(index) < PORT_SETS_MAX => Ok(index),
        Ok(_) | Err(_) => Err(CompileError::PortSets { count: position + 1 }),
    }
}

pub(super) fn to_port_set(ports: &Ports) -> PortSet {
    let mut set = PortSet::EMPTY;
    set.icmp = u64::from(ports.has_icmp());
    for range in ports.ranges(Protocol::Tcp) {
        set.tcp.insert_range(range.first(), range.last());
    }
    for range in ports.ranges(Protocol::Udp) {
        set.udp.insert_range(range.first(), range.last());
    }
    set
}
