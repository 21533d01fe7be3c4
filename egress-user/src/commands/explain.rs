//! `egress explain`: what a policy says about a destination, and which rule says it.

use std::path::PathBuf;

use anyhow::anyhow;
use egress_common::{Protocol, Reason, Verdict};

use super::Failure;
use crate::policy::{Explanation, Known, Mode, Place, Policy, PortItem, PortRange, Target};

/// Say whether a destination is allowed, by which rule, and what to add if it is not.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Policy file.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// A name or an address, with a port or without one: `api.example.com:443`, `10.0.0.1:5432/tcp`, `[2001:db8::1]:53/udp`.
    #[arg(value_name = "DESTINATION")]
    destination: String,
}

/// Runs the command and returns its exit code.
pub fn run(args: Args) -> Result<u8, Failure> {
    let Args { policy, destination } = args;
    let Some(path) = policy else {
        let error = anyhow!("`--policy` is missing; expected `egress explain --policy FILE {destination}`");
        return Err(Failure::new(super::USAGE, error));
    };
    let (target, port) = Target::parse(&destination).map_err(|message| Failure::new(super::USAGE, anyhow!(message)))?;
    let policy = super::policy::load(&path)?;
    let answer = Answer { policy: &policy, file: path.display().to_string(), target };
    super::policy::print(&match port {
        Some(item) => answer.about(item),
        None => answer.about_every_port(),
    })
}

struct Answer<'a> {
    policy: &'a Policy,
    file: String,
    target: Target,
}

impl Answer<'_> {
    /// The answer about one port, once for each protocol that was asked about.
    fn about(&self, item: PortItem) -> String {
        let asked: &[(Protocol, PortRange)] = match item {
            PortItem::Both(range) => &[(Protocol::Tcp, range), (Protocol::Udp, range)],
            PortItem::Tcp(range) => &[(Protocol::Tcp, range)],
            PortItem::Udp(range) => &[(Protocol::Udp, range)],
            PortItem::Icmp => return self.line(Protocol::Icmp, 0),
        };
        asked
            .iter()
            .map(|(protocol, range)| match range.first() == range.last() {
                true => self.line(*protocol, range.first()),
                false => self.about_range(*protocol, *range),
            })
            .collect()
    }

    fn about_range(&self, protocol: Protocol, range: PortRange) -> String {
        let (reachable, _) = self.policy.reachable(&self.target, &Known::default());
        let mut text = String::new();
        for part in reachable.ranges(protocol) {
            if let Some(part) = PortRange::new(part.first().max(range.first()), part.last().min(range.last())) {
                text += &format!("{}:{part}/{}: allowed\n", self.target, protocol.name());
            }
        }
        match text.is_empty() {
            true => format!("{}:{range}/{}: refused\n", self.target, protocol.name()),
            false => text,
        }
    }

    fn line(&self, protocol: Protocol, port: u16) -> String {
        let known = Known::default();
        let Explanation { decision, rule, zone } = self.policy.explain(&self.target, protocol, port, &known, 0);
        let asked = self.target.rule(protocol, port);
        let rule = rule.map(|rule| format!("`{rule}` ({})", self.at(rule.place)));
        let mut text = String::new();
        match decision.verdict {
            Verdict::Allow => text += &format!("{asked}: allowed by {}\n", rule.unwrap_or_default()),
            Verdict::Deny => {
                let verdict = match self.policy.mode {
                    Mode::Enforce => "refused",
                    Mode::Audit => "not allowed, and let through because of `mode: audit`",
                };
                let zone = zone.map(|zone| format!("`{}` ({})", zone.network(), zone.name));
                text += &format!("{asked}: {verdict}: {}\n", why(decision.reason, rule, zone));
                if let Some(advice) = self.policy.advice(&self.target, protocol, port, decision.reason) {
                    text += &format!("  to allow it: {advice}\n");
                }
            }
        }
        text
    }

    fn about_every_port(&self) -> String {
        let (ports, rules) = self.policy.reachable(&self.target, &Known::default());
        if ports.is_empty() {
            return format!("{}: refused on every port\n{}", self.target, self.line(Protocol::Tcp, 443));
        }
        let mut text = format!("{}: allowed on {ports}\n", self.target);
        for rule in rules {
            text += &format!("  by `{rule}` ({})\n", self.at(rule.place));
        }
        text
    }

    fn at(&self, place: Place) -> String {
        format!("{}:{place}", self.file)
    }
}

fn why(reason: Reason, rule: Option<String>, zone: Option<String>) -> String {
    let (rule, zone) = (rule.unwrap_or_default(), zone.unwrap_or_default());
    #[expect(clippy::wildcard_enum_match_arm, reason = "the other reasons are about packets, not about policies")]
    match reason {
        Reason::NoRule => "no rule covers it".to_owned(),
        Reason::BlockedPort => "the port is in `blocked_ports`".to_owned(),
        Reason::PortNotAllowed => format!("{rule} covers it, but not this port"),
        Reason::SpecialPurpose => format!("it is in {zone}, and no rule names a network inside it"),
        Reason::Tier if zone.is_empty() => "it is outside the policy's `tier`".to_owned(),
        Reason::Tier => format!("it is in {zone}, outside the policy's `tier`"),
        _ => reason.name().to_owned(),
    }
}
