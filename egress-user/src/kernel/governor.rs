//! The programs and maps of one governed workload.

use std::{
    fs::File,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf,
    maps::{PerCpuArray, RingBuf},
    programs::{
        CgroupSkb, TestRun as _, TestRunOptions,
        links::{FdLink, PinnedLink},
    },
};
use egress_common::{
    Address, Reason,
    entry::{Binding, DestinationEntry, PolicyEntry, PortSet},
    limits::{POLICY_SLOTS, PORT_SETS_MAX},
};

use super::{
    events::Events,
    maps::Maps,
    pins,
    programs::{self, PROGRAMS},
};
use crate::compile::{Changes, CompiledPolicy, Prefix, Step};

/// Room in the maps, in entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Addresses of IPv4.
    pub addresses_v4: u32,
    /// Addresses of IPv6.
    pub addresses_v6: u32,
    /// Networks of IPv4.
    pub networks_v4: u32,
    /// Networks of IPv6.
    pub networks_v6: u32,
    /// Port sets.
    pub port_sets: u32,
}

/// Networks, beyond those of the policy itself: addresses that a rule and a name share move between hash and trie.
const NETWORKS_SPARE: usize = 4096;

/// Port sets, beyond those of the policy itself, that names with a common address may need; 1 MiB of kernel memory.
const PORT_SETS_SPARE: u32 = 64;

impl Sizes {
    /// Room for these policies at the same time, and for as many addresses as names may have. Room for an address that is
    /// not there costs about 16 bytes of kernel memory.
    pub fn for_policies<'a>(policies: impl IntoIterator<Item = &'a CompiledPolicy>, of_names: u32) -> Self {
        let (mut addresses, mut networks, mut port_sets) = ([0, 0], [0, 0], 1 + PORT_SETS_SPARE);
        for policy in policies {
            let v4 = policy.addresses.keys().filter(|address| address.is_v4()).count();
            addresses = [addresses[0] + v4, addresses[1] + policy.addresses.len() - v4];
            let v4 = policy.networks.keys().filter(|prefix| prefix.address.is_v4()).count();
            networks = [networks[0] + v4, networks[1] + policy.networks.len() - v4];
            port_sets += entries(policy.port_sets.len()) + PORT_SETS_SPARE;
        }
        // A hash that is half empty is fast, and a spare policy always fits.
        let [addresses_v4, addresses_v6] = addresses.map(|count| entries(2 * count).saturating_add(of_names.max(1)));
        let [networks_v4, networks_v6] = networks.map(|count| entries(count + NETWORKS_SPARE));
        Self { addresses_v4, addresses_v6, networks_v4, networks_v6, port_sets }
    }
}

fn entries(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Loaded programs with their maps and links. Dropping it detaches what was not pinned.
#[derive(Debug)]
pub struct Governor {
    ebpf: Ebpf,
    pub(super) maps: Maps,
    links: Vec<(&'static str, FdLink)>,
    pinned: Vec<PinnedLink>,
    /// Where the port sets of each slot begin, and how many fit.
    port_sets: [Region; POLICY_SLOTS as usize],
    port_sets_room: u32,
    generation: u32,
    can_set_errno: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Region {
    first: u32,
    length: u32,
}

impl Governor {
    /// Loads programs and maps into the kernel. Nothing is governed yet.
    pub fn load(sizes: &Sizes) -> Result<Self> {
        let (ebpf, can_set_errno) = programs::load(sizes)?;
        let maps = Maps::open(&ebpf)?;
        Ok(Self {
            ebpf,
            maps,
            links: Vec::new(),
            pinned: Vec::new(),
            port_sets: [Region::default(); POLICY_SLOTS as usize],
            port_sets_room: sizes.port_sets.min(PORT_SETS_MAX),
            generation: 0,
            can_set_errno,
        })
    }

    /// Whether refused calls can fail with the errno that the policy names. Where not, they fail with `EPERM`.
    pub fn can_set_errno(&self) -> bool {
        self.can_set_errno
    }

    /// Attaches every program to the cgroup, which is denied everything until it is bound to a policy.
    pub fn attach(&mut self, cgroup: &Path) -> Result<()> {
        let directory = File::open(cgroup).with_context(|| format!("open cgroup `{}`", cgroup.display()))?;
        for name in PROGRAMS {
            let link = programs::attach(&mut self.ebpf, name, &directory, cgroup)?;
            self.links.push((name, link));
        }
        Ok(())
    }

    /// Pins links and maps in a new directory, so that they outlive this process.
    pub fn pin(&mut self, directory: &Path) -> Result<()> {
        pins::ensure_bpffs()?;
        pins::make_directory(directory)?;
        for (name, link) in self.links.drain(..) {
            let path = directory.join(format!("link_{name}"));
            self.pinned.push(link.pin(&path).with_context(|| format!("pin link `{}`", path.display()))?);
        }
        for (name, map) in self.ebpf.maps() {
            let path: PathBuf = directory.join(format!("map_{}", name.replace('.', "_")));
            map.pin(&path).with_context(|| format!("pin map `{}`", path.display()))?;
        }
        Ok(())
    }

    /// Fills a slot that no cgroup is bound to. What fails half way is taken out again, so that nothing of it is in the
    /// policy that comes next.
    pub fn install(&mut self, slot: u32, compiled: &CompiledPolicy) -> Result<()> {
        let filled = self.fill(slot, compiled);
        if filled.is_err() {
            self.remove(slot, compiled).context("empty a policy slot that could not be filled")?;
        }
        filled
    }

    fn fill(&mut self, slot: u32, compiled: &CompiledPolicy) -> Result<()> {
        let region = self.place(slot, entries(compiled.port_sets.len()))?;
        *self.port_sets.get_mut(slot as usize).with_context(|| format!("no policy slot {slot}"))? = region;
        self.maps.set_policy(slot, &PolicyEntry::UNBOUND)?;
        for (index, ports) in compiled.port_sets.iter().enumerate() {
            self.put_port_set(slot, entries(index), ports)?;
        }
        self.put_entries(slot, &compiled.addresses, &compiled.networks)?;
        self.generation += 1;
        self.maps.set_generation(slot, self.generation)?;
        self.maps.set_policy(slot, &compiled.policy)
    }

    /// Empties a slot that no cgroup is bound to, so that it can be filled again.
    pub fn remove(&mut self, slot: u32, compiled: &CompiledPolicy) -> Result<()> {
        self.maps.set_policy(slot, &PolicyEntry::UNBOUND)?;
        for address in compiled.addresses.keys() {
            self.maps.remove_address(slot, *address)?;
        }
        for prefix in compiled.networks.keys() {
            self.maps.remove_network(slot, *prefix)?;
        }
        if let Some(region) = self.port_sets.get_mut(slot as usize) {
            *region = Region::default();
        }
        Ok(())
    }

    /// A part of the port sets that no other slot has, with room for more than these.
    fn place(&self, slot: u32, count: u32) -> Result<Region> {
        let others = || self.port_sets.iter().zip(0..).filter(|(_, other)| *other != slot).map(|(region, _)| region);
        // The first one is the empty set, which all policies share.
        let starts = std::iter::once(1).chain(others().map(|region| region.first + region.length));
        let room = |first: u32| {
            let next = others().map(|region| region.first).filter(|other| *other >= first).min();
            next.unwrap_or(self.port_sets_room).saturating_sub(first)
        };
        let is_inside = |first| others().any(|region| (region.first..region.first + region.length).contains(&first));
        let (first, room) = starts
            .filter(|first| *first > 0 && !is_inside(*first))
            .map(|first| (first, room(first)))
            .max_by_key(|(_, room)| *room)
            .unwrap_or_default();
        ensure!(count <= room, "the policy needs {count} port sets, and there is room for {room}");
        Ok(Region { first, length: room.min(count + PORT_SETS_SPARE) })
    }

    /// Gives the cgroup the policy of a slot: one store for new flows, and one for flows that live, which are judged
    /// anew at their next packet.
    pub fn bind(&mut self, cgroup_id: u64, slot: u32, workload: u32) -> Result<()> {
        // The storage is made when the first program is attached; until it is set it names slot 0, which denies.
        let before = self.maps.binding(cgroup_id)?.policy;
        self.maps.set_binding(cgroup_id, Binding { policy: slot, workload })?;
        self.generation += 1;
        self.maps.set_generation(before, self.generation)
    }

    /// Takes the steps from one compiled policy to the next in a slot that may be in force. Returns how many were taken,
    /// and why the next one was not.
    pub fn apply(&mut self, slot: u32, changes: &Changes) -> (usize, Result<()>) {
        for (taken, step) in changes.steps.iter().enumerate() {
            if let Err(error) = self.take(slot, step) {
                return (taken, Err(error));
            }
        }
        (changes.steps.len(), Ok(()))
    }

    fn take(&self, slot: u32, step: &Step) -> Result<()> {
        match step {
            Step::PutPortSet(index, ports) => self.put_port_set(slot, u32::from(*index), ports),
            Step::PutPolicy(policy) => self.maps.set_policy(slot, policy),
            Step::PutAddress(address, entry) => self.put_entries(slot, [(address, entry)], []),
            Step::PutNetwork(prefix, entry) => self.put_entries(slot, [], [(prefix, entry)]),
            Step::RemoveNetwork(prefix) => self.maps.remove_network(slot, *prefix),
            Step::RemoveAddress(address) => self.maps.remove_address(slot, *address),
        }
    }

    /// The kernel's events. Can be taken once.
    pub fn events(&mut self) -> Result<Events> {
        let map = self.ebpf.take_map("EVENTS").context("the events are read already")?;
        Ok(Events::new(RingBuf::try_from(map).context("open the ring buffer")?))
    }

    /// Events that did not fit into the ring buffer.
    pub fn lost_events(&self) -> Result<u64> {
        self.counter("LOST_EVENTS", 0)
    }

    /// How often something was refused for this reason, counted by the kernel itself.
    pub fn refusals(&self, reason: Reason) -> Result<u64> {
        self.counter("REFUSALS", u32::from(reason.wire()))
    }

    /// Runs the egress program over a frame (an Ethernet header and a packet) as often as asked, without a network, and
    /// returns whether it lets the packet pass and how long one run took. The program sees the policy of slot 0, because
    /// there is no cgroup (`BPF_PROG_TEST_RUN`).
    pub fn try_packet(&self, frame: &[u8], repeat: u32) -> Result<(bool, Duration)> {
        let program = self.ebpf.program("egress").context("find eBPF program `egress`")?;
        let program: &CgroupSkb = program.try_into().context("open eBPF program `egress`")?;
        let options = TestRunOptions { data_in: Some(frame), repeat, ..TestRunOptions::new() };
        let result = program.test_run(options).context("run eBPF program `egress`")?;
        Ok((result.return_value == 1, result.duration))
    }

    fn counter(&self, name: &str, index: u32) -> Result<u64> {
        let map = self.ebpf.map(name).with_context(|| format!("find eBPF map `{name}`"))?;
        let counters: PerCpuArray<_, u64> = PerCpuArray::try_from(map).with_context(|| format!("open `{name}`"))?;
        Ok(counters.get(&index, 0).with_context(|| format!("read `{name}`"))?.iter().sum())
    }

    fn put_port_set(&self, slot: u32, index: u32, ports: &PortSet) -> Result<()> {
        self.maps.set_port_set(self.port_set(slot, index)?, ports)
    }

    fn put_entries<'a>(
        &self,
        slot: u32,
        addresses: impl IntoIterator<Item = (&'a Address, &'a DestinationEntry)>,
        networks: impl IntoIterator<Item = (&'a Prefix, &'a DestinationEntry)>,
    ) -> Result<()> {
        let placed = |entry: &DestinationEntry| -> Result<DestinationEntry> {
            let index = self.port_set(slot, u32::from(entry.port_set))?;
            let port_set = u16::try_from(index).context("a port set beyond the last one")?;
            Ok(DestinationEntry { port_set, ..*entry })
        };
        let addresses: Vec<_> =
            addresses.into_iter().map(|(address, entry)| Ok((*address, placed(entry)?))).collect::<Result<_>>()?;
        let networks: Vec<_> =
            networks.into_iter().map(|(prefix, entry)| Ok((*prefix, placed(entry)?))).collect::<Result<_>>()?;
        self.maps.put_addresses(slot, addresses.into_iter())?;
        self.maps.put_networks(slot, networks.into_iter())
    }

    /// Where a policy's own port set is in the map that all slots share.
    fn port_set(&self, slot: u32, index: u32) -> Result<u32> {
        let region = self.port_sets.get(slot as usize).with_context(|| format!("no policy slot {slot}"))?;
        match index {
            0 => Ok(0),
            _ if index < region.length => Ok(region.first + index),
            _ => anyhow::bail!("no room for another port set: names share addresses in more than {} ways", index - 1),
        }
    }
}
