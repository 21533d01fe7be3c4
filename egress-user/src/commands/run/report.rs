//! The summary at the end of a run.

use std::collections::BTreeMap;

use egress_common::{Reason, Verdict, event::Hook};

use super::table::{Style, Table};
use crate::{
    dns::proxy::Unanswered,
    engine::Engine,
    flow::{
        Destination, Refusal, Refusals, RefusedName, Total, Traffic, advice::spell_destination,
        observation::protocol_name,
    },
};

/// Rows of each table: about two screens. The rest is added up in one line; `--events` has all of it.
const ROWS_MAX: usize = 40;

/// What was lost on the way to the records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Losses {
    /// Events that did not fit into the ring buffer.
    pub(super) events: u64,
    /// Events that made no sense.
    pub(super) unreadable: u64,
    /// Messages to the DNS proxy that were no question.
    pub(super) messages: u64,
    /// Addresses of names for which there was no room.
    pub(super) addresses: u64,
    /// Questions about names that were not answered.
    pub(super) questions: Unanswered,
}

/// The summary of a run.
pub(super) fn summary(engine: &Engine, losses: Losses, style: Style) -> String {
    let policy = engine.policy().name.as_str();
    let totals: Vec<_> = engine.flows().totals().collect();
    let mut text = format!(
        "egress: policy `{policy}`: {}, {}\n",
        counted(totals.len(), "destination", "destinations"),
        counted(usize::try_from(engine.refusals().count()).unwrap_or(usize::MAX), "refusal", "refusals"),
    );
    text.push_str(&destinations(totals, engine.flows().other(), style));
    text.push_str(&refused(refused_rows(engine.refusals()), engine.refusals().other(), style));
    text.push_str(&lost(losses));
    text
}

fn destinations(mut totals: Vec<(&Destination, &Total)>, other: &Total, style: Style) -> String {
    if totals.is_empty() {
        return String::new();
    }
    totals.sort_by_key(|(destination, total)| (std::cmp::Reverse(total.traffic.bytes()), **destination));
    let mut table = Table::new(["destination", "name", "flows", "sent", "received"]);
    let mut rest = other.clone();
    for (index, (destination, total)) in totals.into_iter().enumerate() {
        if index < ROWS_MAX {
            table.row([
                spell(destination),
                total.names.replace(',', ", "),
                total.flows.to_string(),
                sent(total.traffic),
                received(total.traffic),
            ]);
        } else {
            rest.flows += total.flows;
            rest.traffic.add(total.traffic);
        }
    }
    if rest != Total::default() {
        let Total { names: _, flows, traffic } = rest;
        table.row(["others".to_owned(), String::new(), flows.to_string(), sent(traffic), received(traffic)]);
    }
    table.render(style, "32")
}

/// What was refused, its name, the reason and the process, with how often.
fn refused_rows(refusals: &Refusals) -> BTreeMap<[String; 4], u64> {
    // In audit mode the call and then the packet are refused, which is one thing to whoever reads this.
    let mut rows: BTreeMap<[String; 4], u64> = BTreeMap::new();
    for (refusal, count, names) in refusals.groups() {
        let reason = reason(refusal.reason.name(), refusal.verdict);
        let row = [spell_refused(refusal), names.replace(',', ", "), reason, refusal.command.clone()];
        *rows.entry(row).or_default() += count;
    }
    for (refused, count) in refusals.names() {
        let RefusedName { name, kind, reason: why, command, verdict } = refused;
        let row = [format!("name {name} ({kind})"), String::new(), reason(why, *verdict), command.clone()];
        *rows.entry(row).or_default() += count;
    }
    rows
}

fn refused(rows: BTreeMap<[String; 4], u64>, other: u64, style: Style) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let mut rows: Vec<_> = rows.into_iter().collect();
    // Stable, so rows with the same count stay sorted by what was refused.
    rows.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let mut table = Table::new(["refused", "name", "reason", "count", "process"]);
    let rest: u64 = rows.iter().skip(ROWS_MAX).map(|(_, count)| count).sum::<u64>().saturating_add(other);
    for ([what, names, reason, command], count) in rows.into_iter().take(ROWS_MAX) {
        table.row([what, names, reason, count.to_string(), command]);
    }
    if rest > 0 {
        table.row(["others".to_owned(), String::new(), String::new(), rest.to_string(), String::new()]);
    }
    table.render(style, "31")
}

fn lost(losses: Losses) -> String {
    let Losses { events, unreadable, messages, addresses, questions: Unanswered { unattributed, crowded, late } } =
        losses;
    let lines = [
        (events, "events did not fit into the ring buffer; what live flows carried is counted all the same"),
        (unreadable, "events of the kernel half made no sense"),
        (messages, "messages to name servers could not be read as questions"),
        (addresses, "addresses of names were not allowed, because there was no room for more"),
        (unattributed, "questions about names came from sockets that are closed or not governed, and got no answer"),
        (crowded, "questions about names or connections for them were dropped, because there were too many at once"),
        (late, "answers to questions about names came too late for whoever had asked"),
    ];
    let lines = lines.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("  {count} {what}\n"));
    lines.collect::<Vec<_>>().concat()
}

fn spell(destination: &Destination) -> String {
    let Destination { remote, protocol, inbound } = destination;
    let name = protocol_name(*protocol);
    if *inbound {
        format!("from {}/{name}", remote.ip())
    } else {
        format!("{}/{name}", spell_destination(*remote, *protocol))
    }
}

fn spell_refused(refusal: &Refusal) -> String {
    let Refusal { remote, protocol, hook, .. } = refusal;
    let name = protocol_name(*protocol);
    let is_known = !remote.ip().is_unspecified() || remote.port() != 0;
    match (hook, refusal.reason) {
        (Hook::Socket, Reason::SocketKind) => format!("socket of {name}"),
        (Hook::Bind, _) => format!("listen on {remote}/{name}"),
        (Hook::Ingress, _) if is_known => format!("from {}/{name}", remote.ip()),
        (Hook::Connect | Hook::SendMsg | Hook::Egress | Hook::Ingress | Hook::Socket | Hook::Release, _)
            if is_known =>
        {
            format!("{}/{name}", spell_destination(*remote, *protocol))
        }
        (Hook::Connect | Hook::SendMsg | Hook::Egress | Hook::Ingress | Hook::Socket | Hook::Release, _) => {
            "a packet".to_owned()
        }
    }
}

fn reason(name: &str, verdict: Verdict) -> String {
    match verdict {
        Verdict::Deny => name.to_owned(),
        Verdict::Allow => format!("{name} (only audited)"),
    }
}

fn sent(traffic: Traffic) -> String {
    format!("{} in {}", bytes(traffic.tx_bytes), packets(traffic.tx_packets))
}

fn received(traffic: Traffic) -> String {
    format!("{} in {}", bytes(traffic.rx_bytes), packets(traffic.rx_packets))
}

fn packets(count: u64) -> String {
    if count == 1 { "1 packet".to_owned() } else { format!("{count} packets") }
}

fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// Three digits or more, in powers of 1000.
fn bytes(count: u64) -> String {
    let units = [(1_000_000_000_000, "TB"), (1_000_000_000, "GB"), (1_000_000, "MB"), (1000, "kB")];
    match units.into_iter().find(|(unit, _)| count >= *unit) {
        None => format!("{count} B"),
        Some((unit, name)) => format!("{}.{} {name}", count / unit, count % unit * 10 / unit),
    }
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable as _;
    use egress_common::{
        Address,
        event::{Event, Kind},
    };
    use jiff::Timestamp;

    use super::*;
    use crate::{
        dns::{
            question::{Ticket, Transport},
            testing::{address, answered, asked, asker, query},
        },
        engine::{Input, Now, Recording},
        policy::{self, RecordType},
    };

    #[test]
    fn a_summary_has_destinations_refusals_and_losses() {
        let mut engine = engine();
        let tell = |engine: &mut Engine, event: &Event| engine.handle(Input::Event(event), NOW).len();
        let flow = Event {
            kind: Kind::End as u8,
            hook: Hook::Release as u8,
            verdict: 1,
            reason: Reason::Rule.wire(),
            ..event([93, 184, 216, 34], 443, "curl")
        };
        tell(&mut engine, &Event { kind: Kind::Start as u8, socket: 1, ..flow });
        tell(
            &mut engine,
            &Event { socket: 1, tx_packets: 9, tx_bytes: 999, rx_packets: 12, rx_bytes: 1_250_000, ..flow },
        );
        tell(
            &mut engine,
            &Event {
                socket: 2,
                remote: Address::from_v4([9, 9, 9, 9]),
                protocol: 17,
                remote_port: 53,
                tx_packets: 1,
                tx_bytes: 71,
                ..flow
            },
        );
        for _ in 0..3 {
            tell(&mut engine, &event([10, 0, 0, 1], 22, "ssh"));
        }
        tell(
            &mut engine,
            &Event { remote_port: 80, reason: Reason::PortNotAllowed.wire(), ..event([93, 184, 216, 34], 80, "curl") },
        );
        tell(
            &mut engine,
            &Event { hook: Hook::Bind as u8, reason: Reason::Listen.wire(), ..event([0, 0, 0, 0], 8080, "nc") },
        );
        tell(
            &mut engine,
            &Event {
                hook: Hook::Socket as u8,
                reason: Reason::SocketKind.wire(),
                protocol: 255,
                remote: Address::UNSPECIFIED,
                remote_port: 0,
                ..event([0, 0, 0, 0], 0, "\u{1b}[2J")
            },
        );
        let questions = Unanswered { unattributed: 0, crowded: 3, late: 0 };
        let losses = Losses { events: 7, unreadable: 0, messages: 3, addresses: 2, questions };
        insta::assert_snapshot!(summary(&engine, losses, Style::Plain), @r"
        egress: policy `command-line`: 2 destinations, 6 refusals
          destination            name             flows  sent                received
          93.184.216.34:443/tcp  api.example.com  1      999 B in 9 packets  1.2 MB in 12 packets
          9.9.9.9:53/udp                          0      71 B in 1 packet    0 B in 0 packets
          refused                     name             reason            count  process
          10.0.0.1:22/tcp                              no_rule           3      ssh
          93.184.216.34:80/tcp        api.example.com  port_not_allowed  1      curl
          listen on 0.0.0.0:8080/tcp                   listen            1      nc
          socket of protocol 255                       socket_kind       1      \u{1b}[2J
          7 events did not fit into the ring buffer; what live flows carried is counted all the same
          3 messages to name servers could not be read as questions
          2 addresses of names were not allowed, because there was no room for more
          3 questions about names or connections for them were dropped, because there were too many at once
        ");
    }

    #[test]
    fn a_run_without_traffic_has_one_line() {
        insta::assert_snapshot!(summary(&engine(), Losses::default(), Style::Plain), @"egress: policy `command-line`: 0 destinations, 0 refusals");
    }

    #[test]
    fn only_a_terminal_gets_colour() {
        let mut engine = engine();
        engine.handle(Input::Event(&event([10, 0, 0, 1], 22, "ssh")), NOW);
        assert!(!summary(&engine, Losses::default(), Style::Plain).contains('\x1b'));
        assert!(summary(&engine, Losses::default(), Style::Colour).contains("\x1b[1;31m  refused"));
    }

    #[test]
    fn rows_beyond_two_screens_are_added_up() {
        let mut engine = engine();
        for last in 0..50 {
            engine.handle(Input::Event(&event([10, 0, 0, last], 22, "ssh")), NOW);
        }
        let text = summary(&engine, Losses::default(), Style::Plain);
        assert_eq!(text.lines().count(), 1 + 1 + ROWS_MAX + 1, "{text}");
        assert!(text.lines().last().unwrap().split_whitespace().eq(["others", "10"]), "{text}");
    }

    #[test]
    fn a_call_and_its_packet_are_one_row() {
        let mut engine = engine();
        for hook in [Hook::Connect, Hook::Egress] {
            let refused = Event { hook: hook as u8, ..event([10, 0, 0, 1], 22, "ssh") };
            engine.handle(Input::Event(&refused), NOW);
        }
        let text = summary(&engine, Losses::default(), Style::Plain);
        assert!(
            text.lines().last().unwrap().split_whitespace().eq(["10.0.0.1:22/tcp", "no_rule", "2", "ssh"]),
            "{text}"
        );
    }

    #[test]
    fn a_refused_question_is_a_row_with_its_name_and_type() {
        let mut engine = engine();
        for kind in [RecordType::A, RecordType::A, RecordType::AAAA] {
            let message = query(1, "Evil.example", kind);
            engine.handle(Input::Question(Ticket(1), &asker(1), Transport::Udp, &message), NOW);
        }
        insta::assert_snapshot!(summary(&engine, Losses::default(), Style::Plain), @r"
        egress: policy `command-line`: 0 destinations, 3 refusals
          refused                   name  reason   count  process
          name Evil.example (A)           no_rule  2      curl
          name Evil.example (AAAA)        no_rule  1      curl
        ");
    }

    #[test]
    fn bytes_are_shown_in_the_greatest_unit_that_fits() {
        for (count, expected) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (1999, "1.9 kB"),
            (999_999, "999.9 kB"),
            (1_000_000, "1.0 MB"),
            (u64::MAX, "18446744.0 TB"),
        ] {
            assert_eq!(bytes(count), expected, "{count}");
        }
    }

    const NOW: Now = Now { boot_nanoseconds: 0, wall: Timestamp::UNIX_EPOCH };

    fn engine() -> Engine {
        let rules = ["api.example.com:443".to_owned()];
        let mut engine = Engine::new(policy::from_arguments(&rules, &[]).unwrap(), Recording::Refusals);
        engine.handle(Input::Tick, NOW);
        let outcome = answered(vec![address("api.example.com", 60, "93.184.216.34")]);
        engine.handle(Input::Answered(&asked("api.example.com", RecordType::A), &outcome), NOW);
        engine
    }

    fn event(remote: [u8; 4], port: u16, command: &str) -> Event {
        let mut event = Event {
            kind: Kind::Refusal as u8,
            hook: Hook::Connect as u8,
            reason: Reason::NoRule.wire(),
            protocol: 6,
            remote: Address::from_v4(remote),
            remote_port: port,
            ..Event::zeroed()
        };
        event.command[..command.len()].copy_from_slice(command.as_bytes());
        event
    }
}
