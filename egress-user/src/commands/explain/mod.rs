//! `egress explain`: what a policy says about a destination, and which rule says it.

use std::path::PathBuf;

use anyhow::anyhow;
use egress_common::{Protocol, Reason, Verdict};

use super::{Failure, name_servers};
use crate::policy::{Destination, Explanation, Known, Mode, NameServer, Place, Policy, PortItem, PortRange, Target};

mod resolution;

/// Say whether a destination is allowed, by which rule, what it resolves to, and what to add if it is not allowed.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Policy file.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Do not ask name servers what the name resolves to.
    #[arg(long)]
    no_resolve: bool,
    /// Ask this name server instead of those of the policy and in /etc/resolv.conf; may be repeated.
    #[arg(long, value_name = "SERVER", env = "EGRESS_RESOLVER", value_delimiter = ',', value_parser = NameServer::parse)]
    resolver: Vec<NameServer>,
    /// A name or an address, with a port or without one: `api.example.com:443`, `10.0.0.1:5432/tcp`, `[2001:db8::1]:53/udp`.
    #[arg(value_name = "DESTINATION")]
    destination: String,
}

/// Runs the command and returns its exit code.
pub fn run(args: Args) -> Result<u8, Failure> {
    let Args { policy, no_resolve, resolver, destination } = args;
    let Some(path) = policy else {
        let error = anyhow!("`--policy` is missing; expected `egress explain --policy FILE {destination}`");
        return Err(Failure::new(super::USAGE, error));
    };
    let (target, port) = Target::parse(&destination).map_err(|message| Failure::new(super::USAGE, anyhow!(message)))?;
    let policy = super::policy::load(&path)?;
    let answer = Answer { policy: &policy, file: path.display().to_string(), target };
    let mut lines = match port {
        Some(item) => answer.about(item),
        None => answer.about_every_port(),
    };
    if let Target::Name(name) = &answer.target
        && !no_resolve
    {
        let resolution = resolution::lines(&policy, name, &name_servers::choose(&resolver, &policy));
        lines.extend(resolution.unwrap_or_else(|error| vec![format!("{name} cannot be resolved: {error:#}")]));
    }
    super::policy::print(&(lines.join("\n") + "\n"))
}

struct Answer<'a> {
    policy: &'a Policy,
    file: String,
    target: Target,
}

impl Answer<'_> {
    /// The answer about one item, once for each protocol that was asked about.
    fn about(&self, item: PortItem) -> Vec<String> {
        let (range, protocols): (PortRange, &[Protocol]) = match item {
            PortItem::Both(range) => (range, &[Protocol::Tcp, Protocol::Udp]),
            PortItem::Tcp(range) => (range, &[Protocol::Tcp]),
            PortItem::Udp(range) => (range, &[Protocol::Udp]),
            PortItem::Icmp => return self.about_port(Protocol::Icmp, 0),
        };
        let is_port = range.first() == range.last();
        let about = |protocol: &Protocol| {
            if is_port { self.about_port(*protocol, range.first()) } else { self.about_range(*protocol, range) }
        };
        protocols.iter().flat_map(about).collect()
    }

    fn about_range(&self, protocol: Protocol, range: PortRange) -> Vec<String> {
        let (reachable, _) = self.policy.reachable(&self.target, &Known::default());
        let within = |part: &PortRange| PortRange::new(part.first().max(range.first()), part.last().min(range.last()));
        let parts: Vec<String> =
            reachable.ranges(protocol).iter().filter_map(within).map(|part| part.to_string()).collect();
        let asked = format!("{}:{range}/{}", self.target, protocol.name());
        if parts.is_empty() {
            vec![format!("{asked}: refused on every port")]
        } else {
            vec![format!("{asked}: allowed on {}", parts.join(", "))]
        }
    }

    fn about_port(&self, protocol: Protocol, port: u16) -> Vec<String> {
        let known = Known::default();
        let Explanation { decision, rule, zone } = self.policy.explain(&self.target, protocol, port, &known, 0);
        let asked = self.target.rule(protocol, port);
        let rule = rule.map(|rule| format!("`{rule}` ({})", self.at(rule.place)));
        let verdict = match (decision.verdict, self.policy.mode) {
            (Verdict::Allow, Mode::Enforce | Mode::Audit) => {
                return vec![format!("{asked}: allowed by {}", rule.unwrap_or_default())];
            }
            (Verdict::Deny, Mode::Enforce) => "refused",
            (Verdict::Deny, Mode::Audit) => "not allowed, and let through because of `mode: audit`",
        };
        let unless = if zone.is_none() { self.unless(decision.reason) } else { "" };
        let is_name = matches!(self.target, Target::Name(_));
        let zone = zone.map(|zone| format!("`{}` ({})", zone.network(), zone.name));
        let mut lines = vec![format!("{asked}: {verdict}: {}{}", why(decision.reason, is_name, rule, zone), unless)];
        let advice = self.policy.advice(&self.target, protocol, port, decision.reason);
        lines.extend(advice.map(|advice| format!("  to allow it: {advice}")));
        lines
    }

    /// What could be otherwise while the policy is in force: what names resolve to is not known here.
    fn unless(&self, reason: Reason) -> &'static str {
        let has_domains = self.policy.allow.iter().any(|rule| matches!(rule.destination, Destination::Domain(_)));
        match (&self.target, reason) {
            (Target::Address(_), Reason::NoRule | Reason::PortNotAllowed) if has_domains => {
                ", unless an allowed domain resolves to it"
            }
            (Target::Address(_) | Target::Name(_), _) => "",
        }
    }

    fn about_every_port(&self) -> Vec<String> {
        let (ports, rules) = self.policy.reachable(&self.target, &Known::default());
        let first = if ports.is_empty() {
            format!("{}: refused on every port", self.target)
        } else {
            format!("{}: allowed on {ports}", self.target)
        };
        let by = rules.iter().map(|rule| format!("  by `{rule}` ({})", self.at(rule.place)));
        let mut lines: Vec<String> = [first].into_iter().chain(by).collect();
        if ports.is_empty() {
            lines.extend(self.about_port(Protocol::Tcp, 443));
        }
        lines
    }

    fn at(&self, place: Place) -> String {
        format!("{}:{place}", self.file)
    }
}

fn why(reason: Reason, is_name: bool, rule: Option<String>, zone: Option<String>) -> String {
    let (rule, zone) = (rule.unwrap_or_default(), zone.unwrap_or_default());
    #[expect(clippy::wildcard_enum_match_arm, reason = "the other reasons are about packets, not about policies")]
    match reason {
        Reason::NoRule => "no rule covers it".to_owned(),
        Reason::BlockedPort => "the port is in `blocked_ports`".to_owned(),
        Reason::PortNotAllowed => format!("{rule} covers it, but not this port"),
        Reason::SpecialPurpose => format!("it is in {zone}, and no rule names a network inside it"),
        Reason::Tier if is_name => {
            "public addresses are outside the policy's `tier`, and a name opens no others".to_owned()
        }
        Reason::Tier if zone.is_empty() => "it is outside the policy's `tier`".to_owned(),
        Reason::Tier => format!("it is in {zone}, outside the policy's `tier`"),
        _ => reason.name().to_owned(),
    }
}
