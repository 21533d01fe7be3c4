//! Every example policy compiles to known entries, every wrong one gives its report, and no input is too much.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
};

use egress_common::{
    Decision, Protocol, Reason, Verdict,
    entry::{DestinationEntry, PortBits, PortSet},
};
use egress_user::{
    compile::{CompiledPolicy, compile, to_ip},
    policy::{
        Destination, DomainPattern, FILE_BYTES_MAX, Flow, Known, Policy, Problems, RULES_MAX, parse, schema, show,
    },
    testing::policies,
};
use proptest::prelude::*;

#[test]
fn every_example_policy_compiles_to_known_entries() {
    let files = yaml_files("policies");
    assert!(files.len() >= 7, "only {} example policies", files.len());
    for file in files {
        let policy = read(&file).unwrap_or_else(|problems| panic!("{problems}"));
        let text = format!("{}\n{}", show(&policy), rendered(&compile(&policy, &resolved(&policy)).unwrap()));
        insta::assert_snapshot!(file.file_stem().unwrap().to_str().unwrap(), text);
    }
}

#[test]
fn every_wrong_policy_gives_its_report() {
    let files = yaml_files("policies/invalid");
    assert!(files.len() >= 30, "only {} wrong policies", files.len());
    let mut reports = String::new();
    for file in files {
        let problems = match read(&file) {
            Ok(policy) => panic!("{} was read as {policy:?}", file.display()),
            Err(problems) => problems.to_string(),
        };
        for line in problems.lines() {
            assert!(line.starts_with(name(&file)), "`{line}` does not begin with the file");
        }
        writeln!(reports, "{problems}\n").unwrap();
    }
    insta::assert_snapshot!("invalid", reports);
}

#[test]
fn the_schema_changes_only_on_purpose() {
    insta::assert_snapshot!("schema", schema());
}

#[test]
fn every_example_of_the_documentation_compiles_and_every_key_has_one() {
    let document = fs::read_to_string(root().join("docs/policy.md")).unwrap();
    let examples: Vec<&str> =
        document.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    for example in &examples {
        let head = if example.starts_with("version:") { "" } else { "version: 1\nname: example\n" };
        let policy = parse("docs/policy.md", format!("{head}{example}").as_bytes());
        let policy = policy.unwrap_or_else(|problems| panic!("{problems}\n{example}"));
        compile(&policy, &resolved(&policy)).unwrap();
    }
    let schema: serde_json::Value = serde_json::from_str(&schema()).unwrap();
    for (keys, heading) in
        [("/properties", ""), ("/$defs/RuleKeys/properties", "`allow`: "), ("/$defs/DnsKeys/properties", "`dns`: ")]
    {
        for key in schema.pointer(keys).unwrap().as_object().unwrap().keys() {
            let (_, section) = document
                .split_once(&format!("\n### {heading}`{key}`\n"))
                .unwrap_or_else(|| panic!("no section `{key}`"));
            let example = section.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
            assert!(example.contains(&format!("{key}:")), "`{key}` has no example");
        }
    }
    for (keys, heading) in [("/$defs/BudgetKeys/properties", "budget"), ("/$defs/AddressKeys/properties", "addresses")]
    {
        let (_, section) = document.split_once(&format!("\n### `dns`: `{heading}`\n")).unwrap();
        let section = section.split("\n### ").next().unwrap();
        for key in schema.pointer(keys).unwrap().as_object().unwrap().keys() {
            assert!(section.contains(&format!("\n| `{key}` |")), "`{key}` is not in the table of `{heading}`");
            assert!(section.contains(&format!("\n    {key}: ")), "`{key}` has no example");
        }
    }
}

#[test]
fn a_shown_policy_is_the_same_policy() {
    for file in yaml_files("policies") {
        let policy = read(&file).unwrap();
        let shown = show(&policy);
        assert_eq!(parse("shown.yaml", shown.as_bytes()).unwrap(), policy, "{shown}");
    }
    for description in [
        "",
        "~",
        "443",
        "true",
        " a ",
        "# no comment",
        "a: b",
        "- a",
        "\"",
        "'",
        "a\nb\n",
        "\\",
        "ä€🤖",
        "%",
        "*a",
        "\0\u{1b}",
    ] {
        let mut policy = parse("test.yaml", b"version: 1\nname: '1.0'").unwrap();
        policy.description = Some(description.to_owned());
        let shown = show(&policy);
        assert_eq!(parse("shown.yaml", shown.as_bytes()), Ok(policy), "{shown}");
    }
}

proptest! {
    #[test]
    fn a_shown_random_policy_is_the_same_policy(policy in policies()) {
        // Under a tier, some networks allow nothing and would be problems.
        let policy = Policy { tier: None, ..policy };
        let shown = show(&policy);
        prop_assert_eq!(parse("shown.yaml", shown.as_bytes()), Ok(policy), "{}", shown);
    }
}

#[test]
fn a_file_that_is_too_large_is_refused_without_being_read() {
    let file = vec![b'#'; FILE_BYTES_MAX + 1];
    assert_eq!(report(&file), "test.yaml:1:1: the file is too large; expected at most 16 MiB");
    let largest = format!("version: 1\nname: large\n#{}", "x".repeat(FILE_BYTES_MAX - 24));
    assert_eq!(largest.len(), FILE_BYTES_MAX);
    assert!(parse("test.yaml", largest.as_bytes()).is_ok());
}

#[test]
fn deep_nesting_is_one_problem() {
    for depth in [17, 100, 1_000, 100_000] {
        let flow = format!("version: 1\nname: deep\nallow: {}", "[".repeat(depth));
        let block = format!("version: 1\nname: deep\nallow:\n {}x", "- ".repeat(depth));
        for file in [flow, block] {
            let report = report(file.as_bytes());
            assert_eq!(report.lines().count(), 1, "{report}");
            assert!(report.contains("nested too deeply"), "{report}");
        }
    }
}

#[test]
fn exploding_aliases_are_one_problem() {
    let mut file =
        "version: 1\nname: bomb\nallow:\n  - domain: a.example\n    ports: &a0 [1, 2, 3, 4, 5, 6, 7, 8]\n".to_owned();
    for level in 1..12 {
        let aliases = vec![format!("*a{}", level - 1); 9].join(", ");
        writeln!(file, "  - &a{level} [{aliases}]").unwrap();
    }
    let report = report(file.as_bytes());
    assert_eq!(report.lines().count(), 1, "{report}");
    assert!(report.contains("aliases"), "{report}");
}

#[test]
fn a_list_of_ports_can_be_shared_by_many_rules() {
    let mut file = "version: 1\nname: shared\nallow:\n  - domain: a.example\n    ports: &web [80, 443]\n".to_owned();
    for number in 0..20_000 {
        writeln!(file, "  - domain: n{number}.example\n    ports: *web").unwrap();
    }
    let policy = parse("test.yaml", file.as_bytes()).unwrap();
    assert_eq!(policy.allow.len(), 20_001);
    assert_eq!(compile(&policy, &Known::default()).unwrap().port_sets.len(), 2);
}

#[test]
fn too_many_rules_are_one_problem() {
    let file = format!("version: 1\nname: many\nallow:\n{}", " - a.example\n".repeat(RULES_MAX + 1));
    assert_eq!(
        report(file.as_bytes()),
        format!("test.yaml:{}:4: the policy has {} rules; expected at most {RULES_MAX}", RULES_MAX + 4, RULES_MAX + 1)
    );
}

#[test]
fn ten_thousand_rules_load_and_decide_right() {
    let mut file = "version: 1\nname: many\nallow:\n".to_owned();
    for number in 0..10_000 {
        writeln!(file, "  - domain: n{number}.example\n    ports: [{}/tcp]", 1 + number).unwrap();
    }
    let policy = parse("test.yaml", file.as_bytes()).unwrap();
    let mut known = resolved(&policy);
    let compiled = compile(&policy, &known).unwrap();
    // The plain decision goes over all names for each rule.
    known.addresses.retain(|name, _| ["n0.example", "n9999.example"].contains(&name.as_str()));
    for (number, address) in [(0_u32, 0x0b00_0000_u32), (9_999, 0x0b00_270f)] {
        for (port, verdict) in [(number, Verdict::Deny), (number + 1, Verdict::Allow), (number + 2, Verdict::Deny)] {
            let flow = Flow {
                protocol: Protocol::Tcp,
                destination: IpAddr::V4(Ipv4Addr::from(address)),
                port: u16::try_from(port).unwrap(),
            };
            assert_eq!(compiled.decide(&flow, 0).verdict, verdict, "{flow:?}");
            assert_eq!(policy.allows(&flow, &known, 0).verdict, verdict, "{flow:?}");
        }
    }
}

#[test]
fn a_hundred_thousand_networks_load_and_decide_right_at_their_edges() {
    // Every /24 below 44.0.0.0/8 and a few of the next, each second one with a /28 of its own inside.
    let mut file = "version: 1\nname: many\nallow:\n  - 44.0.0.0/7:22/tcp\n".to_owned();
    for number in 0..66_666_u32 {
        let network = Ipv4Addr::from((44 << 24) + (number << 8));
        writeln!(file, "  - {network}/24:443/tcp").unwrap();
        if number % 2 == 0 {
            writeln!(file, "  - {network}/28:80/tcp").unwrap();
        }
    }
    let policy = parse("test.yaml", file.as_bytes()).unwrap();
    assert_eq!(policy.allow.len(), 100_000);
    let compiled = compile(&policy, &Known::default()).unwrap();
    for (address, port, expected) in [
        ("43.255.255.255", 22, Decision::deny(Reason::NoRule)),
        ("44.0.0.0", 22, Decision::allow(Reason::Rule)),
        ("44.0.0.0", 80, Decision::allow(Reason::Rule)),
        ("44.0.0.0", 443, Decision::allow(Reason::Rule)),
        ("44.0.0.15", 80, Decision::allow(Reason::Rule)),
        ("44.0.0.16", 80, Decision::deny(Reason::PortNotAllowed)),
        ("44.0.1.0", 80, Decision::deny(Reason::PortNotAllowed)),
        ("44.0.1.255", 443, Decision::allow(Reason::Rule)),
        ("45.4.105.255", 443, Decision::allow(Reason::Rule)),
        ("45.4.106.0", 443, Decision::deny(Reason::PortNotAllowed)),
        ("45.255.255.255", 22, Decision::allow(Reason::Rule)),
        ("46.0.0.0", 22, Decision::deny(Reason::NoRule)),
    ] {
        let flow = Flow { protocol: Protocol::Tcp, destination: address.parse().unwrap(), port };
        assert_eq!(compiled.decide(&flow, 0), expected, "{address}:{port}");
        assert_eq!(policy.allows(&flow, &Known::default(), 0), expected, "{address}:{port}");
    }
}

#[test]
fn more_port_sets_than_the_kernel_holds_are_refused() {
    let mut file = "version: 1\nname: many\nallow:\n".to_owned();
    for number in 1..=20_000 {
        writeln!(file, "  - n{number}.example:{number}").unwrap();
    }
    let policy = parse("test.yaml", file.as_bytes()).unwrap();
    let error = compile(&policy, &Known::default()).unwrap_err().to_string();
    assert!(error.contains("expected at most 16384"), "{error}");
}

fn report(file: &[u8]) -> String {
    parse("test.yaml", file).unwrap_err().to_string()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn yaml_files(folder: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    files
}

fn name(file: &Path) -> &str {
    file.file_name().unwrap().to_str().unwrap()
}

fn read(file: &Path) -> Result<Policy, Problems> {
    parse(name(file), &fs::read(file).unwrap())
}

/// An address for each name of the policy, one after the other from 11.0.0.0 on.
fn resolved(policy: &Policy) -> Known {
    let mut known = Known::default();
    let names = policy.allow.iter().filter_map(|rule| match &rule.destination {
        Destination::Domain(DomainPattern::Exact(name)) => Some(name),
        Destination::Domain(DomainPattern::Below(_)) | Destination::Network(_) => None,
    });
    for (name, address) in names.zip(0x0b00_0000_u32..) {
        known.addresses.insert(name.clone(), BTreeMap::from([(IpAddr::V4(Ipv4Addr::from(address)), 600)]));
    }
    known
}

/// The entries as a person reads them, without the special-purpose networks that stay closed.
fn rendered(policy: &CompiledPolicy) -> String {
    let mut text = format!("flags {:#05b}, errno {}\n", policy.policy.flags, policy.policy.refuse_errno);
    let mut closed = 0;
    for (prefix, entry) in &policy.networks {
        match entry.port_set {
            0 => closed += 1,
            _ => writeln!(text, "network {}/{}: {}", to_ip(&prefix.address), prefix.length, ports(policy, *entry))
                .unwrap(),
        }
    }
    for (address, entry) in &policy.addresses {
        writeln!(text, "address {}: {}", to_ip(address), ports(policy, *entry)).unwrap();
    }
    writeln!(text, "{closed} networks that are closed").unwrap();
    text
}

fn ports(policy: &CompiledPolicy, entry: DestinationEntry) -> String {
    let PortSet { icmp, tcp, udp } = policy.port_sets.get(usize::from(entry.port_set)).unwrap();
    let expiry = if entry.expires_at == 0 { String::new() } else { format!(", until {}", entry.expires_at) };
    format!("tcp {}, udp {}, icmp {icmp}, else {}{expiry}", ranges(tcp), ranges(udp), entry.otherwise().name())
}

fn ranges(bits: &PortBits) -> String {
    let mut ranges: Vec<(u16, u16)> = Vec::new();
    for port in (0..=u16::MAX).filter(|port| bits.contains(*port)) {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == port => *last = port,
            Some(_) | None => ranges.push((port, port)),
        }
    }
    let ranges: Vec<String> = ranges.iter().map(|(first, last)| format!("{first}-{last}")).collect();
    format!("[{}]", ranges.join(" "))
}
