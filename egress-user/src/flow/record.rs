//! Events as lines of JSON. `docs/events.md` describes them.

use std::net::{IpAddr, SocketAddr};

use egress_common::{
    Verdict,
    event::{Hook, Kind},
};
use jiff::Timestamp;
use serde::Serialize;

use super::observation::{Observation, protocol_name};

/// What all records of one run have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Path of the cgroup.
    pub cgroup: String,
    /// Name of the policy.
    pub policy: String,
}

/// What every line of `--events` begins with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Head<'a> {
    time: String,
    kind: &'static str,
    cgroup: &'a str,
    policy: &'a str,
    pid: u32,
    command: &'a str,
}

impl<'a> Head<'a> {
    pub(super) fn new(time: Timestamp, kind: &'static str, source: &'a Source, pid: u32, command: &'a str) -> Self {
        let Source { cgroup, policy } = source;
        Self { time: rfc3339(time), kind, cgroup, policy, pid, command }
    }
}

/// One line of `--events`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct EventRecord<'a> {
    #[serde(flatten)]
    head: Head<'a>,
    direction: &'static str,
    protocol: String,
    local_address: Option<IpAddr>,
    local_port: Option<u16>,
    remote_address: Option<IpAddr>,
    remote_port: Option<u16>,
    domain: Option<&'a str>,
    verdict: &'static str,
    reason: &'static str,
    hook: &'static str,
    tx_packets: u64,
    tx_bytes: u64,
    rx_packets: u64,
    rx_bytes: u64,
}

/// One event as a line of JSON, with its newline.
pub fn event_line(observation: &Observation, names: &str, source: &Source, time: Timestamp) -> String {
    let remote = far_end(observation);
    let record = EventRecord {
        head: Head::new(time, observation.kind.name(), source, observation.pid, &observation.command),
        direction: direction(observation),
        protocol: protocol_name(observation.protocol),
        local_address: observation.local.map(|local| local.ip()),
        local_port: observation.local.map(|local| local.port()),
        remote_address: remote.map(|remote| remote.ip()),
        remote_port: remote.map(|remote| remote.port()),
        domain: some(names),
        verdict: verdict_name(observation.verdict),
        reason: observation.reason.name(),
        hook: observation.hook.name(),
        tx_packets: observation.traffic.tx_packets,
        tx_bytes: observation.traffic.tx_bytes,
        rx_packets: observation.traffic.rx_packets,
        rx_bytes: observation.traffic.rx_bytes,
    };
    line(&record)
}

/// A value as one line of JSON, with its newline.
pub(super) fn line(record: &impl Serialize) -> String {
    // Records are structures of numbers and strings, which always have a form in JSON.
    let mut line = serde_json::to_string(record).unwrap_or_default();
    line.push('\n');
    line
}

/// Nanoseconds, always nine digits, so that lines sort by their time.
pub fn rfc3339(time: Timestamp) -> String {
    format!("{time:.9}")
}

/// The word for a verdict.
pub fn verdict_name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Allow => "allow",
        Verdict::Deny => "deny",
    }
}

/// The far end, where a hook knew one.
pub fn far_end(observation: &Observation) -> Option<SocketAddr> {
    let remote = observation.remote;
    (!remote.ip().is_unspecified() || remote.port() != 0).then_some(remote)
}

/// `None` for nothing.
pub(super) fn some(names: &str) -> Option<&str> {
    (!names.is_empty()).then_some(names)
}

fn direction(observation: &Observation) -> &'static str {
    let refused_inbound = observation.kind == Kind::Refusal && observation.hook == Hook::Ingress;
    if observation.inbound || refused_inbound { "inbound" } else { "outbound" }
}

#[cfg(test)]
mod tests {
    use egress_common::{Address, Reason, event::Event};

    use super::*;
    use crate::flow::observation::tests::refusal;

    #[test]
    fn a_flow_is_one_line_with_every_field() {
        let event = Event {
            kind: Kind::End as u8,
            hook: Hook::Release as u8,
            verdict: 1,
            reason: Reason::Rule.wire(),
            local: Address::from_v4([192, 0, 2, 9]),
            local_port: 40_000,
            tx_packets: 1,
            tx_bytes: 2,
            rx_packets: 3,
            rx_bytes: 4,
            ..refusal("curl")
        };
        insta::assert_snapshot!(render(&event, "a.example,b.example"), @r#"{"time":"2026-11-22T14:33:05.000000007Z","kind":"flow_end","cgroup":"/a","policy":"p","pid":7,"command":"curl","direction":"outbound","protocol":"tcp","local_address":"192.0.2.9","local_port":40000,"remote_address":"192.0.2.1","remote_port":443,"domain":"a.example,b.example","verdict":"allow","reason":"rule","hook":"release","tx_packets":1,"tx_bytes":2,"rx_packets":3,"rx_bytes":4}"#);
    }

    #[test]
    fn what_a_hook_does_not_know_is_null() {
        let event = Event {
            remote: Address::UNSPECIFIED,
            remote_port: 0,
            protocol: 132,
            hook: Hook::Socket as u8,
            reason: Reason::SocketKind.wire(),
            ..refusal("x")
        };
        insta::assert_snapshot!(render(&event, ""), @r#"{"time":"2026-11-22T14:33:05.000000007Z","kind":"refusal","cgroup":"/a","policy":"p","pid":7,"command":"x","direction":"outbound","protocol":"protocol 132","local_address":null,"local_port":null,"remote_address":null,"remote_port":null,"domain":null,"verdict":"deny","reason":"socket_kind","hook":"socket","tx_packets":0,"tx_bytes":0,"rx_packets":0,"rx_bytes":0}"#);
    }

    #[test]
    fn a_refused_packet_from_outside_is_inbound() {
        let event = Event { hook: Hook::Ingress as u8, reason: Reason::Unsolicited.wire(), ..refusal("x") };
        assert!(render(&event, "").contains(r#""direction":"inbound""#));
    }

    fn render(event: &Event, names: &str) -> String {
        let source = Source { cgroup: "/a".to_owned(), policy: "p".to_owned() };
        let time = "2026-11-22T14:33:05.000000007Z".parse().unwrap();
        let line = event_line(&Observation::read(event).unwrap(), names, &source, time);
        assert_eq!(line.matches('\n').count(), 1, "one line: {line:?}");
        line.trim_end().to_owned()
    }
}
