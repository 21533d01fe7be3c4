//! Runs side by side do not see each other.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use egress_tests::{
    egress::{Egress, Governed},
    network::{Network, public_v4},
    policy, probe,
    servers::echo::Echo,
};
use nix::errno::Errno;

const RUNS: u8 = 10;

#[test]
fn ten_runs_have_ten_policies() -> Result<()> {
    let network = Network::new()?;
    let mut servers = Vec::new();
    for host in 0..RUNS {
        servers.push(Echo::tcp(&network.world, SocketAddr::new(public_v4(host), 7))?);
    }
    let probe = probe::program()?.display().to_string();
    let go = network.client.directory().join("go");
    let actions: Vec<String> = (0..RUNS).map(|host| format!("'tcp {}:7 from-$0'", public_v4(host))).collect();
    let script = format!(
        "echo ready; while [ ! -e '{}' ]; do sleep 0.02; done; exec '{probe}' {}",
        go.display(),
        actions.join(" ").replace("$0", "'$0'")
    );
    let mut all: Vec<Governed> = Vec::new();
    for host in 0..RUNS {
        let run = Egress::under(&network.client, &policy::allowing(&[public_v4(host).to_string()], ""))?;
        all.push(run.start(["sh", "-c", &script, &host.to_string()])?);
    }
    for governed in &mut all {
        governed.running.until_printed("ready")?;
    }
    std::fs::write(&go, "").context("let the commands go on")?;
    for (host, governed) in (0..RUNS).zip(all) {
        let outcome = governed.finish()?;
        outcome.expect_success()?;
        let (_, lines) = outcome.finished.stdout.split_once('\n').context("no reports")?;
        for (to, report) in (0..RUNS).zip(probe::reports(lines)?) {
            if to == host {
                report.expect_success()?;
            } else {
                report.expect_refusal("connect", Errno::EPERM)?;
            }
        }
        // Each has the records of its own command only.
        let mine = outcome.events()?.iter().filter(|event| event.kind == "refusal").count();
        ensure!(mine == usize::from(RUNS) - 1, "run {host} recorded {mine} refusals");
    }
    for (host, server) in (0..RUNS).zip(servers) {
        server.until_received(&format!("from-{host}"))?;
        let connections = server.received().iter().filter(|received| received.bytes.is_empty()).count();
        ensure!(connections == 1, "{connections} runs reached host {host}");
    }
    ensure!(network.client.cgroup.children()?.is_empty(), "{:?}", network.client.cgroup.children()?);
    Ok(())
}

#[test]
fn a_run_inside_a_run_can_only_be_narrower() -> Result<()> {
    let network = Network::new()?;
    let (both, outer_only, inner_only) = (public_v4(1), public_v4(2), public_v4(3));
    let mut servers = Vec::new();
    for host in [both, outer_only, inner_only] {
        servers.push(Echo::tcp(&network.world, SocketAddr::new(host, 7))?);
    }
    let probe = probe::program()?.display().to_string();
    let egress = egress_tests::egress::binary()?.display().to_string();
    let (both, outer_only, inner_only) = (both.to_string(), outer_only.to_string(), inner_only.to_string());
    let run = Egress::under(&network.client, &policy::allowing(&[&both, &outer_only], ""))?;
    let inner = [&egress, "run", "--quiet", "--allow", &both, "--allow", &inner_only, "--", &probe];
    let actions = [&both, &outer_only, &inner_only].map(|host| format!("tcp {host}:7 hello"));
    let outcome = run.run(inner.into_iter().chain(actions.iter().map(String::as_str)))?;
    outcome.expect_success()?;
    let reports = outcome.reports()?;
    let [allowed, refused @ ..] = reports.as_slice() else { anyhow::bail!("{reports:?}") };
    allowed.expect_success()?;
    for report in refused {
        report.expect_refusal("connect", Errno::EPERM)?;
    }
    for server in &servers[1..] {
        server.expect_nothing()?;
    }
    Ok(())
}
