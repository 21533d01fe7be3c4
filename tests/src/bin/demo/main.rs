//! `cargo xtask demo`: `egress run` on real traffic that needs no internet.
//!
//! A client machine and a world of name servers and HTTPS servers, all in network namespaces without a way out; a policy;
//! `curl` under `egress run`; a table of what was allowed, what was refused, why, and how soon `curl` could know; and what
//! `dig` is told about a name that is refused.

mod table;

use std::{
    io::{self, Write as _},
    net::SocketAddr,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use egress_tests::{
    egress::{Egress, Outcome},
    network::{DNS_V4, METADATA, Network, private_v4, public_v4, public_v6},
    probe,
    servers::{dns::Dns, https::Https},
};

use crate::table::{Attempt, Row, To};

/// How long the whole run may take.
const TIME_MAX: Duration = Duration::from_secs(15);

const POLICY: &str = r#"version: 1
name: demo
description: An agent that may use one API, any host of a CDN and the build machines
allow:
  - api.example.com:443
  - "*.cdn.example.net:443"
  - network: 10.77.1.0/24
    ports: [8000-8100/tcp]
blocked_ports: [22, 3389]
"#;

/// A name that no rule of the policy allows.
const REFUSED: &str = "paste.example.org";

fn main() -> ExitCode {
    match demo() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            drop(writeln!(io::stderr(), "demo: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn demo() -> Result<()> {
    let network = Network::new()?;
    let dns = Dns::start(&network.world, DNS_V4)?;
    dns.answer("api.example.com", 60, &[public_v4(1), public_v6(1)])?;
    dns.alias("img7.cdn.example.net", 60, "edge.example.org")?;
    dns.answer("edge.example.org", 60, &[public_v4(2)])?;
    dns.answer("cdn.example.net", 60, &[public_v4(2)])?;
    dns.answer(REFUSED, 60, &[public_v4(5), public_v6(5)])?;
    dns.answer("rebind.cdn.example.net", 60, &[METADATA])?;
    let attempts = attempts();
    let mut addresses: Vec<SocketAddr> = attempts.iter().filter_map(Attempt::address).collect();
    addresses.sort();
    addresses.dedup();
    let names = ["api.example.com", "img7.cdn.example.net"];
    let https = Https::start(&network.world, &names, &addresses)?;

    let out = &mut io::stdout().lock();
    writeln!(out, "Policy:\n")?;
    for line in POLICY.lines() {
        writeln!(out, "    {line}")?;
    }
    writeln!(out, "\n    $ egress run --policy demo.yaml -- curl …\n")?;
    out.flush()?;

    let wire = network.watch()?;
    let outcome = visit(&network, &https, &attempts)?;
    let rows = rows(&attempts, &outcome)?;
    table::print(out, &rows)?;
    for address in attempts.iter().filter(|attempt| !attempt.allowed).filter_map(Attempt::address) {
        // Packets are no sign where the host is reached on another port.
        if !attempts.iter().any(|other| other.allowed && other.address().is_some_and(|to| to.ip() == address.ip())) {
            wire.expect_nothing_to(address.ip())?;
        }
    }
    for address in [public_v4(5), public_v6(5), METADATA] {
        wire.expect_nothing_to(address)?;
    }
    let refused: Vec<u64> = rows.iter().filter(|row| !row.attempt.allowed).map(|row| row.microseconds).collect();
    writeln!(
        out,
        "\nNothing that was refused left the machine; the slowest refusal took {} µs. A dropped packet would have cost\n\
         the application 135 seconds.",
        refused.iter().max().context("nothing was refused")?
    )?;
    let reason = outcome.finished.stdout.lines().find(|line| line.starts_with("; EDE"));
    let reason = reason.context("`dig` was told no reason")?;
    writeln!(out, "\n    $ egress run --policy demo.yaml -- dig {REFUSED}\n    {reason}")?;
    let wrong: Vec<&str> = rows.iter().filter(|row| !row.is_as_expected()).map(|row| row.attempt.url).collect();
    ensure!(wrong.is_empty(), "not as expected: {}", wrong.join(", "));
    Ok(())
}

fn attempts() -> Vec<Attempt> {
    let attempt = |url, options, address, port, allowed| {
        let to = To::Address(SocketAddr::new(address, port));
        Attempt { url, options, to, allowed }
    };
    let unnamed = |url, name| Attempt { url, options: "--ipv4", to: To::Name(name), allowed: false };
    vec![
        attempt("https://api.example.com/", "--ipv4", public_v4(1), 443, true),
        attempt("https://api.example.com/", "--ipv6", public_v6(1), 443, true),
        attempt("https://img7.cdn.example.net/", "--ipv4", public_v4(2), 443, true),
        attempt("https://10.77.1.3:8080/", "--insecure", private_v4(3), 8080, true),
        unnamed("https://paste.example.org/", REFUSED),
        unnamed("https://cdn.example.net/", "cdn.example.net"),
        unnamed("https://rebind.cdn.example.net/", "rebind.cdn.example.net"),
        attempt("https://198.20.1.5/", "--insecure", public_v4(5), 443, false),
        attempt("https://api.example.com:22/", "--ipv4", public_v4(1), 22, false),
        attempt("https://api.example.com:8443/", "--ipv6", public_v6(1), 8443, false),
        attempt("https://10.77.1.3:443/", "--insecure", private_v4(3), 443, false),
        attempt("https://169.254.169.254/", "--insecure", METADATA, 443, false),
    ]
}

/// Runs `curl` for every attempt, and after it a bare `connect` whose time says how soon an application can know.
fn visit(network: &Network, https: &Https, attempts: &[Attempt]) -> Result<Outcome> {
    let curl = https.curl(&["--output", "/dev/null", "--write-out", "curl %{exitcode} %{http_code}\\n"]);
    let curl: Vec<String> = curl.iter().map(|word| format!("'{}'", word.display())).collect();
    let probe = probe::program()?;
    let script: Vec<String> = attempts
        .iter()
        .map(|attempt| {
            let Attempt { url, options, to, allowed: _ } = attempt;
            let action = match to {
                To::Address(address) => format!("tcp {address}"),
                To::Name(name) => format!("resolve {name}"),
            };
            format!("{} {options} {url} 2> /dev/null\n'{}' '{action}'\n", curl.join(" "), probe.display())
        })
        .chain([format!("dig {REFUSED}\n")])
        .collect();
    let run = Egress::under(&network.client, POLICY)?.option("--quiet").time_max(TIME_MAX);
    let outcome = run.run(["sh", "-c", &script.concat()])?;
    outcome.expect_success()?;
    Ok(outcome)
}

fn rows<'attempts>(attempts: &'attempts [Attempt], outcome: &Outcome) -> Result<Vec<Row<'attempts>>> {
    let lines: Vec<&str> = outcome.finished.stdout.lines().collect();
    ensure!(lines.len() > 2 * attempts.len(), "unexpected output: {}", outcome.finished.stdout);
    let questions = outcome.questions()?;
    attempts
        .iter()
        .zip(lines.chunks(2))
        .map(|(attempt, pair)| {
            let [curl, report] = pair else { anyhow::bail!("half an attempt") };
            let reports = probe::reports(report)?;
            let report = reports.first().context("no report")?;
            let curl: Vec<&str> = curl.split(' ').collect();
            let ["curl", code, http] = curl.as_slice() else { anyhow::bail!("`curl` said {curl:?}") };
            let (verdict, reason) = match attempt.to {
                To::Address(address) => {
                    let mut events = outcome.events()?.iter().filter(|event| event.remote() == Some(address));
                    let event = events.find(|event| ["refusal", "flow_start"].contains(&event.kind.as_str()));
                    event.map(|event| (event.verdict.clone(), event.reason.clone()))
                }
                To::Name(name) => {
                    let question = questions.iter().find(|question| question.name == name);
                    question.map(|question| (question.verdict.clone(), question.reason.clone()))
                }
            }
            .unwrap_or_default();
            Ok(Row {
                attempt,
                curl: if *code == "0" { format!("HTTP {http}") } else { format!("exit {code}") },
                errno: report.errno,
                microseconds: report.microseconds,
                verdict,
                reason,
            })
        })
        .collect()
}
