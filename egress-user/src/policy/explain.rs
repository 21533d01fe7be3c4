//! Why a policy decides as it does, and what would change that.

use std::{fmt, net::IpAddr};

use egress_common::{Decision, Protocol, Reason};

use super::{
    Destination, DomainName, DomainPattern, Flow, Known, Place, Policy, PortItem, Ports, Rule, Tier,
    allows::{counts_by_name, counts_by_network},
    special::{self, SpecialNetwork},
};

/// What a question is about: a name as a person writes it, or an address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// A name, wherever it resolves to.
    Name(DomainName),
    /// An address.
    Address(IpAddr),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "{name}"),
            Self::Address(address) => write!(f, "{address}"),
        }
    }
}

impl Target {
    /// Reads `api.example.com:443`, `10.0.0.1:5432/tcp` or `[2001:db8::1]:53/udp`, or the same without a port.
    pub fn parse(text: &str) -> Result<(Self, Option<PortItem>), String> {
        let Rule { destination, ports, place: _ } =
            Rule::parse(text, Place::default()).map_err(|error| error.to_string())?;
        let target = match destination {
            Destination::Domain(DomainPattern::Exact(name)) => Self::Name(name),
            Destination::Network(network) if network.is_address() => Self::Address(network.first()),
            Destination::Domain(DomainPattern::Below(_)) | Destination::Network(_) => {
                return Err(format!(
                    "`{text}`: expected one destination, such as `api.example.com:443` or `192.0.2.7`"
                ));
            }
        };
        if ports == Ports::every() { Ok((target, None)) } else { Ok((target, ports.items().first().copied())) }
    }

    /// The rule, in its short form, that allows the port there and nothing else.
    pub fn rule(&self, protocol: Protocol, port: u16) -> String {
        let port = match protocol {
            Protocol::Tcp | Protocol::Udp => format!("{port}/{}", protocol.name()),
            Protocol::Icmp => "icmp".to_owned(),
        };
        match self {
            Self::Address(address @ IpAddr::V6(_)) => format!("[{address}]:{port}"),
            Self::Name(_) | Self::Address(IpAddr::V4(_)) => format!("{self}:{port}"),
        }
    }
}

/// A decision and what made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Explanation<'a> {
    /// What happens, and why.
    pub decision: Decision,
    /// The first rule that allows it, or else the first that covers the destination with other ports.
    pub rule: Option<&'a Rule>,
    /// The special-purpose network that has the address.
    pub zone: Option<&'static SpecialNetwork>,
}

impl Policy {
    /// Decides about a port of a destination and says what decided.
    ///
    /// A name is judged as if it resolved to public addresses; for what it resolved to, ask about the address.
    pub fn explain(
        &self,
        target: &Target,
        protocol: Protocol,
        port: u16,
        known: &Known,
        now_seconds: u32,
    ) -> Explanation<'_> {
        let (decision, zone) = match target {
            Target::Name(name) => (self.allows_name(name, protocol, port), None),
            Target::Address(address) => {
                let flow = Flow { protocol, destination: *address, port };
                (self.allows(&flow, known, now_seconds), special::zone(*address))
            }
        };
        let covering = || self.covering(target, known);
        #[expect(clippy::wildcard_enum_match_arm, reason = "no rule has to do with the other reasons")]
        let rule = match decision.reason {
            Reason::Rule => covering().find(|rule| rule.ports.contains(protocol, port)),
            Reason::PortNotAllowed | Reason::Expired => covering().next(),
            _ => None,
        };
        Explanation { decision, rule, zone }
    }

    /// The ports that may be reached there, and the rules that say so.
    pub fn reachable(&self, target: &Target, known: &Known) -> (Ports, Vec<&Rule>) {
        let is_in_tier = match target {
            Target::Name(_) => self.tier != Some(Tier::Internal),
            Target::Address(address) => self.has_in_tier(*address),
        };
        let rules: Vec<&Rule> = self.covering(target, known).filter(|_| is_in_tier).collect();
        let ports = rules.iter().fold(Ports::NONE, |ports, rule| ports.union(&rule.ports));
        (ports.difference(&self.blocked_ports), rules)
    }

    /// Rules that are about the destination, whatever their ports.
    fn covering<'a>(&'a self, target: &Target, known: &Known) -> impl Iterator<Item = &'a Rule> {
        self.allow.iter().filter(move |rule| match target {
            Target::Name(name) => super::allows::is_about(rule, name),
            Target::Address(address) => {
                let address = address.to_canonical();
                counts_by_network(rule, address) || counts_by_name(rule, address, known)
            }
        })
    }

    fn allows_name(&self, name: &DomainName, protocol: Protocol, port: u16) -> Decision {
        if self.blocked_ports.contains(protocol, port) {
            return Decision::deny(Reason::BlockedPort);
        }
        if self.tier == Some(Tier::Internal) {
            return Decision::deny(Reason::Tier);
        }
        let mut rules = self.allow.iter().filter(|rule| super::allows::is_about(rule, name)).peekable();
        let is_named = rules.peek().is_some();
        if rules.any(|rule| rule.ports.contains(protocol, port)) {
            Decision::allow(Reason::Rule)
        } else if is_named {
            Decision::deny(Reason::PortNotAllowed)
        } else {
            Decision::deny(Reason::NoRule)
        }
    }

    /// What a person would do so that the policy allows what it refused for this reason, if anything in it would help.
    pub fn advice(&self, target: &Target, protocol: Protocol, port: u16, reason: Reason) -> Option<String> {
        // Quotes, because a leading bracket is a list in YAML.
        let rule = format!("`- \"{}\"`", target.rule(protocol, port));
        match (reason, self.tier) {
            (Reason::BlockedPort, _) => Some(format!(
                "take `{port}` out of `blocked_ports`, which win over every rule, and add {rule} to `allow`"
            )),
            (Reason::Tier, Some(Tier::Internal)) if matches!(target, Target::Name(_)) => Some(format!(
                "add the network of its addresses to `allow`, or take `tier: internal` out and add {rule}"
            )),
            (Reason::Tier, Some(tier)) => Some(format!("take `tier: {tier}` out, and add {rule} to `allow`")),
            (Reason::NoRule | Reason::PortNotAllowed | Reason::SpecialPurpose, _) => {
                Some(format!("add {rule} to `allow`"))
            }
            (Reason::Expired, _) => Some("resolve the name again".to_owned()),
            (_, _) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::parse;

    const POLICY: &str = "\
version: 1
name: test
allow:
  - api.example.com:443
  - domain: '*.example.com'
    ports: [80/tcp]
  - network: 10.20.0.0/16
    ports: [5432/tcp]
blocked_ports: [22]
";

    fn explain(policy: &Policy, text: &str, protocol: Protocol, port: u16) -> (Reason, Option<u32>, Option<String>) {
        let (target, _) = Target::parse(text).unwrap();
        let explanation = policy.explain(&target, protocol, port, &Known::default(), 0);
        let reason = explanation.decision.reason;
        (reason, explanation.rule.map(|rule| rule.place.line), policy.advice(&target, protocol, port, reason))
    }

    #[test]
    fn the_rule_that_decides_is_named_with_its_line() {
        let policy = parse("test.yaml", POLICY.as_bytes()).unwrap();
        for (text, protocol, port, reason, line, advice) in [
            ("api.example.com", Protocol::Tcp, 443, Reason::Rule, Some(4), None),
            ("api.example.com", Protocol::Tcp, 80, Reason::Rule, Some(5), None),
            (
                "api.example.com",
                Protocol::Tcp,
                81,
                Reason::PortNotAllowed,
                Some(4),
                Some("`- \"api.example.com:81/tcp\"`"),
            ),
            ("api.example.com", Protocol::Tcp, 22, Reason::BlockedPort, None, Some("`blocked_ports`")),
            ("example.com", Protocol::Udp, 80, Reason::NoRule, None, Some("`- \"example.com:80/udp\"`")),
            ("10.20.3.4", Protocol::Tcp, 5432, Reason::Rule, Some(7), None),
            ("10.20.3.4", Protocol::Tcp, 5433, Reason::PortNotAllowed, Some(7), Some("`- \"10.20.3.4:5433/tcp\"`")),
            ("10.21.3.4", Protocol::Icmp, 0, Reason::SpecialPurpose, None, Some("`- \"10.21.3.4:icmp\"`")),
            ("[2001:4860::1]", Protocol::Tcp, 1, Reason::NoRule, None, Some("`- \"[2001:4860::1]:1/tcp\"`")),
        ] {
            let (found, found_line, found_advice) = explain(&policy, text, protocol, port);
            assert_eq!((found, found_line), (reason, line), "{text} {protocol:?} {port}");
            let wanted =
                advice.is_none_or(|advice| found_advice.as_deref().is_some_and(|found| found.contains(advice)));
            assert!(wanted, "{text} {protocol:?} {port}: {found_advice:?}");
        }
    }

    #[test]
    fn advice_that_is_followed_helps() {
        let policy = parse("test.yaml", POLICY.as_bytes()).unwrap();
        for text in ["example.com", "198.51.100.9", "2001:4860::1", "10.20.3.4", "127.0.0.1"] {
            let (target, _) = Target::parse(text).unwrap();
            let advice = policy.advice(&target, Protocol::Tcp, 8443, Reason::NoRule).unwrap();
            let rule = advice.split('`').nth(1).unwrap();
            let more = POLICY.replace("blocked_ports", &format!("  {rule}\nblocked_ports"));
            let more = parse("more.yaml", more.as_bytes()).unwrap();
            let decided = |policy: &Policy| policy.explain(&target, Protocol::Tcp, 8443, &Known::default(), 0).decision;
            assert_eq!(decided(&more), Decision::allow(Reason::Rule), "{text}");
            assert_ne!(decided(&policy), Decision::allow(Reason::Rule), "{text}");
        }
    }
}
