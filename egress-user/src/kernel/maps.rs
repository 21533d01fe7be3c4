//! Filling the maps.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    maps::{Map, MapData},
};
use bytemuck::{NoUninit, Pod, Zeroable};
use egress_common::{
    Address,
    entry::{AddressKeyV4, AddressKeyV6, Binding, DestinationEntry, POLICY_BITS, PolicyEntry, PortSet, SocketState},
    question::{Asker, AskerKey, Listener, PROXY_WORKLOAD},
};

use super::sys;
use crate::compile::Prefix;

/// Key of a trie: the prefix length in bits, then the data it counts over.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct TrieKeyV4 {
    length: u32,
    data: AddressKeyV4,
}

/// Key of a trie: the prefix length in bits, then the data it counts over.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct TrieKeyV6 {
    length: u32,
    data: AddressKeyV6,
}

/// The maps that the user half writes, by their own descriptors.
#[derive(Debug)]
pub(super) struct Maps {
    askers: OwnedFd,
    bindings: OwnedFd,
    listeners: OwnedFd,
    policies: OwnedFd,
    generations: OwnedFd,
    port_sets: OwnedFd,
    addresses_v4: OwnedFd,
    addresses_v6: OwnedFd,
    networks_v4: OwnedFd,
    networks_v6: OwnedFd,
    sockets: OwnedFd,
}

impl Maps {
    /// Opens the maps of a loaded object and checks that keys and values have the sizes that this module writes.
    pub(super) fn open(ebpf: &Ebpf) -> Result<Self> {
        Ok(Self {
            askers: open::<AskerKey, Asker>(ebpf, "ASKERS")?,
            bindings: open::<u64, Binding>(ebpf, "BINDINGS")?,
            listeners: open::<u64, Listener>(ebpf, "LISTENERS")?,
            policies: open::<u32, PolicyEntry>(ebpf, "POLICIES")?,
            generations: open::<u32, u32>(ebpf, "GENERATIONS")?,
            port_sets: open::<u32, PortSet>(ebpf, "PORT_SETS")?,
            addresses_v4: open::<AddressKeyV4, DestinationEntry>(ebpf, "ADDRESSES_V4")?,
            addresses_v6: open::<AddressKeyV6, DestinationEntry>(ebpf, "ADDRESSES_V6")?,
            networks_v4: open::<TrieKeyV4, DestinationEntry>(ebpf, "NETWORKS_V4")?,
            networks_v6: open::<TrieKeyV6, DestinationEntry>(ebpf, "NETWORKS_V6")?,
            sockets: open::<i32, SocketState>(ebpf, "SOCKETS")?,
        })
    }

    /// Marks a socket as the proxy's.
    pub(super) fn mark_proxy(&self, socket: BorrowedFd<'_>) -> Result<()> {
        let state = SocketState { workload: PROXY_WORKLOAD, ..SocketState::zeroed() };
        sys::update(self.sockets.as_fd(), &socket.as_raw_fd(), &state).context("mark a socket of the DNS proxy")
    }

    /// Says where the proxy listens in a network namespace.
    pub(super) fn set_listener(&self, namespace: u64, listener: Listener) -> Result<()> {
        sys::update(self.listeners.as_fd(), &namespace, &listener)
            .context("tell the kernel where the DNS proxy listens")
    }

    /// Says that the proxy no longer listens in a network namespace.
    pub(super) fn remove_listener(&self, namespace: u64) -> Result<()> {
        sys::delete(self.listeners.as_fd(), &namespace).context("tell the kernel that the DNS proxy listens no longer")
    }

    /// Who asks from an address and port, if anybody governed does.
    pub(super) fn asker(&self, key: &AskerKey) -> Result<Option<Asker>> {
        match sys::lookup(self.askers.as_fd(), key) {
            Ok(asker) => Ok(Some(asker)),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error).context("ask the kernel whose question it is"),
        }
    }

    /// Says which policy a cgroup has.
    pub(super) fn set_binding(&self, cgroup_id: u64, binding: Binding) -> Result<()> {
        sys::update(self.bindings.as_fd(), &cgroup_id, &binding).context("bind the policy to the cgroup")
    }

    /// Reads which policy a cgroup has.
    pub(super) fn binding(&self, cgroup_id: u64) -> Result<Binding> {
        sys::lookup(self.bindings.as_fd(), &cgroup_id).context("read the cgroup's policy")
    }

    /// Sets the generation of a slot.
    pub(super) fn set_generation(&self, slot: u32, generation: u32) -> Result<()> {
        sys::update(self.generations.as_fd(), &slot, &generation).context("set the policy's generation")
    }

    /// Fills the slot of a policy.
    pub(super) fn set_policy(&self, slot: u32, policy: &PolicyEntry) -> Result<()> {
        sys::update(self.policies.as_fd(), &slot, policy).context("write the policy's flags and blocked ports")
    }

    /// Sets one port set.
    pub(super) fn set_port_set(&self, index: u32, ports: &PortSet) -> Result<()> {
        sys::update(self.port_sets.as_fd(), &index, ports).context("write a port set")
    }

    /// Sets entries of addresses.
    pub(super) fn put_addresses(
        &self,
        slot: u32,
        entries: impl Iterator<Item = (Address, DestinationEntry)>,
    ) -> Result<()> {
        let (v4, v6): (Vec<_>, Vec<_>) = entries.partition(|(address, _)| address.is_v4());
        put(&self.addresses_v4, &v4, |address| key_v4(slot, *address))
            .and_then(|()| put(&self.addresses_v6, &v6, |address| key_v6(slot, *address)))
            .context("write the allowed addresses")
    }

    /// Sets entries of networks.
    pub(super) fn put_networks(
        &self,
        slot: u32,
        entries: impl Iterator<Item = (Prefix, DestinationEntry)>,
    ) -> Result<()> {
        let (v4, v6): (Vec<_>, Vec<_>) = entries.partition(|(prefix, _)| prefix.address.is_v4());
        put(&self.networks_v4, &v4, |prefix| trie_v4(slot, *prefix))
            .and_then(|()| put(&self.networks_v6, &v6, |prefix| trie_v6(slot, *prefix)))
            .context("write the networks")
    }

    /// Removes the entry of an address.
    pub(super) fn remove_address(&self, slot: u32, address: Address) -> Result<()> {
        if address.is_v4() {
            sys::delete(self.addresses_v4.as_fd(), &key_v4(slot, address))
        } else {
            sys::delete(self.addresses_v6.as_fd(), &key_v6(slot, address))
        }
        .context("remove an address")
    }

    /// Removes the entry of a network.
    pub(super) fn remove_network(&self, slot: u32, prefix: Prefix) -> Result<()> {
        if prefix.address.is_v4() {
            sys::delete(self.networks_v4.as_fd(), &trie_v4(slot, prefix))
        } else {
            sys::delete(self.networks_v6.as_fd(), &trie_v6(slot, prefix))
        }
        .context("remove a network")
    }
}

fn put<T, K: NoUninit>(map: &OwnedFd, entries: &[(T, DestinationEntry)], key: impl Fn(&T) -> K) -> io::Result<()> {
    let keys: Vec<K> = entries.iter().map(|(subject, _)| key(subject)).collect();
    let values: Vec<DestinationEntry> = entries.iter().map(|(_, entry)| *entry).collect();
    sys::update_batch(map.as_fd(), &keys, &values)
}

fn key_v4(policy: u32, address: Address) -> AddressKeyV4 {
    AddressKeyV4 { policy, address: address.v4_bytes() }
}

fn key_v6(policy: u32, address: Address) -> AddressKeyV6 {
    AddressKeyV6 { policy, address: address.v6_bytes() }
}

fn trie_v4(policy: u32, prefix: Prefix) -> TrieKeyV4 {
    TrieKeyV4 { length: POLICY_BITS + u32::from(prefix.length), data: key_v4(policy, prefix.address) }
}

fn trie_v6(policy: u32, prefix: Prefix) -> TrieKeyV6 {
    TrieKeyV6 { length: POLICY_BITS + u32::from(prefix.length), data: key_v6(policy, prefix.address) }
}

fn open<K, V>(ebpf: &Ebpf, name: &str) -> Result<OwnedFd> {
    let map = ebpf.map(name).with_context(|| format!("find eBPF map `{name}`"))?;
    let map = data(map).with_context(|| format!("eBPF map `{name}` is of an unexpected type"))?;
    let info = map.info().with_context(|| format!("read the layout of eBPF map `{name}`"))?;
    let expected = (size_of::<K>(), size_of::<V>());
    let found = (info.key_size() as usize, info.value_size() as usize);
    anyhow::ensure!(found == expected, "eBPF map `{name}` has key and value sizes {found:?}, expected {expected:?}");
    map.fd().as_fd().try_clone_to_owned().with_context(|| format!("keep eBPF map `{name}` open"))
}

fn data(map: &Map) -> Option<&MapData> {
    if let Map::Array(map) | Map::HashMap(map) | Map::LpmTrie(map) | Map::CgroupStorage(map) | Map::SkStorage(map) = map
    {
        Some(map)
    } else {
        None
    }
}
