//! `cargo xtask demo`: `egress run` on real traffic that needs no internet.
//!
//! A client machine and a world of name servers and HTTPS servers, all in network namespaces without a way out; a policy;
//! `curl` under `egress run`; and a table of what was allowed, what was refused, why, and how soon `curl` could know.

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

use crate::table::{Attempt, Row};

/// How long the whole run may take.
const TIME_MAX: Duration = Duration::from_secs(15);

const POLICY: &str = "\
version: 1
name: demo
description: An agent that may use one API, its CDN and the build machines
allow:
  - api.example.com:443
  - cdn.example.net:443
  - network: 10.77.1.0/24
    ports: [8000-8100/tcp]
blocked_ports: [22, 3389]
";

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
    dns.alias("cdn.example.net", 60, "edge.example.org")?;
    dns.answer("edge.example.org", 60, &[public_v4(2)])?;
    dns.answer("paste.example.org", 60, &[public_v4(5), public_v6(5)])?;
    dns.answer("rebind.example.org", 60, &[private_v4(9)])?;
    let attempts = attempts();
    let mut addresses: Vec<SocketAddr> = attempts.iter().map(|attempt| attempt.address).collect();
    addresses.sort();
    addresses.dedup();
    let names = ["api.example.com", "cdn.example.net", "paste.example.org", "rebind.example.org"];
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
    for row in rows.iter().filter(|row| !row.attempt.allowed) {
        wire.expect_nothing_to(row.attempt.address.ip())
            .or_else(|error| if is_also_allowed(&attempts, row) { Ok(()) } else { Err(error) })?;
    }
    let refused: Vec<u64> = rows.iter().filter(|row| !row.attempt.allowed).map(|row| row.microseconds).collect();
    writeln!(
        out,
        "\nNothing that was refused left the machine; the slowest refusal took {} µs. A dropped packet would have cost\n\
         the application 135 seconds.",
        refused.iter().max().context("nothing was refused")?
    )?;
    let wrong: Vec<&str> = rows.iter().filter(|row| !row.is_as_expected()).map(|row| row.attempt.url).collect();
    ensure!(wrong.is_empty(), "not as expected: {}", wrong.join(", "));
    Ok(())
}

fn attempts() -> Vec<Attempt> {
    let attempt = |url, options, address, port, allowed| {
        let address = SocketAddr::new(address, port);
        Attempt { url, options, address, allowed }
    };
    vec![
        attempt("https://api.example.com/", "--ipv4", public_v4(1), 443, true),
        attempt("https://api.example.com/", "--ipv6", public_v6(1), 443, true),
        attempt("https://cdn.example.net/", "--ipv4", public_v4(2), 443, true),
        attempt("https://10.77.1.3:8080/", "--insecure", private_v4(3), 8080, true),
        attempt("https://paste.example.org/", "--ipv4", public_v4(5), 443, false),
        attempt("https://paste.example.org/", "--ipv6", public_v6(5), 443, false),
        attempt("https://api.example.com:22/", "--ipv4", public_v4(1), 22, false),
        attempt("https://api.example.com:8443/", "--ipv6", public_v6(1), 8443, false),
        attempt("https://10.77.1.3:443/", "--insecure", private_v4(3), 443, false),
        attempt("https://rebind.example.org/", "--ipv4", private_v4(9), 443, false),
        attempt("https://169.254.169.254/", "--insecure", METADATA, 443, false),
    ]
}

/// Whether the host of a refused attempt is reached on another port, so that packets to it are no sign.
fn is_also_allowed(attempts: &[Attempt], row: &Row<'_>) -> bool {
    attempts.iter().any(|attempt| attempt.allowed && attempt.address.ip() == row.attempt.address.ip())
}

/// Runs `curl` for every attempt, and after it a bare `connect` whose time says how soon an application can know.
fn visit(network: &Network, https: &Https, attempts: &[Attempt]) -> Result<Outcome> {
    let curl = https.curl(&["--output", "/dev/null", "--write-out", "curl %{exitcode} %{http_code}\\n"]);
    let curl: Vec<String> = curl.iter().map(|word| format!("'{}'", word.display())).collect();
    let probe = probe::program()?;
    let script: Vec<String> = attempts
        .iter()
        .map(|attempt| {
            let Attempt { url, options, address, allowed: _ } = attempt;
            format!("{} {options} {url} 2> /dev/null\n'{}' 'tcp {address}'\n", curl.join(" "), probe.display())
        })
        .collect();
    let run = Egress::under(&network.client, POLICY)?.option("--quiet").time_max(TIME_MAX);
    let outcome = run.run(["sh", "-c", &script.concat()])?;
    outcome.expect_success()?;
    Ok(outcome)
}

fn rows<'attempts>(attempts: &'attempts [Attempt], outcome: &Outcome) -> Result<Vec<Row<'attempts>>> {
    let lines: Vec<&str> = outcome.finished.stdout.lines().collect();
    ensure!(lines.len() == 2 * attempts.len(), "unexpected output: {}", outcome.finished.stdout);
    attempts
        .iter()
        .zip(lines.chunks(2))
        .map(|(attempt, pair)| {
            let [curl, report] = pair else { anyhow::bail!("half an attempt") };
            let reports = probe::reports(report)?;
            let report = reports.first().context("no report")?;
            let curl: Vec<&str> = curl.split(' ').collect();
            let ["curl", code, http] = curl.as_slice() else { anyhow::bail!("`curl` said {curl:?}") };
            let mut events = outcome.events()?.iter().filter(|event| event.remote() == Some(attempt.address));
            let event = events.find(|event| ["refusal", "flow_start"].contains(&event.kind.as_str()));
            Ok(Row {
                attempt,
                curl: if *code == "0" { format!("HTTP {http}") } else { format!("exit {code}") },
                errno: report.errno,
                microseconds: report.microseconds,
                verdict: event.map_or_else(String::new, |event| event.verdict.clone()),
                reason: event.map_or_else(String::new, |event| event.reason.clone()),
            })
        })
        .collect()
}
