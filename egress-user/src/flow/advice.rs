//! Refusals in words, and what a person would add to the policy to allow what was refused.

use std::net::{IpAddr, SocketAddr};

use egress_common::{Protocol, Reason, Verdict, event::Hook};
use jiff::Timestamp;
use serde::Serialize;

use super::{
    observation::{Observation, protocol_name},
    record::{self, Source},
};

/// One line of the file that `EGRESS_REFUSALS` names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct RefusalRecord<'a> {
    time: String,
    verdict: &'static str,
    destination: Option<String>,
    name: Option<&'a str>,
    protocol: String,
    reason: &'static str,
    message: String,
    allow: Option<String>,
    policy: &'a str,
    pid: u32,
    command: &'a str,
}

/// A refusal as a line of JSON, with its newline.
pub fn refusal_line(observation: &Observation, names: &str, source: &Source, time: Timestamp) -> String {
    let record = RefusalRecord {
        time: record::rfc3339(time),
        verdict: record::verdict_name(observation.verdict),
        destination: record::far_end(observation).map(|remote| spell_destination(remote, observation.protocol)),
        name: record::some(names),
        protocol: protocol_name(observation.protocol),
        reason: observation.reason.name(),
        message: message(observation, names, &source.policy),
        allow: allow(observation, names),
        policy: &source.policy,
        pid: observation.pid,
        command: &observation.command,
    };
    record::line(&record)
}

/// An address with its port, or without one where the protocol has none.
pub fn spell_destination(remote: SocketAddr, protocol: u8) -> String {
    match Protocol::from_wire(protocol) {
        Some(Protocol::Icmp) => remote.ip().to_string(),
        Some(Protocol::Tcp | Protocol::Udp) | None => remote.to_string(),
    }
}

/// What was refused and why, in one sentence.
fn message(observation: &Observation, names: &str, policy: &str) -> String {
    let what = subject(observation, names);
    let protocol = protocol_name(observation.protocol);
    let text = match observation.reason {
        Reason::NoRule => format!("no rule of policy `{policy}` allows {what}"),
        Reason::BlockedPort => {
            format!("{what}: the port is in `blocked_ports` of policy `{policy}`, which no rule can overrule")
        }
        Reason::PortNotAllowed => format!("policy `{policy}` allows this destination, but not on this port: {what}"),
        Reason::SpecialPurpose => format!(
            "{what} is in a special-purpose network, which only a rule of policy `{policy}` that names a network inside \
             it can open; no domain can"
        ),
        Reason::Tier => format!("{what} is outside the `tier` of policy `{policy}`, which no rule can overrule"),
        Reason::Expired => {
            format!("{what} was an address of an allowed name, and the name has not been resolved to it for too long")
        }
        Reason::Protocol => format!("only TCP, UDP and ICMP echo can be allowed, not {protocol}"),
        Reason::Fragment => "IP fragments are refused, because all but the first have no port".to_owned(),
        Reason::ExtensionHeader => "IPv6 packets with extension headers are refused".to_owned(),
        Reason::IpOptions => "IPv4 packets with options are refused".to_owned(),
        Reason::Malformed => "the packet is too short or contradicts itself".to_owned(),
        Reason::Unsolicited => format!("policy `{policy}` has `listen: false`, so nothing may come in from {what}"),
        Reason::Listen => format!("policy `{policy}` has `listen: false`, so nothing may listen on {what}"),
        Reason::SocketKind => {
            "only TCP, UDP and ICMP echo sockets of IPv4 and IPv6 may be made, not raw or packet sockets".to_owned()
        }
        Reason::Unbound => "the cgroup has no policy, so everything is refused".to_owned(),
        Reason::NoMemory => "the kernel had no memory to remember the flow, so it was refused".to_owned(),
        Reason::NoResolver => {
            "no name can be resolved here, because egress does not answer questions in this network namespace (yet), or \
             no longer; try again, or look whether it still runs"
                .to_owned()
        }
        Reason::SharedPort => {
            "a socket of another workload shares this port, so nobody could tell whose question it is; use another port"
                .to_owned()
        }
        Reason::DeviceBound => "the socket uses one network device, by which it reaches neither loopback nor egress, which answers \
                                questions about names; use no SO_BINDTODEVICE, IP_UNICAST_IF or IP_PKTINFO"
            .to_owned(),
        Reason::Rule | Reason::OwnLoopback | Reason::Accepted | Reason::Deferred | Reason::Question => {
            format!("{what} is allowed")
        }
    };
    match observation.verdict {
        Verdict::Deny => text,
        Verdict::Allow => format!("let through, because the policy only audits: {text}"),
    }
}

/// What a person would add to the policy, if adding something helps.
fn allow(observation: &Observation, names: &str) -> Option<String> {
    match observation.reason {
        Reason::NoRule | Reason::PortNotAllowed | Reason::Expired => rule(observation, names),
        // A rule with a name does not open such an address.
        Reason::SpecialPurpose => rule(observation, ""),
        Reason::Unsolicited | Reason::Listen => Some("listen: true".to_owned()),
        Reason::BlockedPort
        | Reason::Tier
        | Reason::Protocol
        | Reason::Fragment
        | Reason::ExtensionHeader
        | Reason::IpOptions
        | Reason::Malformed
        | Reason::SocketKind
        | Reason::Unbound
        | Reason::NoMemory
        | Reason::Rule
        | Reason::OwnLoopback
        | Reason::Accepted
        | Reason::Deferred
        | Reason::Question
        | Reason::NoResolver
        | Reason::SharedPort
        | Reason::DeviceBound => None,
    }
}

/// An item of `allow` in its short form. With several names the first is as good as any.
fn rule(observation: &Observation, names: &str) -> Option<String> {
    let remote = record::far_end(observation)?;
    let port = match Protocol::from_wire(observation.protocol)? {
        Protocol::Icmp => "icmp".to_owned(),
        protocol @ (Protocol::Tcp | Protocol::Udp) => format!("{}/{}", remote.port(), protocol.name()),
    };
    let rule = match (names.split(',').next().filter(|name| !name.is_empty()), remote.ip()) {
        (Some(name), _) => format!("- {name}:{port}"),
        (None, IpAddr::V4(address)) => format!("- {address}:{port}"),
        // A bracket begins a list in YAML.
        (None, IpAddr::V6(address)) => format!("- \"[{address}]:{port}\""),
    };
    Some(rule)
}

fn subject(observation: &Observation, names: &str) -> String {
    let Some(remote) = record::far_end(observation) else {
        return protocol_name(observation.protocol);
    };
    let what = match (Protocol::from_wire(observation.protocol), observation.hook) {
        (Some(Protocol::Icmp), _) => format!("{} (ICMP echo)", remote.ip()),
        (Some(Protocol::Tcp | Protocol::Udp), Hook::Bind) => {
            format!("port {}/{}", remote.port(), protocol_name(observation.protocol))
        }
        (Some(Protocol::Tcp | Protocol::Udp), _) => format!("{remote}/{}", protocol_name(observation.protocol)),
        (None, _) => format!("{} by {}", remote.ip(), protocol_name(observation.protocol)),
    };
    if names.is_empty() { what } else { format!("{what} ({})", names.replace(',', ", ")) }
}

#[cfg(test)]
mod tests {
    use egress_common::{Address, event::Event};

    use super::*;
    use crate::flow::observation::tests::refusal;

    #[test]
    fn a_refusal_says_what_would_allow_it() {
        let v6 = Address::from_v6("2001:db8::1".parse::<std::net::Ipv6Addr>().unwrap().octets());
        for (event, names, expected) in [
            (with(Reason::NoRule), "", Some("- 192.0.2.1:443/tcp")),
            (with(Reason::PortNotAllowed), "api.example.com", Some("- api.example.com:443/tcp")),
            (with(Reason::PortNotAllowed), "a.example,b.example", Some("- a.example:443/tcp")),
            (Event { remote: v6, ..with(Reason::NoRule) }, "", Some("- \"[2001:db8::1]:443/tcp\"")),
            (Event { protocol: 17, ..with(Reason::NoRule) }, "", Some("- 192.0.2.1:443/udp")),
            (Event { protocol: 1, remote_port: 0, ..with(Reason::NoRule) }, "", Some("- 192.0.2.1:icmp")),
            (with(Reason::SpecialPurpose), "rebind.example", Some("- 192.0.2.1:443/tcp")),
            (with(Reason::BlockedPort), "a.example", None),
            (with(Reason::Tier), "a.example", None),
            (with(Reason::Listen), "", Some("listen: true")),
            (with(Reason::Unsolicited), "", Some("listen: true")),
            (Event { protocol: 132, ..with(Reason::NoRule) }, "", None),
            (Event { remote: Address::UNSPECIFIED, remote_port: 0, ..with(Reason::NoRule) }, "", None),
        ] {
            let observation = Observation::read(&event).unwrap();
            assert_eq!(allow(&observation, names).as_deref(), expected, "{observation:?} {names}");
        }
    }

    #[test]
    fn every_reason_has_its_own_words() {
        let mut words: Vec<_> = Reason::ALL.iter().map(|reason| message(&read(&with(*reason)), "", "p")).collect();
        // The four that are no refusals share theirs.
        words.truncate(usize::from(Reason::Rule.wire()));
        words.sort();
        let count = words.len();
        words.dedup();
        assert_eq!(words.len(), count, "{words:#?}");
    }

    #[test]
    fn a_refusal_is_one_line_that_an_agent_can_read() {
        let lines: String = [
            (with(Reason::NoRule), ""),
            (Event { remote_port: 22, ..with(Reason::BlockedPort) }, "git.example.com"),
            (Event { verdict: 1, ..with(Reason::PortNotAllowed) }, "a.example,b.example"),
            (Event { hook: Hook::Bind as u8, remote_port: 8080, ..with(Reason::Listen) }, ""),
        ]
        .iter()
        .map(|(event, names)| {
            let source = Source { cgroup: "/a".to_owned(), policy: "p".to_owned() };
            let time = "2026-11-22T14:33:05.000000007Z".parse().unwrap();
            refusal_line(&read(event), names, &source, time)
        })
        .collect();
        insta::assert_snapshot!(lines, @r#"
        {"time":"2026-11-22T14:33:05.000000007Z","verdict":"deny","destination":"192.0.2.1:443","name":null,"protocol":"tcp","reason":"no_rule","message":"no rule of policy `p` allows 192.0.2.1:443/tcp","allow":"- 192.0.2.1:443/tcp","policy":"p","pid":7,"command":"curl"}
        {"time":"2026-11-22T14:33:05.000000007Z","verdict":"deny","destination":"192.0.2.1:22","name":"git.example.com","protocol":"tcp","reason":"blocked_port","message":"192.0.2.1:22/tcp (git.example.com): the port is in `blocked_ports` of policy `p`, which no rule can overrule","allow":null,"policy":"p","pid":7,"command":"curl"}
        {"time":"2026-11-22T14:33:05.000000007Z","verdict":"allow","destination":"192.0.2.1:443","name":"a.example,b.example","protocol":"tcp","reason":"port_not_allowed","message":"let through, because the policy only audits: policy `p` allows this destination, but not on this port: 192.0.2.1:443/tcp (a.example, b.example)","allow":"- a.example:443/tcp","policy":"p","pid":7,"command":"curl"}
        {"time":"2026-11-22T14:33:05.000000007Z","verdict":"deny","destination":"192.0.2.1:8080","name":null,"protocol":"tcp","reason":"listen","message":"policy `p` has `listen: false`, so nothing may listen on port 8080/tcp","allow":"listen: true","policy":"p","pid":7,"command":"curl"}
        "#);
    }

    fn with(reason: Reason) -> Event {
        Event { reason: reason.wire(), ..refusal("curl") }
    }

    fn read(event: &Event) -> Observation {
        Observation::read(event).unwrap()
    }
}
