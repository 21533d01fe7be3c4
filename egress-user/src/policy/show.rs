//! [`Policy`] → a policy file in which every default is spelled out.

use serde::{Serialize, Serializer};
use serde_yaml::FlowSeq;

use super::{Destination, Policy, PortItem, Ports, Rule, dns};

/// The policy as it was understood. Parsing the text gives an equal policy.
pub fn show(policy: &Policy) -> String {
    let Policy { name, description, workload, mode, tier, allow, blocked_ports, refuse, listen, dns } = policy;
    let file = File {
        version: 1,
        name: name.as_str(),
        description: description.as_deref(),
        workload: workload.as_ref().map(|workload| WorkloadKeys { cgroup: workload.cgroup.as_str() }),
        mode: mode.to_string(),
        tier: tier.map(|tier| tier.to_string()),
        allow: allow.iter().map(RuleKeys::from).collect(),
        blocked_ports: ports(blocked_ports),
        refuse: refuse.to_string(),
        listen: *listen,
        dns: dns::section(dns),
    };
    // Writing to a string cannot fail, and every value here has a form in YAML.
    serde_yaml::to_string(&file).unwrap_or_default()
}

#[derive(Serialize)]
struct File<'a> {
    version: u8,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    workload: Option<WorkloadKeys<'a>>,
    mode: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    tier: Option<String>,
    allow: Vec<RuleKeys>,
    blocked_ports: FlowSeq<Vec<Item>>,
    refuse: String,
    listen: bool,
    dns: dns::Section,
}

#[derive(Serialize)]
struct WorkloadKeys<'a> {
    cgroup: &'a str,
}

#[derive(Serialize)]
struct RuleKeys {
    #[serde(skip_serializing_if = "Option::is_none")]
    domain: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    network: Option<String>,
    ports: FlowSeq<Vec<Item>>,
}

impl From<&Rule> for RuleKeys {
    fn from(rule: &Rule) -> Self {
        let (domain, network) = match &rule.destination {
            Destination::Domain(pattern) => (Some(pattern.to_string()), None),
            Destination::Network(network) => (None, Some(network.to_string())),
        };
        Self { domain, network, ports: ports(&rule.ports) }
    }
}

fn ports(ports: &Ports) -> FlowSeq<Vec<Item>> {
    FlowSeq(ports.items().into_iter().map(Item).collect())
}

/// A port without a protocol is a number in YAML, so that it needs no quotes.
struct Item(PortItem);

impl Serialize for Item {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            PortItem::Both(range) if range.first() == range.last() => serializer.serialize_u16(range.first()),
            PortItem::Both(_) | PortItem::Tcp(_) | PortItem::Udp(_) | PortItem::Icmp => serializer.collect_str(&self.0),
        }
    }
}
