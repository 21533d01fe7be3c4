//! What stays on record: the summary, `--events`, and the file from which an agent can explain itself.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use egress_tests::{
    egress::Egress,
    network::{CLIENT_V4, DNS_V4, Network, public_v4},
    policy, probe,
    servers::{dns::Dns, echo::Echo},
};
use nix::errno::Errno;

#[test]
fn events_tell_the_whole_life_of_a_flow() -> Result<()> {
    let network = Network::new()?;
    let dns = Dns::start(&network.world, DNS_V4)?;
    dns.answer("api.example.com", 60, &[public_v4(1)])?;
    let echo = Echo::tcp(&network.world, SocketAddr::new(public_v4(1), 443))?;
    let to = echo.address();
    let run = Egress::under(&network.client, &policy::allowing(&["api.example.com"], ""))?;
    let outcome = run.probe(&[format!("tcp {to} hello")])?;
    let cgroup = network.client.cgroup.directory().file_name().context("a cgroup without a name")?;
    for (kind, hook) in [("flow_start", "egress"), ("flow_end", "release")] {
        let events = outcome.events()?;
        let of_kind = events.iter().filter(|event| event.kind == kind && event.remote() == Some(to));
        let found: Vec<_> = of_kind.collect();
        let [event] = found.as_slice() else { anyhow::bail!("not one `{kind}`: {events:#?}") };
        ensure!(event.time.contains('T') && event.time.ends_with('Z'), "{event:?}");
        ensure!(event.cgroup.contains(&*cgroup.to_string_lossy()), "{event:?}");
        ensure!(event.pid > 1 && event.command == "probe", "{event:?}");
        ensure!((event.protocol.as_str(), event.hook.as_str()) == ("tcp", hook), "{event:?}");
        ensure!(event.domain.as_deref() == Some("api.example.com"), "{event:?}");
        ensure!((event.verdict.as_str(), event.reason.as_str()) == ("allow", "rule"), "{event:?}");
        ensure!(event.direction == "outbound" && event.local_address == Some(CLIENT_V4.into()), "{event:?}");
        ensure!(event.local_port.is_some_and(|port| port > 0), "{event:?}");
    }
    let end = outcome.events()?.iter().rfind(|event| event.kind == "flow_end").context("no end")?;
    // Five bytes each way, in packets with headers of at least 40 bytes, and at least a handshake and an end.
    ensure!(end.tx_packets >= 3 && end.rx_packets >= 2, "{end:?}");
    ensure!(end.tx_bytes >= 3 * 40 + 5 && end.rx_bytes >= 2 * 40 + 5, "{end:?}");
    ensure!(end.tx_bytes < 2000 && end.rx_bytes < 2000, "{end:?}");
    Ok(())
}

#[test]
fn the_summary_names_each_destination_and_each_refusal() -> Result<()> {
    let network = Network::new()?;
    let dns = Dns::start(&network.world, DNS_V4)?;
    dns.answer("api.example.com", 60, &[public_v4(1)])?;
    let echo = Echo::tcp(&network.world, SocketAddr::new(public_v4(1), 443))?;
    let refused = SocketAddr::new(public_v4(2), 25);
    let actions = [format!("tcp {} hello", echo.address()), format!("tcp {refused}"), format!("tcp {refused}")];
    let policy = policy::allowing(&["api.example.com"], "");
    let outcome = Egress::under(&network.client, &policy)?.probe(&actions)?;
    for expected in ["api.example.com", "443", "198.20.1.2", "25", "no_rule"] {
        ensure!(outcome.finished.stderr.contains(expected), "no `{expected}` in {}", outcome.finished.stderr);
    }
    Ok(())
}

#[test]
fn the_command_reads_its_refusals_while_it_runs_and_cannot_change_them() -> Result<()> {
    let network = Network::new()?;
    let dns = Dns::start(&network.world, DNS_V4)?;
    dns.answer("files.example.net", 60, &[public_v4(2)])?;
    let probe = network.client.publish(&probe::program()?)?.display().to_string();
    let to = SocketAddr::new(public_v4(1), 443);
    let script = format!(
        "'{probe}' 'tcp {to}' > /dev/null
        tries=0
        until grep -q 198.20.1.1 \"$EGRESS_REFUSALS\" || [ $tries -gt 200 ]; do
            sleep 0.02; tries=$((tries + 1))
        done
        cat \"$EGRESS_REFUSALS\"
        '{probe}' \"write $EGRESS_REFUSALS\" >&2
        rm -f \"$EGRESS_REFUSALS\" 2> /dev/null && echo removed
        exit 0"
    );
    // Permissions stop a user before the file system does.
    for (user, errno) in [("root", Errno::EROFS), ("nobody", Errno::EACCES)] {
        let policy = policy::allowing(&["files.example.net"], "");
        let run = Egress::under(&network.client, &policy)?.option("--quiet").option("--user").option(user);
        let outcome = run.run(["sh", "-c", &script])?;
        outcome.expect_success()?;
        let line = outcome.finished.stdout.lines().next().with_context(|| format!("nothing in {outcome:?}"))?;
        let refusal: serde_json::Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        ensure!(refusal.to_string().contains("198.20.1.1"), "{refusal}");
        ensure!(refusal.get("reason").is_some_and(|reason| reason == "no_rule"), "{refusal}");
        // What a person would add to the policy, ready to paste.
        ensure!(refusal.to_string().contains("198.20.1.1:443"), "{refusal}");
        let reports = probe::reports(&outcome.finished.stderr)?;
        let [write] = reports.as_slice() else { anyhow::bail!("{reports:?}") };
        write.expect_refusal("open", errno)?;
        ensure!(!outcome.finished.stdout.contains("removed"), "{outcome:?}");
    }
    Ok(())
}

#[test]
fn a_refusal_names_the_domain_whose_address_was_tried() -> Result<()> {
    let network = Network::new()?;
    let dns = Dns::start(&network.world, DNS_V4)?;
    dns.answer("api.example.com", 60, &[public_v4(1)])?;
    let run = Egress::under(&network.client, &policy::allowing(&["api.example.com:443"], ""))?;
    let to = SocketAddr::new(public_v4(1), 8443);
    let outcome = run.probe(&[format!("tcp {to}")])?;
    outcome.expect_refusal(to, "port_not_allowed")?;
    let refusals = outcome.refusals()?;
    ensure!(refusals.iter().any(|event| event.domain.as_deref() == Some("api.example.com")), "{refusals:#?}");
    Ok(())
}
