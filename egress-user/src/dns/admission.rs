//! Which questions are asked of name servers, and what those hear who may not ask.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use egress_common::{Protocol, Reason};

use super::{budget::OverBudget, message::Question, release::Withheld};
use crate::policy::{Admitted, DomainName, Policy, RecordType, Target};

/// Where the names of addresses are: RFC 1035 section 3.5 and RFC 3596 section 2.5.
const REVERSE_V4: &str = "in-addr.arpa";
const REVERSE_V6: &str = "ip6.arpa";

/// What becomes of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It may be asked.
    Forward {
        /// Only a wildcard admits the name, so that it counts against the budget.
        below: bool,
    },
    /// It is about the name of this address (PTR).
    NameOf(IpAddr),
    /// It is refused.
    Refuse(Refusal),
}

/// Why a question is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// Its name has bytes that no policy can name.
    NotAName,
    /// It asks for the name of an address, and has none.
    NotAnAddress,
    /// It asks for the name of an address that the workload may not reach.
    UnknownAddress(IpAddr),
    /// No rule is about the name.
    NoRule,
    /// The policy does not list the type.
    Type,
    /// A label is longer than names below wildcards may have.
    LongLabel,
    /// The workload has asked for too much below wildcards.
    OverBudget(OverBudget),
    /// The name's addresses, of which this is one, may all not be handed out.
    Withheld(Withheld),
}

/// Decides about a question, whatever the policy's mode.
pub fn admit(policy: &Policy, question: &Question) -> Admission {
    let Some(name) = question.name() else { return Admission::Refuse(Refusal::NotAName) };
    if question.kind() == RecordType::PTR && is_reverse(name) {
        return address(name).map_or(Admission::Refuse(Refusal::NotAnAddress), Admission::NameOf);
    }
    let Some(admitted) = policy.admits(name) else { return Admission::Refuse(Refusal::NoRule) };
    if question.kind().is_meta() || !policy.dns.types.contains(&question.kind()) {
        return Admission::Refuse(Refusal::Type);
    }
    let is_long = |label: &str| label.len() > usize::from(policy.dns.budget.label_bytes);
    match admitted {
        Admitted::Exact => Admission::Forward { below: false },
        Admitted::Below if name.as_str().split('.').any(is_long) => Admission::Refuse(Refusal::LongLabel),
        Admitted::Below => Admission::Forward { below: true },
    }
}

impl Refusal {
    /// One word for records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotAName => "not_a_name",
            Self::NotAnAddress => "not_an_address",
            Self::UnknownAddress(_) => "unknown_address",
            Self::NoRule => "no_rule",
            Self::Type => "type",
            Self::LongLabel => "long_label",
            Self::OverBudget(OverBudget::Questions) => "budget_questions",
            Self::OverBudget(OverBudget::Names) => "budget_names",
            Self::OverBudget(OverBudget::Random) => "budget_random",
            Self::Withheld(Withheld { reason, .. }) => reason.name(),
        }
    }

    /// The sentence that the client and the records get, with what would have to change.
    pub fn message(self, question: &Question, policy: &Policy) -> String {
        let (asked, kind) = (question.spelled(), question.kind());
        let Policy { name: policy_name, dns, .. } = policy;
        match self {
            Self::NotAName => {
                format!("policy `{policy_name}` can have no rule for a name with such characters: `{asked}`")
            }
            Self::NotAnAddress => format!("policy `{policy_name}` answers PTR for whole addresses, not for `{asked}`"),
            Self::UnknownAddress(address) => format!(
                "policy `{policy_name}` does not open {address}, so its name is not told{}",
                advice(policy, address, Reason::NoRule)
            ),
            Self::NoRule => {
                let name = question.name().map_or(asked, DomainName::as_str);
                format!(
                    "policy `{policy_name}` has no rule for `{name}`; to allow it add `- \"{name}:443\"` to `allow`"
                )
            }
            Self::Type if kind.is_meta() => format!("policy `{policy_name}` refuses type {kind}, which no name has"),
            Self::Type => {
                format!(
                    "policy `{policy_name}` refuses type {kind}; to allow it for allowed names add it to `dns.types`"
                )
            }
            Self::LongLabel => format!(
                "policy `{policy_name}` allows labels of {} bytes below wildcards; to allow longer ones raise \
                 `dns.budget.label_bytes`, or add the whole name to `allow`",
                dns.budget.label_bytes
            ),
            Self::OverBudget(over) => {
                let (limit, what, key) = match over {
                    OverBudget::Questions => {
                        (dns.budget.questions_per_minute, "questions a minute", "questions_per_minute")
                    }
                    OverBudget::Names => (dns.budget.names_per_hour, "names an hour", "names_per_hour"),
                    OverBudget::Random => {
                        (dns.budget.random_percent.into(), "% names that look random", "random_percent")
                    }
                };
                format!(
                    "policy `{policy_name}` allows {limit} {what} below wildcards; to allow more raise `dns.budget.{key}`, or \
                     add the whole name to `allow`"
                )
            }
            Self::Withheld(withheld) => format!(
                "policy `{policy_name}` does not open {withheld}, where `{asked}` leads{}",
                advice(policy, withheld.address, withheld.reason)
            ),
        }
    }
}

fn advice(policy: &Policy, address: IpAddr, reason: Reason) -> String {
    let advice = policy.advice(&Target::Address(address), Protocol::Tcp, 443, reason);
    advice.map_or_else(String::new, |advice| format!("; to allow it {advice}"))
}

fn is_reverse(name: &DomainName) -> bool {
    [REVERSE_V4, REVERSE_V6].into_iter().any(|zone| below(name, zone).is_some() || name.as_str() == zone)
}

/// What stands before a zone.
fn below<'a>(name: &'a DomainName, zone: &str) -> Option<&'a str> {
    name.as_str().strip_suffix(zone)?.strip_suffix('.')
}

/// The address whose name a reverse name stands for, not IPv4-mapped.
fn address(name: &DomainName) -> Option<IpAddr> {
    if let Some(reversed) = below(name, REVERSE_V4) {
        let mut labels: Vec<&str> = reversed.split('.').collect();
        labels.reverse();
        // The standard library takes neither leading zeros nor fewer than four numbers.
        return labels.join(".").parse::<Ipv4Addr>().ok().map(IpAddr::V4);
    }
    let mut bits: u128 = 0;
    let mut digits = 0;
    for label in below(name, REVERSE_V6)?.split('.').rev() {
        if label.len() != 1 {
            return None;
        }
        bits = bits.wrapping_shl(4) | u128::from_str_radix(label, 16).ok()?;
        digits += 1;
    }
    (digits == 32).then(|| IpAddr::V6(Ipv6Addr::from(bits)).to_canonical())
}

#[cfg(test)]
mod tests {
    use hickory_resolver::proto::{
        op::{Message, MessageType, OpCode, Query},
        rr::{Name, RecordType as ProtoType},
    };

    use super::*;
    use crate::{
        dns::message,
        policy::{self, PolicyName},
    };

    const RULES: &str = "\
version: 1
name: agents
allow: [api.example.com, '*.cdn.example', 10.20.0.0/16]
dns: {types: [A, AAAA, TXT], budget: {label_bytes: 20}}
";

    #[test]
    fn a_question_is_admitted_by_its_name_and_its_type() {
        const FORWARD: &str = "forward";
        const BELOW: &str = "below";
        for (name, kind, expected) in [
            ("api.example.com.", 1, FORWARD),
            ("API.example.COM.", 28, FORWARD),
            ("api.example.com.", 16, FORWARD),
            ("api.example.com.", 65, "type"),
            ("api.example.com.", 12, "type"),
            ("api.example.com.", 255, "type"),
            ("api.example.com.", 252, "type"),
            ("api.example.com.", 0, "type"),
            ("a.b.cdn.example.", 1, BELOW),
            ("aaaaaaaaaaaaaaaaaaaa.cdn.example.", 1, BELOW),
            ("aaaaaaaaaaaaaaaaaaaaa.cdn.example.", 1, "long_label"),
            ("x.aaaaaaaaaaaaaaaaaaaaa.cdn.example.", 1, "long_label"),
            ("cdn.example.", 1, "no_rule"),
            ("xcdn.example.", 1, "no_rule"),
            ("evil.example.", 255, "no_rule"),
            ("localhost.", 1, "no_rule"),
            ("4.3.2.1.in-addr.arpa.", 1, "no_rule"),
            (".", 1, "not_a_name"),
            ("*.cdn.example.", 1, "not_a_name"),
            ("a\\.cdn.example.", 1, "not_a_name"),
        ] {
            let found = match admitted(name, kind) {
                Admission::Forward { below: false } => FORWARD.to_owned(),
                Admission::Forward { below: true } => BELOW.to_owned(),
                Admission::NameOf(address) => address.to_string(),
                Admission::Refuse(refusal) => refusal.name().to_owned(),
            };
            assert_eq!(found, expected, "{name} {kind}");
        }
    }

    #[test]
    fn a_question_for_the_name_of_an_address_is_about_the_address() {
        let nibbles = |address: &str| {
            let digits = format!("{:032x}", u128::from(address.parse::<Ipv6Addr>().unwrap()));
            let reversed: Vec<String> = digits.chars().rev().map(String::from).collect();
            format!("{}.IP6.arpa.", reversed.join("."))
        };
        for (name, expected) in [
            ("4.3.20.10.in-addr.arpa.".to_owned(), Some("10.20.3.4")),
            ("4.3.20.10.IN-ADDR.ARPA.".to_owned(), Some("10.20.3.4")),
            (nibbles("2001:db8::1"), Some("2001:db8::1")),
            (nibbles("::ffff:10.20.3.4"), Some("10.20.3.4")),
            ("3.20.10.in-addr.arpa.".to_owned(), None),
            ("5.4.3.20.10.in-addr.arpa.".to_owned(), None),
            ("04.3.20.10.in-addr.arpa.".to_owned(), None),
            ("256.3.20.10.in-addr.arpa.".to_owned(), None),
            ("data.3.20.10.in-addr.arpa.".to_owned(), None),
            ("in-addr.arpa.".to_owned(), None),
            ("ip6.arpa.".to_owned(), None),
            ("1.0.0.2.ip6.arpa.".to_owned(), None),
            (format!("1.{}", nibbles("2001:db8::1")), None),
            (nibbles("2001:db8::1").replacen('1', "g", 1), None),
        ] {
            let expected = expected.map_or(Admission::Refuse(Refusal::NotAnAddress), |address| {
                Admission::NameOf(address.parse().unwrap())
            });
            assert_eq!(admitted(&name, 12), expected, "{name}");
        }
    }

    #[test]
    fn refusals_name_the_policy_and_what_would_help() {
        let policy = policy::parse("test.yaml", RULES.as_bytes()).unwrap();
        let question = question("evil.example.", 255);
        let withheld = Withheld { address: "10.0.0.1".parse().unwrap(), reason: Reason::SpecialPurpose };
        let refusals = [
            Refusal::NotAName,
            Refusal::NotAnAddress,
            Refusal::UnknownAddress("192.0.2.1".parse().unwrap()),
            Refusal::NoRule,
            Refusal::Type,
            Refusal::LongLabel,
            Refusal::OverBudget(OverBudget::Questions),
            Refusal::OverBudget(OverBudget::Names),
            Refusal::OverBudget(OverBudget::Random),
            Refusal::Withheld(withheld),
        ];
        let messages = refusals.map(|refusal| format!("{}: {}", refusal.name(), refusal.message(&question, &policy)));
        insta::assert_snapshot!(messages.join("\n"));
    }

    #[test]
    fn advice_that_is_followed_admits() {
        let policy = policy::parse("test.yaml", RULES.as_bytes()).unwrap();
        let question = question("evil.example.", 1);
        let message = Refusal::NoRule.message(&question, &policy);
        let rule = message.split('`').find_map(|part| part.strip_prefix("- ")).unwrap();
        let more = RULES.replace("10.20.0.0/16", &format!("10.20.0.0/16, {rule}"));
        let more = policy::parse("more.yaml", more.as_bytes()).unwrap();
        assert_eq!(more.name, PolicyName::parse("agents").unwrap());
        assert_eq!(admit(&more, &question), Admission::Forward { below: false });
    }

    fn admitted(name: &str, kind: u16) -> Admission {
        admit(&policy::parse("test.yaml", RULES.as_bytes()).unwrap(), &question(name, kind))
    }

    fn question(name: &str, kind: u16) -> Question {
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), ProtoType::from(kind)));
        message::read(&message.to_vec().unwrap()).unwrap()
    }
}
