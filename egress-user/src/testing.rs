//! Random policies, and flows that hit their edges: for the property tests and for the replay against the kernel.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use egress_common::Protocol;
use proptest::{
    collection::{btree_map, btree_set, vec},
    option,
    prelude::*,
    sample::{Index, select},
};

use crate::policy::{
    AddressLimits, Budget, Destination, Dns, DomainName, DomainPattern, Flow, Known, Mode, NameServer, Network, Place,
    Policy, PolicyName, PortItem, PortRange, Ports, RecordType, RefusalCode, Refuse, Rule, Tier,
    special::{SPECIAL_NETWORKS, SpecialNetwork},
};

/// A policy, what is known, a time, and flows worth asking about.
#[derive(Clone, Debug)]
pub struct Case {
    /// The policy.
    pub policy: Policy,
    /// What names resolve to.
    pub known: Known,
    /// Second of `CLOCK_BOOTTIME`.
    pub now_seconds: u32,
    /// Flows near the edges of what the policy allows.
    pub flows: Vec<Flow>,
}

/// A policy, and what is known of its names at one time after the other.
pub fn sequences() -> impl Strategy<Value = (Policy, Vec<Known>)> {
    (policies(), vec(knowns(), 2..8))
}

/// Flows of one [`Case`].
const FLOWS: usize = 64;

/// Random cases.
pub fn cases() -> impl Strategy<Value = Case> {
    (policies(), knowns(), 99..=101_u32, vec(choices(), FLOWS)).prop_map(|(policy, known, now_seconds, choices)| {
        let flows = flows(&choices, &[(&policy, &known)]);
        Case { policy, known, now_seconds, flows }
    })
}

/// A case, and what takes its place.
#[derive(Clone, Debug)]
pub struct Replacement {
    /// What is in force, with flows near the edges of both policies.
    pub case: Case,
    /// The policy that takes its place: some of the same rules, some with other ports, and some new ones.
    pub policy: Policy,
    /// What is known then.
    pub known: Known,
}

/// Random replacements of a policy and of what is known.
pub fn replacements() -> impl Strategy<Value = Replacement> {
    let fates = vec(0..4_u8, 12);
    (policies(), policies(), knowns(), knowns(), 99..=101_u32, fates, vec(choices(), FLOWS)).prop_map(
        |(policy, mut next, known, mut next_known, now_seconds, fates, choices)| {
            let mut rules: Vec<Rule> = next.allow.iter().take(2).cloned().collect();
            for ((rule, other), fate) in policy.allow.iter().zip(next.allow.iter().cycle()).zip(fates) {
                match fate {
                    0 => {}
                    1 => rules.push(Rule { ports: other.ports.clone(), ..rule.clone() }),
                    _ => rules.push(rule.clone()),
                }
            }
            next.allow = rules.into();
            next.tier = policy.tier;
            next_known.addresses.extend(known.addresses.clone().into_iter().take(2));
            let flows = flows(&choices, &[(&policy, &known), (&next, &next_known)]);
            let case = Case { policy, known, now_seconds, flows };
            Replacement { case, policy: next, known: next_known }
        },
    )
}

fn flows(choices: &[Choice], policies: &[(&Policy, &Known)]) -> Vec<Flow> {
    let mut edges = Edges { addresses: Vec::new(), ports: vec![0, 22, 53, 443, 5353] };
    let mut aims = Vec::new();
    for (policy, known) in policies {
        edges.addresses.extend(address_edges(policy, known));
        edges.ports.extend(port_edges(policy));
        aims.extend(self::aims(policy, known));
    }
    choices.iter().map(|choice| choice.flow(&edges, &aims)).collect()
}

/// How a flow is picked once policy and names are there.
#[derive(Clone, Debug)]
struct Choice {
    is_aimed: bool,
    is_mapped: bool,
    index: Index,
    port: Index,
    protocol: Protocol,
}

fn choices() -> impl Strategy<Value = Choice> {
    let protocol =
        select(vec![Protocol::Tcp, Protocol::Tcp, Protocol::Tcp, Protocol::Udp, Protocol::Udp, Protocol::Icmp]);
    (any::<bool>(), any::<bool>(), any::<Index>(), any::<Index>(), protocol)
        .prop_map(|(is_aimed, is_mapped, index, port, protocol)| Choice { is_aimed, is_mapped, index, port, protocol })
}

impl Choice {
    fn flow(&self, edges: &Edges, aims: &[Flow]) -> Flow {
        let Self { is_aimed, is_mapped, index, port, protocol } = self;
        let mut flow = if *is_aimed && !aims.is_empty() {
            *index.get(aims)
        } else {
            Flow {
                protocol: *protocol,
                destination: *index.get(&edges.addresses),
                port: if *protocol == Protocol::Icmp { 0 } else { *port.get(&edges.ports) },
            }
        };
        if *is_mapped {
            flow.destination = mapped(flow.destination);
        }
        flow
    }
}

/// Where a policy may change its mind.
struct Edges {
    addresses: Vec<IpAddr>,
    ports: Vec<u16>,
}

/// The ends of what each rule is about, address and port together.
fn aims(policy: &Policy, known: &Known) -> Vec<Flow> {
    let mut aims = Vec::new();
    for rule in &policy.allow {
        let addresses: Vec<IpAddr> = match &rule.destination {
            Destination::Network(network) => vec![network.first(), network.last()],
            Destination::Domain(pattern) => {
                let names = known.addresses.iter().filter(|(name, _)| pattern.matches(name));
                names.flat_map(|(_, addresses)| addresses.keys().copied()).collect()
            }
        };
        for destination in addresses {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let ends = rule.ports.ranges(protocol).iter().flat_map(|range| [range.first(), range.last()]);
                aims.extend(ends.map(|port| Flow { protocol, destination, port }));
            }
            aims.push(Flow { protocol: Protocol::Icmp, destination, port: 0 });
        }
    }
    aims
}

/// Random policies whose networks nest and whose ports overlap.
pub fn policies() -> impl Strategy<Value = Policy> {
    let tier = prop_oneof![4 => Just(None), 1 => Just(Some(Tier::External)), 1 => Just(Some(Tier::Internal))];
    let mode = prop_oneof![4 => Just(Mode::Enforce), 1 => Just(Mode::Audit)];
    let blocked = vec(port_items(), 0..2).prop_map(|items| {
        Ports::from_items(items.into_iter().filter(|item| !matches!(item, PortItem::Icmp))).difference(&wide())
    });
    let refuse = select(Refuse::ALL).prop_map(|(_, refuse)| refuse);
    (tier, mode, vec(rules(), 0..12), blocked, refuse, any::<bool>(), policy_names(), dns_sections()).prop_map(
        |(tier, mode, allow, blocked_ports, refuse, listen, name, dns)| Policy {
            name,
            description: None,
            workload: None,
            mode,
            tier,
            allow: allow.into(),
            blocked_ports,
            refuse,
            listen,
            dns,
        },
    )
}

/// Random `dns` sections.
pub fn dns_sections() -> impl Strategy<Value = Dns> {
    let types =
        btree_set(any::<u16>().prop_map(RecordType).prop_filter("a type of data", |kind| !kind.is_meta()), 0..6);
    let refuse = select(RefusalCode::ALL).prop_map(|(_, refuse)| refuse);
    let budget = (1..=1_000_000_u32, 1..=1_000_000_u32, 1..=63_u8, 0..=100_u8).prop_map(
        |(questions_per_minute, names_per_hour, label_bytes, random_percent)| Budget {
            questions_per_minute,
            names_per_hour,
            label_bytes,
            random_percent,
        },
    );
    let addresses = (1..=1_048_576_u32, 1..=1_048_576_u32)
        .prop_map(|(one, other)| AddressLimits { per_name: one.min(other), total: one.max(other) });
    let server = (addresses_of_hosts(), prop_oneof![Just(53), Just(853), 1..=u16::MAX], option::of(domain_names()))
        .prop_map(|(address, port, name)| (SocketAddr::new(address, port), name))
        .prop_map(|(address, name)| match name {
            None => NameServer::Plain(address),
            Some(name) => NameServer::Tls(address, name),
        });
    let servers = btree_set(server, 0..3).prop_map(|servers| servers.into_iter().collect());
    (types, refuse, 0..=86_400_u32, 1..=3_600_u32, budget, addresses, servers).prop_map(
        |(types, refuse, grace_seconds, ttl_floor_seconds, budget, addresses, servers)| Dns {
            types,
            refuse,
            grace_seconds,
            ttl_floor_seconds,
            budget,
            addresses,
            servers,
        },
    )
}

fn addresses_of_hosts() -> impl Strategy<Value = IpAddr> {
    addresses().prop_filter("the address of a host", |address| {
        !address.is_unspecified() && !address.is_multicast() && *address != IpAddr::V4(Ipv4Addr::BROADCAST)
    })
}

/// Ports that are never blocked, so that most policies allow something.
fn wide() -> Ports {
    Ports::from_items(PortRange::new(400, 65_535).map(PortItem::Both))
}

fn policy_names() -> impl Strategy<Value = PolicyName> {
    "[a-z][a-z0-9-]{0,10}".prop_filter_map("a policy name", |name| PolicyName::parse(&name).ok())
}

/// Random rules for domains and networks.
pub fn rules() -> impl Strategy<Value = Rule> {
    let destination = prop_oneof![
        2 => (domain_names(), any::<bool>()).prop_map(|(name, is_below)| {
            Destination::Domain(if is_below { DomainPattern::Below(name) } else { DomainPattern::Exact(name) })
        }),
        3 => networks().prop_map(Destination::Network),
    ];
    (destination, ports()).prop_map(|(destination, ports)| Rule { destination, ports, place: Place::default() })
}

fn ports() -> impl Strategy<Value = Ports> {
    prop_oneof![1 => Just(Ports::every()), 3 => vec(port_items(), 1..4).prop_map(Ports::from_items)]
}

fn port_items() -> impl Strategy<Value = PortItem> {
    let ranges = [(22, 22), (80, 80), (443, 443), (1, 80), (400, 500), (8000, 8100), (8050, 65_535), (65_535, 65_535)];
    let ranges: Vec<PortRange> = ranges.iter().filter_map(|(first, last)| PortRange::new(*first, *last)).collect();
    (select(ranges), 0..7_u8).prop_map(|(range, kind)| match kind {
        0..3 => PortItem::Both(range),
        3..5 => PortItem::Tcp(range),
        5 => PortItem::Udp(range),
        _ => PortItem::Icmp,
    })
}

/// Networks around a few addresses, so that they nest.
pub fn networks() -> impl Strategy<Value = Network> {
    let near = (addresses(), select(vec![0_u8, 1, 6, 7, 8, 9, 12, 16, 23, 24, 30, 31, 32, 48, 64, 96, 127, 128]))
        .prop_map(|(address, length)| Network::containing(address, length));
    let special = select(SPECIAL_NETWORKS.as_slice()).prop_map(|special| special.network());
    prop_oneof![5 => near, 1 => special]
}

/// Addresses inside and outside of special-purpose networks, with others close to them.
pub fn addresses() -> impl Strategy<Value = IpAddr> {
    let anchors = [
        "8.8.8.8",
        "8.8.8.8",
        "93.184.216.34",
        "93.184.216.34",
        "11.0.0.0",
        "10.20.30.40",
        "192.168.1.1",
        "169.254.169.254",
        "127.0.0.1",
        "100.64.0.1",
        "224.0.0.251",
        "255.255.255.255",
        "0.0.0.0",
        "2606:4700::1111",
        "2606:4700::1111",
        "2a00:1450::1",
        "fd00:ec2::254",
        "fd12::1",
        "fe80::1",
        "::1",
        "::",
        "64:ff9b::a00:1",
        "64:ff9b::808:808",
        "2002:a00:1::1",
        "ff02::1",
    ];
    let anchors: Vec<IpAddr> = anchors.iter().filter_map(|address| address.parse().ok()).collect();
    (select(anchors), prop_oneof![4 => Just(0_u8), 1 => 1..=255_u8]).prop_map(|(address, low)| match address {
        IpAddr::V4(address) => IpAddr::V4(Ipv4Addr::from(u32::from(address) ^ u32::from(low))),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from(u128::from(address) ^ u128::from(low))),
    })
}

fn domain_names() -> impl Strategy<Value = DomainName> {
    let names =
        ["example.com", "api.example.com", "v1.api.example.com", "notexample.com", "example.org", "cdn.example"];
    select(names.iter().filter_map(|name| DomainName::parse(name).ok()).collect::<Vec<_>>())
}

/// Names that share addresses, some of which have expired.
pub fn knowns() -> impl Strategy<Value = Known> {
    let ends = select(vec![0_u32, 0, 50, 100, 101, 150]);
    let shared: Vec<IpAddr> =
        ["8.8.8.8", "93.184.216.34", "2606:4700::1111"].iter().filter_map(|address| address.parse().ok()).collect();
    let address = prop_oneof![3 => select(shared), 1 => addresses()];
    let address =
        (address, any::<bool>()).prop_map(|(address, is_mapped)| if is_mapped { mapped(address) } else { address });
    let names = btree_map(domain_names(), btree_map(address, ends, 0..5), 0..5);
    names.prop_map(|addresses| Known { addresses })
}

fn mapped(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(address) => IpAddr::V6(address.to_ipv6_mapped()),
        IpAddr::V6(_) => address,
    }
}

/// The ends of networks, what is beside them, and the addresses of names.
fn address_edges(policy: &Policy, known: &Known) -> Vec<IpAddr> {
    let networks = policy.allow.iter().filter_map(|rule| match &rule.destination {
        Destination::Domain(_) => None,
        Destination::Network(network) => Some(*network),
    });
    let special = SPECIAL_NETWORKS.iter().map(SpecialNetwork::network);
    let ends = networks
        .chain(special)
        .flat_map(|network| [network.first(), network.last(), before(network.first()), after(network.last())]);
    let names = known.addresses.values().flat_map(|addresses| addresses.keys().copied());
    ends.chain(names).collect()
}

fn before(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(address) => IpAddr::V4(Ipv4Addr::from(u32::from(address).wrapping_sub(1))),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from(u128::from(address).wrapping_sub(1))),
    }
}

fn after(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(address) => IpAddr::V4(Ipv4Addr::from(u32::from(address).wrapping_add(1))),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from(u128::from(address).wrapping_add(1))),
    }
}

/// The ends of port ranges, and what is beside them.
fn port_edges(policy: &Policy) -> Vec<u16> {
    let mut ports = Vec::new();
    for set in policy.allow.iter().map(|rule| &rule.ports).chain([&policy.blocked_ports]) {
        for range in set.ranges(Protocol::Tcp).iter().chain(set.ranges(Protocol::Udp)) {
            let (first, last) = (range.first(), range.last());
            ports.extend([first, last, first.wrapping_sub(1), last.wrapping_add(1)]);
        }
    }
    ports
}
