//! A policy that changes is in force at the next packet of flows that live, and at once for those that begin.

use std::{net::SocketAddr, os::unix::fs::MetadataExt as _};

use anyhow::{Context as _, Result, ensure};
use egress_tests::{
    deadline::{SOON, until},
    network::{Network, public_v4, public_v6},
    probe,
    servers::echo::Echo,
};
use egress_user::{
    compile::{CompiledPolicy, compile},
    kernel::{Governor, POLICY_SLOT, RUN_WORKLOAD, Sizes},
    policy::{self, Known},
};
use nix::errno::Errno;

/// Seconds for which a socket is kept that nobody cuts.
const KEPT_SECONDS: u64 = 2;

#[test]
fn a_live_connection_is_cut_when_the_new_policy_does_not_allow_it() -> Result<()> {
    let network = Network::new()?;
    for address in [public_v4(1), public_v6(1)] {
        let to = SocketAddr::new(address, 7);
        let echo = Echo::tcp(&network.world, to)?;
        let report = switch_under(&network, &echo, "keep-tcp", "198.20.1.2")?;
        // The kernel drops the packets of a connection without a word to the application.
        report.expect_refusal("recv", Errno::EAGAIN)?;
    }
    Ok(())
}

#[test]
fn a_connected_datagram_socket_is_refused_at_its_next_send() -> Result<()> {
    let network = Network::new()?;
    for address in [public_v4(1), public_v6(1)] {
        let to = SocketAddr::new(address, 7);
        let echo = Echo::udp(&network.world, to)?;
        let report = switch_under(&network, &echo, "keep-udp", "198.20.1.2")?;
        report.expect_refusal("send", Errno::EPERM)?;
    }
    Ok(())
}

#[test]
fn a_live_connection_goes_on_when_the_new_policy_allows_it_too() -> Result<()> {
    let network = Network::new()?;
    let to = SocketAddr::new(public_v4(1), 7);
    let echo = Echo::tcp(&network.world, to)?;
    switch_under(&network, &echo, "keep-tcp", "198.20.1.0/24")?.expect_success()
}

/// Keeps a socket busy under a policy that allows its far end, and puts the policy that allows only `next` in its place.
fn switch_under(network: &Network, echo: &Echo, action: &str, next: &str) -> Result<probe::Report> {
    let wire = network.watch()?;
    let to = echo.address();
    let policies = [compiled(&to.ip().to_string())?, compiled(next)?];
    let directory = network.client.cgroup.directory();
    let cgroup_id = directory.metadata().context("read the client's cgroup")?.ino();
    let mut governor = Governor::load(&Sizes::for_policies(&policies, 0))?;
    governor.attach(directory)?;
    let [first, second] = &policies;
    governor.install(POLICY_SLOT, first)?;
    governor.bind(cgroup_id, POLICY_SLOT, RUN_WORKLOAD)?;

    let action = format!("{action} {KEPT_SECONDS} {to}");
    let running = network.client.command(probe::program()?).arg(&action).start()?;
    let before = echo.received().len();
    until("some exchanges", SOON, || Ok((echo.received().len() > before + 5).then_some(())))?;

    governor.install(POLICY_SLOT + 1, second)?;
    governor.bind(cgroup_id, POLICY_SLOT + 1, RUN_WORKLOAD)?;
    let left = wire.frames_to(to.ip())?.len();
    let finished = running.finish()?;
    finished.expect_success()?;
    let [report] = probe::reports(&finished.stdout)?.try_into().map_err(|all| anyhow::anyhow!("{all:?}"))?;
    if report.errno != 0 {
        let after = wire.frames_to(to.ip())?.len();
        ensure!(after == left, "{} packets left after the switch", after - left);
    }
    Ok(report)
}

fn compiled(destination: &str) -> Result<CompiledPolicy> {
    let policy = policy::from_arguments(&[destination.to_owned()], &[]).context("parse the policy")?;
    Ok(compile(&policy, &Known::default())?)
}
