//! Flows, and what went to each destination.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
};

use egress_common::event::Kind;

use super::observation::{Observation, Traffic};

/// Flows that are live at once. A process may have a million open sockets, but few machines have room for more than
/// these; 64 bytes each, 16 MiB. A flow beyond it is counted when it ends.
const LIVE_MAX: usize = 262_144;

/// Flows that ended and are remembered, because a closed socket may still send what it has queued. That is over within
/// seconds. The oldest is forgotten; what it still sends would be counted as a flow of its own.
const ENDED_MAX: usize = 16_384;

/// Destinations with a line of their own. A scan of one port of a /16 fits; what goes to others is added up in one line.
const DESTINATIONS_MAX: usize = 100_000;

/// Where flows go to, or come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Destination {
    /// The far end. The port of an inbound flow is 0, because each peer chose its own.
    pub remote: SocketAddr,
    /// The protocol's number.
    pub protocol: u8,
    /// Whether the far end opened the flows.
    pub inbound: bool,
}

/// What went to a destination.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Total {
    /// The names that resolved to the address, when it was last seen; empty where none did.
    pub names: String,
    /// Flows that began.
    pub flows: u64,
    /// What they carried.
    pub traffic: Traffic,
}

/// Live flows and the totals of all flows.
#[derive(Clone, Debug, Default)]
pub struct Flows {
    live: BTreeMap<Key, Live>,
    ended: VecDeque<Key>,
    totals: BTreeMap<Destination, Total>,
    other: Total,
}

/// A flow: a socket has one after the other, as it sends to one destination after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    socket: u64,
    remote: SocketAddr,
    protocol: u8,
}

#[derive(Clone, Copy, Debug, Default)]
struct Live {
    counted: Traffic,
    ended: bool,
}

impl Flows {
    /// Takes an event of an allowed flow. Counters in events are those of the whole flow so far, so one that was lost
    /// loses nothing but time.
    pub fn observe(&mut self, observation: &Observation, names: &str) {
        let more = match observation.kind {
            Kind::Start => {
                self.begin(observation);
                observation.traffic
            }
            Kind::Report => self.advance(observation),
            Kind::End => self.end(observation),
            Kind::Refusal => return,
        };
        let total = self.total(observation);
        if total.names != names && !names.is_empty() {
            names.clone_into(&mut total.names);
        }
        total.traffic.add(more);
        total.flows += u64::from(observation.kind == Kind::Start);
    }

    /// Every destination with its total, those of inbound flows last.
    pub fn totals(&self) -> impl Iterator<Item = (&Destination, &Total)> {
        self.totals.iter()
    }

    /// What went to destinations beyond the limit.
    pub fn other(&self) -> &Total {
        &self.other
    }

    fn begin(&mut self, observation: &Observation) {
        let key = Key::of(observation);
        if self.live.len() < LIVE_MAX || self.live.contains_key(&key) {
            self.live.insert(key, Live { counted: observation.traffic, ended: false });
        }
    }

    fn advance(&mut self, observation: &Observation) -> Traffic {
        let key = Key::of(observation);
        if self.live.len() >= LIVE_MAX && !self.live.contains_key(&key) {
            return Traffic::default();
        }
        self.live.entry(key).or_default().count(observation.traffic)
    }

    fn end(&mut self, observation: &Observation) -> Traffic {
        let key = Key::of(observation);
        let live = self.live.entry(key).or_default();
        let more = live.count(observation.traffic);
        if !live.ended {
            live.ended = true;
            self.ended.push_back(key);
        }
        if self.ended.len() > ENDED_MAX
            && let Some(oldest) = self.ended.pop_front()
            && self.live.get(&oldest).is_some_and(|flow| flow.ended)
        {
            self.live.remove(&oldest);
        }
        more
    }

    fn total(&mut self, observation: &Observation) -> &mut Total {
        let destination = Destination::of(observation);
        if self.totals.len() >= DESTINATIONS_MAX && !self.totals.contains_key(&destination) {
            return &mut self.other;
        }
        self.totals.entry(destination).or_default()
    }
}

impl Live {
    fn count(&mut self, traffic: Traffic) -> Traffic {
        let more = traffic.since(self.counted);
        self.counted = traffic.max(self.counted);
        more
    }
}

impl Key {
    fn of(observation: &Observation) -> Self {
        Self { socket: observation.socket, remote: observation.remote, protocol: observation.protocol }
    }
}

impl Destination {
    fn of(observation: &Observation) -> Self {
        let mut remote = observation.remote;
        if observation.inbound {
            remote.set_port(0);
        }
        Self { remote, protocol: observation.protocol, inbound: observation.inbound }
    }
}

#[cfg(test)]
mod tests {
    use egress_common::event::Event;

    use super::*;
    use crate::flow::observation::tests::refusal;

    #[test]
    fn counters_of_a_flow_are_the_last_and_not_the_sum() {
        let mut flows = Flows::default();
        for (kind, packets) in [(Kind::Start, 0), (Kind::Report, 3), (Kind::Report, 10), (Kind::End, 12)] {
            flows.observe(&event(1, 443, kind, packets), "");
        }
        assert_eq!(packets(&flows, 443), (1, 12));
    }

    #[test]
    fn an_event_that_was_lost_loses_no_byte() {
        for kept in
            [&[(Kind::End, 12)][..], &[(Kind::Report, 10), (Kind::End, 12)], &[(Kind::Start, 0), (Kind::End, 12)]]
        {
            let mut flows = Flows::default();
            for (kind, packets) in kept {
                flows.observe(&event(1, 443, *kind, *packets), "");
            }
            assert_eq!(packets(&flows, 443).1, 12, "{kept:?}");
        }
    }

    #[test]
    fn an_event_that_is_late_counts_nothing_twice() {
        let mut flows = Flows::default();
        for packets in [10, 7, 12] {
            flows.observe(&event(1, 443, Kind::Report, packets), "");
        }
        assert_eq!(packets(&flows, 443).1, 12);
    }

    #[test]
    fn what_a_closed_socket_still_sends_is_counted_once() {
        let mut flows = Flows::default();
        for (kind, packets) in [(Kind::Start, 0), (Kind::End, 5), (Kind::Report, 6), (Kind::Report, 7)] {
            flows.observe(&event(1, 443, kind, packets), "");
        }
        assert_eq!(packets(&flows, 443), (1, 7));
    }

    #[test]
    fn a_socket_that_comes_back_to_a_destination_begins_a_new_flow() {
        let mut flows = Flows::default();
        for (port, kind, packets) in [
            (53, Kind::Start, 0),
            (53, Kind::End, 4),
            (54, Kind::Start, 0),
            (54, Kind::End, 1),
            (53, Kind::Start, 0),
            (53, Kind::End, 2),
        ] {
            flows.observe(&event(1, port, kind, packets), "");
        }
        assert_eq!((packets(&flows, 53), packets(&flows, 54)), ((2, 6), (1, 1)));
    }

    #[test]
    fn sockets_to_one_destination_are_added_up() {
        let mut flows = Flows::default();
        for socket in 1..=3 {
            flows.observe(&event(socket, 443, Kind::Start, 0), "");
            flows.observe(&event(socket, 443, Kind::Report, 5), "");
        }
        assert_eq!(packets(&flows, 443), (3, 15));
    }

    #[test]
    fn inbound_flows_are_added_up_per_peer_whatever_port_it_chose() {
        let mut flows = Flows::default();
        for port in [40_000, 40_001] {
            let inbound = Observation { inbound: true, ..event(u64::from(port), port, Kind::End, 2) };
            flows.observe(&inbound, "");
        }
        let totals: Vec<_> = flows.totals().map(|(to, total)| (to.remote.port(), to.inbound, total.traffic)).collect();
        let traffic = Traffic { tx_packets: 4, tx_bytes: 400, ..Traffic::default() };
        assert_eq!(totals, [(0, true, traffic)]);
    }

    #[test]
    fn a_name_is_kept_when_the_address_no_longer_has_one() {
        let mut flows = Flows::default();
        flows.observe(&event(1, 443, Kind::Start, 0), "a.example");
        flows.observe(&event(1, 443, Kind::End, 9), "");
        let names: Vec<_> = flows.totals().map(|(_, total)| total.names.as_str()).collect();
        assert_eq!(names, ["a.example"]);
    }

    #[test]
    fn destinations_beyond_the_limit_are_added_up_in_one_line() {
        let mut flows = Flows::default();
        for index in 0..DESTINATIONS_MAX + 2 {
            let mut observation = event(1, 443, Kind::End, 1);
            observation.remote = SocketAddr::from(((0x0a00_0000 + u32::try_from(index).unwrap()).to_be_bytes(), 443));
            flows.observe(&observation, "");
        }
        assert_eq!((flows.totals().count(), flows.other().traffic.tx_packets), (DESTINATIONS_MAX, 2));
        assert!(flows.live.len() <= ENDED_MAX + 1, "ended flows are forgotten: {}", flows.live.len());
    }

    fn event(socket: u64, port: u16, kind: Kind, packets: u64) -> Observation {
        let event = Event {
            socket,
            kind: kind as u8,
            remote_port: port,
            tx_packets: packets,
            tx_bytes: packets * 100,
            verdict: 1,
            ..refusal("curl")
        };
        Observation::read(&event).unwrap()
    }

    fn packets(flows: &Flows, port: u16) -> (u64, u64) {
        let (_, total) = flows.totals().find(|(to, _)| to.remote.port() == port).unwrap();
        (total.flows, total.traffic.tx_packets)
    }
}
