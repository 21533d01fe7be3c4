//! What a policy says to questions about names, and to the addresses in their answers.

use std::net::IpAddr;

use egress_common::Reason;

use super::{DomainName, Policy, special};

/// How a rule is about a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Admitted {
    /// A rule has the name itself.
    Exact,
    /// The name is below a wildcard, and no rule has it.
    Below,
}

impl Policy {
    /// Whether the name may be asked for, whatever addresses it has.
    pub fn admits(&self, name: &DomainName) -> Option<Admitted> {
        self.allow.admits(name)
    }

    /// Whether the answer for an allowed name may hold the address, or why not. A name alone never leads into a
    /// special-purpose network (DNS rebinding): a rule has to name a network inside it that has the address.
    pub fn may_hand_out(&self, address: IpAddr) -> Result<(), Reason> {
        if !self.has_in_tier(address) {
            Err(Reason::Tier)
        } else if special::zone(address).is_some() && !self.allow.open(address) {
            Err(Reason::SpecialPurpose)
        } else {
            Ok(())
        }
    }

    /// Whether a rule's network opens the address, on any port, so that its name may be asked for.
    pub fn reaches(&self, address: IpAddr) -> bool {
        self.has_in_tier(address) && self.allow.open(address)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        policy::{Destination, DomainPattern, Rule, Rules, allows::counts_by_network, parse},
        testing,
    };

    fn policy(rest: &str) -> Policy {
        parse("test.yaml", format!("version: 1\nname: test\n{rest}").as_bytes()).unwrap()
    }

    fn name(text: &str) -> DomainName {
        DomainName::parse(text).unwrap()
    }

    #[test]
    fn a_wildcard_admits_names_below_it_and_a_name_itself_wins() {
        let policy =
            policy("allow: ['*.example.com', api.example.com:443, exact.example, '*.a.b.example', 10.0.0.0/8]");
        for (text, expected) in [
            ("www.example.com", Some(Admitted::Below)),
            ("a.b.example.com", Some(Admitted::Below)),
            ("api.example.com", Some(Admitted::Exact)),
            ("v1.api.example.com", Some(Admitted::Below)),
            ("exact.example", Some(Admitted::Exact)),
            ("example.com", None),
            ("badexample.com", None),
            ("example.com.evil.org", None),
            ("www.exact.example", None),
            ("b.example", None),
            ("a.b.example", None),
            ("x.a.b.example", Some(Admitted::Below)),
            ("com", None),
        ] {
            assert_eq!(policy.admits(&name(text)), expected, "{text}");
        }
    }

    #[test]
    fn answers_lead_into_special_networks_only_where_a_rule_inside_them_does() {
        let public = "allow: [example.com, 0.0.0.0/0, '::/0']";
        let private = "allow: [example.com, 10.20.0.0/16:443, 169.254.0.0/16, '64:ff9b::/96', '2002::/16']";
        let external = "tier: external\nallow: [example.com, 0.0.0.0/0]";
        let internal = "tier: internal\nallow: [example.com, 10.0.0.0/8]";
        let (special, tier) = (Err(Reason::SpecialPurpose), Err(Reason::Tier));
        for (rest, address, expected) in [
            (public, "8.8.8.8", Ok(())),
            (public, "2606:4700::1111", Ok(())),
            (public, "10.20.0.1", special),
            (public, "::ffff:10.20.0.1", special),
            (public, "127.0.0.1", special),
            (public, "169.254.169.254", special),
            (public, "::1", special),
            (public, "::", special),
            (public, "0.0.0.0", special),
            (public, "::10.20.0.1", special),
            (public, "::ffff:0:10.20.0.1", special),
            (public, "64:ff9b::10.20.0.1", special),
            (public, "64:ff9b::8.8.8.8", special),
            (public, "64:ff9b:1::10.20.0.1", special),
            (public, "2002:a14:1::1", special),
            (public, "2001:0:4136:e378:8000:63bf:f5eb:fffe", special),
            (public, "fd00:ec2::254", special),
            (public, "ff02::1", special),
            (private, "10.20.0.1", Ok(())),
            (private, "::ffff:10.20.0.1", Ok(())),
            (private, "10.21.0.1", special),
            (private, "169.254.1.1", Ok(())),
            (private, "169.254.169.254", special),
            (private, "64:ff9b::8.8.8.8", Ok(())),
            (private, "64:ff9b::10.20.0.1", special),
            (private, "64:ff9b::169.254.169.254", special),
            (private, "2002:808:808::1", Ok(())),
            (private, "8.8.8.8", Ok(())),
            (external, "8.8.8.8", Ok(())),
            (external, "10.20.0.1", tier),
            (internal, "8.8.8.8", tier),
            (internal, "10.20.0.1", Ok(())),
            (internal, "192.168.0.1", special),
        ] {
            assert_eq!(policy(rest).may_hand_out(address.parse().unwrap()), expected, "{rest}: {address}");
        }
    }

    #[test]
    fn an_address_is_reached_by_a_rule_for_its_network() {
        let policy = policy("allow: [example.com, 9.9.9.0/24:443, 8.0.0.0/6, '2001:4860::/32', 192.168.7.7]");
        for (address, expected) in [
            ("9.9.9.9", true),
            ("::ffff:9.9.9.9", true),
            ("9.9.10.9", true),
            ("12.0.0.0", false),
            ("10.0.0.1", false),
            ("192.168.7.7", true),
            ("192.168.7.8", false),
            ("2001:4860::1", true),
            ("2001:4861::1", false),
        ] {
            assert_eq!(policy.reaches(address.parse().unwrap()), expected, "{address}");
        }
    }

    proptest! {
        #[test]
        fn what_is_found_is_what_a_look_at_each_rule_finds(
            policy in testing::policies(),
            labels in prop::collection::vec("[a-c]", 0..4),
            parent in prop::sample::select(vec!["example.com", "badexample.com", "api.example.com", "example.org", "com"]),
            address in testing::addresses(),
        ) {
            let labels: Vec<&str> = labels.iter().map(String::as_str).chain([parent]).collect();
            let name = name(&labels.join("."));
            let mut rules: Vec<Rule> = policy.allow.to_vec();
            rules.extend(rules.clone().into_iter().filter_map(|rule| match rule.destination {
                Destination::Domain(DomainPattern::Exact(name)) => {
                    Some(Rule { destination: Destination::Domain(DomainPattern::Below(name)), ..rule })
                }
                Destination::Domain(DomainPattern::Below(_)) | Destination::Network(_) => None,
            }));
            let policy = Policy { allow: Rules::from(rules), ..policy };
            let matching: Vec<&DomainPattern> = policy.allow.iter().filter_map(|rule| match &rule.destination {
                Destination::Domain(pattern) if pattern.matches(&name) => Some(pattern),
                Destination::Domain(_) | Destination::Network(_) => None,
            }).collect();
            let is_exact = matching.iter().any(|pattern| matches!(pattern, DomainPattern::Exact(_)));
            let expected = (!matching.is_empty()).then_some(if is_exact { Admitted::Exact } else { Admitted::Below });
            prop_assert_eq!(policy.admits(&name), expected, "{}", name);

            let is_open = policy.allow.iter().any(|rule| counts_by_network(rule, address.to_canonical()));
            prop_assert_eq!(policy.reaches(address), is_open && policy.has_in_tier(address), "{}", address);
            let is_closed = special::zone(address).is_some() && !is_open;
            prop_assert_eq!(policy.may_hand_out(address).is_ok(), policy.has_in_tier(address) && !is_closed);
        }
    }
}
