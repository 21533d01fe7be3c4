//! Addresses of a name come and go while the command uses them, and no allowed request fails meanwhile.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Result, ensure};
use egress_tests::{
    deadline::{Deadline, SOON, until},
    egress::Egress,
    network::{DNS_V4, Network, public_v4, public_v6},
    policy, probe,
    servers::{dns::Dns, echo::Echo},
};

const NAME: &str = "api.example.com";
/// How long requests go on.
const SECONDS: u64 = 6;
/// How long each answer stands: less than its TTL, so every kind of overlap happens.
const ROTATION: Duration = Duration::from_millis(700);

#[test]
fn no_request_is_refused_while_answers_turn_over() -> Result<()> {
    let network = Network::new()?;
    let dns = Dns::start(&network.world, DNS_V4)?;
    let hosts = [public_v4(1), public_v4(2), public_v4(3), public_v6(1), public_v6(2)];
    let mut servers = Vec::new();
    for host in hosts {
        servers.push(Echo::tcp(&network.world, SocketAddr::new(host, 7))?);
    }
    dns.answer(NAME, 1, &hosts[..1])?;
    let probe = probe::program()?.display().to_string();
    let go = network.client.directory().join("go");
    let script =
        format!("while [ ! -e '{}' ]; do sleep 0.02; done; exec '{probe}' 'repeat {SECONDS} {NAME}:7'", go.display());
    let run = Egress::under(&network.client, &policy::allowing(&[NAME], ""))?;
    let governed = run.start(["sh", "-c", &script])?;

    // Each address is answered once while nobody but `egress` asks: from then on each is known.
    for host in hosts {
        dns.answer(NAME, 1, &[host])?;
        let before = dns.questions(NAME)?;
        until("two more questions for both families", SOON, || Ok((dns.questions(NAME)? >= before + 4).then_some(())))?;
    }
    std::fs::write(&go, "")?;

    // The end of a window of two neighbours is the beginning of the next.
    let end = Deadline::after(Duration::from_secs(SECONDS));
    for turn in 0.. {
        let window = [hosts[turn % hosts.len()], hosts[(turn + 1) % hosts.len()]];
        dns.answer(NAME, 1, &window)?;
        let until_next = Deadline::after(ROTATION.min(end.remaining()));
        until("the next turn", SOON, || Ok(until_next.has_passed().then_some(())))?;
        if end.has_passed() {
            break;
        }
    }
    let outcome = governed.finish()?;
    outcome.expect_success()?;
    let report = outcome.report()?;
    report.expect_success()?;
    ensure!(report.successes > 200, "{report:?}");
    ensure!(outcome.refusals()?.is_empty(), "{:#?}", outcome.refusals()?);
    for server in servers {
        server.until_received("repeated")?;
    }
    Ok(())
}

#[test]
fn a_name_that_stops_resolving_keeps_its_addresses_for_a_while() -> Result<()> {
    let network = Network::new()?;
    let dns = Dns::start(&network.world, DNS_V4)?;
    let echo = Echo::tcp(&network.world, SocketAddr::new(public_v4(1), 7))?;
    dns.answer(NAME, 1, &[public_v4(1)])?;
    let probe = probe::program()?.display().to_string();
    let run = Egress::under(&network.client, &policy::allowing(&[NAME], ""))?;
    let governed = run.start([probe, format!("repeat 4 {}", echo.address())])?;
    echo.until_received("repeated")?;
    dns.fail(NAME)?;
    let report = governed.finish()?.report()?;
    report.expect_success()?;
    ensure!(report.successes > 100, "{report:?}");
    Ok(())
}

#[test]
fn an_address_that_the_name_gets_later_is_reached() -> Result<()> {
    let network = Network::new()?;
    let dns = Dns::start(&network.world, DNS_V4)?;
    let (old, new) = (SocketAddr::new(public_v4(1), 7), SocketAddr::new(public_v4(2), 7));
    let servers = [Echo::tcp(&network.world, old)?, Echo::tcp(&network.world, new)?];
    dns.answer(NAME, 1, &[old.ip()])?;
    let probe = probe::program()?.display().to_string();
    let policy = policy::allowing(&[NAME], "");
    let governed = Egress::under(&network.client, &policy)?.start([probe, format!("repeat 5 {new}")])?;
    until("a first question", SOON, || Ok((dns.questions(NAME)? >= 2).then_some(())))?;
    dns.answer(NAME, 1, &[new.ip()])?;
    let [_, new] = servers;
    new.until_received("repeated")?;
    let report = governed.finish()?.report()?;
    ensure!(report.successes > 100 && report.failures > 0, "{report:?}");
    Ok(())
}

#[test]
fn a_name_that_did_not_resolve_at_the_start_is_tried_again() -> Result<()> {
    let network = Network::new()?;
    let dns = Dns::start(&network.world, DNS_V4)?;
    let echo = Echo::tcp(&network.world, SocketAddr::new(public_v4(1), 7))?;
    let probe = probe::program()?.display().to_string();
    let policy = policy::allowing(&[NAME], "");
    let run = Egress::under(&network.client, &policy)?;
    let governed = run.start([probe, format!("repeat 8 {}", echo.address())])?;
    until("a first question", SOON, || Ok((dns.questions(NAME)? >= 2).then_some(())))?;
    dns.answer(NAME, 1, &[public_v4(1)])?;
    echo.until_received("repeated")?;
    drop(governed);
    Ok(())
}
