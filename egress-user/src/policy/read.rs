//! [`Document`] → [`Policy`]: every value becomes a type that cannot be wrong, or a problem.

use std::fmt::Display;

use super::{
    Destination, DomainPattern, Mode, Network, Policy, PolicyName, PortItem, Ports, Problem, Problems, Refuse, Rule,
    Rules, Tier, Workload,
    document::{Document, RuleForm, RuleKeys, RuleNode, Text, WorkloadKeys},
    problem::{Place, Shown},
    special,
    workload::CgroupPattern,
    yaml,
};

/// Rules of a policy: twice the 100,000 networks of a large blocklist's inverse. More are refused, with the number.
pub const RULES_MAX: usize = 200_000;

/// Reads a policy file. The name of the file is only for the report.
pub fn parse(file_name: &str, bytes: &[u8]) -> Result<Policy, Problems> {
    let document = yaml::read(bytes).map_err(|Problem { place, message }| Problems::one(file_name, place, message))?;
    let mut reader = Reader { problems: Vec::new(), tier: None };
    let policy = reader.policy(document);
    match (policy, Problems::new(file_name, reader.problems)) {
        (_, Some(problems)) => Err(problems),
        (Some(policy), None) => Ok(policy),
        (None, None) => Err(Problems::one(file_name, Place::START, "the policy could not be read".to_owned())),
    }
}

/// Makes a policy of the arguments of a command line: rules in their short form, and ports.
pub fn from_arguments(allow: &[String], blocked_ports: &[String]) -> Result<Policy, Problems> {
    let nowhere = Place::default();
    let text = |text: &String| Text { text: text.clone(), place: nowhere };
    let document = Document {
        version: Some(Text { text: "1".to_owned(), place: nowhere }),
        name: Some(Text { text: "command-line".to_owned(), place: nowhere }),
        description: None,
        workload: None,
        mode: None,
        tier: None,
        allow: allow.iter().map(|rule| RuleNode { form: RuleForm::Short(rule.clone()), place: nowhere }).collect(),
        blocked_ports: blocked_ports.iter().map(text).collect(),
        refuse: None,
        listen: None,
        dns: None,
    };
    let source = "command line";
    let mut reader = Reader { problems: Vec::new(), tier: None };
    let policy = reader.policy(document);
    match (policy, Problems::new(source, reader.problems)) {
        (_, Some(problems)) => Err(problems),
        (Some(policy), None) => Ok(policy),
        (None, None) => Err(Problems::one(source, nowhere, "the policy could not be read".to_owned())),
    }
}

/// Collects problems while it reads.
pub(super) struct Reader {
    problems: Vec<Problem>,
    tier: Option<Tier>,
}

impl Reader {
    fn policy(&mut self, document: Document) -> Option<Policy> {
        let Document { version, name, description, workload, mode, tier, allow, blocked_ports, refuse, listen, dns } =
            document;
        self.version(version);
        let name = match name {
            Some(name) => self.value(&name, PolicyName::parse),
            None => self.missing(Place::START, "name", "name: ci-build"),
        };
        let workload = workload.map(|keys| {
            let place = super::document::place(&keys.referenced);
            self.workload(place, keys.value)
        });
        let mode = self.choice(mode, Mode::ALL, Mode::Enforce);
        let tier = tier.map(|tier| self.choice(Some(tier), Tier::ALL, Tier::External));
        self.tier = tier;
        if allow.len() > RULES_MAX {
            let place = allow.get(RULES_MAX).map_or(Place::START, |rule| rule.place);
            self.problem(place, format!("the policy has {} rules; expected at most {RULES_MAX}", allow.len()));
            return None;
        }
        let allow: Rules = allow.into_iter().filter_map(|rule| self.rule(rule)).collect();
        let blocked_ports = self.blocked_ports(&blocked_ports);
        let refuse = self.choice(refuse, Refuse::ALL, Refuse::Eperm);
        let listen = self.choice(listen, &[("true", true), ("false", false)], false);
        let dns = dns.map_or_else(super::Dns::default, |keys| self.dns(keys));
        let workload = match workload {
            None => None,
            Some(None) => return None,
            Some(Some(workload)) => Some(workload),
        };
        let description = description.map(|description| description.text);
        Some(Policy { name: name?, description, workload, mode, tier, allow, blocked_ports, refuse, listen, dns })
    }

    fn version(&mut self, version: Option<Text>) {
        match version {
            None => {
                let _: Option<()> = self.missing(Place::START, "version", "version: 1");
            }
            Some(Text { text, place: _ }) if text == "1" => {}
            Some(Text { text, place }) => {
                self.problem(place, format!("{}: expected `1`, the version that this program reads", Shown(&text)));
            }
        }
    }

    fn workload(&mut self, place: Place, keys: WorkloadKeys) -> Option<Workload> {
        let WorkloadKeys { cgroup } = keys;
        match cgroup {
            Some(cgroup) => self.value(&cgroup, CgroupPattern::parse).map(|cgroup| Workload { cgroup }),
            None => self.missing(place, "cgroup", "cgroup: agents.slice/untrusted-*"),
        }
    }

    fn rule(&mut self, RuleNode { form, place }: RuleNode) -> Option<Rule> {
        let rule = match form {
            RuleForm::Short(text) => self.value(&Text { text, place }, |text| Rule::parse(text, place)),
            RuleForm::Long(keys) => self.long_rule(place, keys),
            RuleForm::Other(text) => {
                let message = "expected a rule such as `api.example.com:443`, in quotes if it begins with `[` or `*`";
                self.problem(place, format!("{}: {message}", Shown(&text)));
                None
            }
        }?;
        if let Some(problem) = contradiction(&rule.destination, self.tier) {
            self.problem(rule.place, problem);
        }
        Some(rule)
    }

    fn long_rule(&mut self, place: Place, keys: RuleKeys) -> Option<Rule> {
        let RuleKeys { domain, network, ports } = keys;
        let (destination, place) = match (domain, network) {
            (Some(domain), None) => {
                let pattern = self.value(&domain, DomainPattern::parse);
                (pattern.map(Destination::Domain), domain.place)
            }
            (None, Some(network)) => {
                let read = self.value(&network, Network::parse);
                (read.map(Destination::Network), network.place)
            }
            (Some(_), Some(network)) => {
                self.problem(network.place, "a rule has either `domain` or `network`; expected two rules".to_owned());
                (None, place)
            }
            (None, None) => {
                self.problem(place, "the rule names no destination; expected `domain: …` or `network: …`".to_owned());
                (None, place)
            }
        };
        let ports = match ports {
            None => Some(Ports::every()),
            Some(list) if list.value.is_empty() => {
                let place = super::document::place(&list.referenced);
                let message = "`[]`: an empty list allows nothing; expected a port, or no `ports` for every port";
                self.problem(place, message.to_owned());
                None
            }
            Some(list) => self.ports(&list.value),
        };
        Some(Rule { destination: destination?, ports: ports?, place })
    }

    fn ports(&mut self, list: &[Text]) -> Option<Ports> {
        let items: Vec<Option<PortItem>> = list.iter().map(|item| self.value(item, PortItem::parse)).collect();
        items.into_iter().collect::<Option<Vec<_>>>().map(Ports::from_items)
    }

    fn blocked_ports(&mut self, list: &[Text]) -> Ports {
        let mut items = Vec::new();
        for text in list {
            match self.value(text, PortItem::parse) {
                Some(PortItem::Icmp) => self.problem(
                    text.place,
                    "`icmp`: has no port to block; expected a port such as `22` or `5432/tcp`".to_owned(),
                ),
                Some(item @ (PortItem::Both(_) | PortItem::Tcp(_) | PortItem::Udp(_))) => items.push(item),
                None => {}
            }
        }
        Ports::from_items(items)
    }

    pub(super) fn choice<T: Copy>(&mut self, text: Option<Text>, choices: &[(&str, T)], default: T) -> T {
        let Some(Text { text, place }) = text else {
            return default;
        };
        if let Some((_, value)) = choices.iter().find(|(spelling, _)| *spelling == text) {
            return *value;
        }
        let spellings: Vec<String> = choices.iter().map(|(spelling, _)| format!("`{spelling}`")).collect();
        self.problem(place, format!("{}: expected {}", Shown(&text), yaml::one_of(&spellings)));
        default
    }

    pub(super) fn value<T, E: Display>(&mut self, text: &Text, read: impl FnOnce(&str) -> Result<T, E>) -> Option<T> {
        match read(&text.text) {
            Ok(value) => Some(value),
            Err(error) => {
                self.problem(text.place, error.to_string());
                None
            }
        }
    }

    fn missing<T>(&mut self, place: Place, key: &str, example: &str) -> Option<T> {
        self.problem(place, format!("`{key}` is missing; expected a line such as `{example}`"));
        None
    }

    pub(super) fn problem(&mut self, place: Place, message: String) {
        self.problems.push(Problem { place, message });
    }
}

/// Why the destination allows nothing under the tier, if it does not. A domain allows the question about it in any tier.
fn contradiction(destination: &Destination, tier: Option<Tier>) -> Option<String> {
    match (tier?, destination) {
        (Tier::External | Tier::Internal, Destination::Domain(_)) => None,
        (Tier::External, Destination::Network(network)) => special::zone_of(network).map(|zone| {
            format!(
                "`{network}`: is in `{}` ({}), which `tier: external` never allows; expected a public network",
                zone.network(),
                zone.name
            )
        }),
        (Tier::Internal, Destination::Network(network)) => match special::zone_of(network) {
            Some(_) => None,
            None => Some(format!(
                "`{network}`: is not inside a private or other special-purpose network, and `tier: internal` allows no \
                 other; expected a network such as `10.0.0.0/8`"
            )),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_the_safe_ones() {
        let policy = parse("test.yaml", b"version: 1\nname: test").unwrap();
        let Policy { name: _, description, workload, mode, tier, allow, blocked_ports, refuse, listen, dns } = policy;
        assert_eq!((description, workload, mode, tier), (None, None, Mode::Enforce, None));
        assert_eq!((allow, blocked_ports, refuse, listen), (Rules::default(), Ports::NONE, Refuse::Eperm, false));
        assert_eq!(dns, crate::policy::Dns::default());
    }

    #[test]
    fn a_rule_knows_its_line_and_column_in_either_form() {
        let file = "version: 1\nname: test\nallow:\n  - a.example\n  - ports: [1]\n    domain: b.example\n";
        let policy = parse("test.yaml", file.as_bytes()).unwrap();
        let places: Vec<String> = policy.allow.iter().map(|rule| rule.place.to_string()).collect();
        assert_eq!(places, ["4:5", "6:13"]);
    }

    #[test]
    fn arguments_make_the_policy_that_a_file_with_the_same_rules_makes() {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let policy = from_arguments(&words(&["api.example.com:443", "10.0.0.0/8"]), &words(&["22"])).unwrap();
        let file = "version: 1\nname: command-line\nallow: ['api.example.com:443', 10.0.0.0/8]\nblocked_ports: [22]";
        assert_eq!(parse("test.yaml", file.as_bytes()), Ok(policy));

        let problems = from_arguments(&words(&["*.com", "10.0.0.1/8"]), &words(&["0"])).unwrap_err().to_string();
        assert_eq!(problems.lines().count(), 3, "{problems}");
        assert!(problems.lines().all(|line| line.starts_with("command line: `")), "{problems}");
    }
}
