//! When `egress run` is killed with SIGKILL, the command dies or stays governed, and what is left can be removed.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use egress_tests::{
    deadline::{SOON, until},
    egress::{self, Egress},
    network::{Network, public_v4, public_v6},
    policy, probe,
    servers::echo::Echo,
};
use nix::sys::signal::Signal;

#[test]
fn nothing_forbidden_leaves_after_a_kill_under_traffic() -> Result<()> {
    let network = Network::new()?;
    let (open, closed) = (SocketAddr::new(public_v4(1), 7), SocketAddr::new(public_v4(2), 7));
    let closed_v6 = SocketAddr::new(public_v6(2), 7);
    let (udp, tcp) = (Echo::udp(&network.world, open)?, Echo::tcp(&network.world, open)?);
    let silent = [Echo::udp(&network.world, closed)?, Echo::tcp(&network.world, closed)?];
    let wire = network.watch()?;
    let probe = probe::program()?.display().to_string();
    let flood = format!("flood 4 marked {open} {closed} {closed_v6}");
    // More than one process, in sessions of their own: whoever survives must stay governed.
    let script = format!("setsid '{probe}' '{flood}' & setsid '{probe}' '{flood}' & exec '{probe}' '{flood}'");
    let run = Egress::under(&network.client, &policy::allowing(&["198.20.1.1"], ""))?;
    let governed = run.start(["sh", "-c", &script])?;
    udp.until_received("marked")?;
    until("a connection", SOON, || Ok((!tcp.received().is_empty()).then_some(())))?;

    governed.running.signal(Signal::SIGKILL)?;
    governed.finish()?.finished.expect_code(128 + 9)?;
    // Nobody of the command is left in the cgroup of `egress` itself, and the traffic comes to its end.
    let own = std::fs::read_to_string(network.client.cgroup.directory().join("cgroup.procs"));
    ensure!(own.context("list the cgroup of `egress`")?.is_empty(), "the command got out of its cgroup");
    until("the end of the traffic", SOON, || Ok(network.client.cgroup.processes()?.is_empty().then_some(())))?;

    for server in silent {
        server.expect_nothing()?;
    }
    wire.expect_something_to(open.ip())?;
    wire.expect_nothing_to(closed.ip())?;
    wire.expect_nothing_to(closed_v6.ip())
}

#[test]
fn doctor_lists_what_a_dead_run_left_and_detach_removes_it() -> Result<()> {
    let network = Network::new()?;
    let run = Egress::under(&network.client, &policy::allowing(policy::NOTHING, ""))?;
    let mut governed = run.start(["sh", "-c", "echo ready; exec sleep 60"])?;
    governed.running.until_printed("ready")?;
    let [cgroup] = network.client.cgroup.children()?.try_into().map_err(|all| anyhow::anyhow!("{all:?}"))?;
    governed.running.signal(Signal::SIGKILL)?;
    governed.finish()?.finished.expect_code(128 + 9)?;
    let name = cgroup.file_name().context("a cgroup without a name")?.to_string_lossy().into_owned();
    let id = name.strip_prefix("egress-run-").with_context(|| format!("a cgroup with the name `{name}`"))?;

    let doctor = network.client.command(egress::binary()?).arg("doctor").finish()?;
    ensure!(doctor.stdout.contains(id), "doctor does not list `{id}`: {doctor:?}");

    let detach = network.client.command(egress::binary()?).arg("detach").finish()?;
    detach.expect_success()?;
    ensure!(!cgroup.exists(), "`{}` is still there: {detach:?}", cgroup.display());
    let pins = network.client.pins()?;
    ensure!(pins.is_empty(), "left behind: {pins:?}");
    let doctor = network.client.command(egress::binary()?).arg("doctor").finish()?;
    ensure!(!doctor.stdout.contains(&name), "doctor still lists `{name}`: {doctor:?}");
    Ok(())
}

#[test]
fn detach_leaves_a_run_alone_that_is_alive() -> Result<()> {
    let network = Network::new()?;
    let silent = Echo::tcp(&network.world, SocketAddr::new(public_v4(2), 7))?;
    let probe = probe::program()?.display().to_string();
    let go = network.client.directory().join("go");
    let script = format!(
        "echo ready; while [ ! -e '{}' ]; do sleep 0.02; done; exec '{probe}' 'tcp {}'",
        go.display(),
        silent.address()
    );
    let run = Egress::under(&network.client, &policy::allowing(policy::NOTHING, ""))?;
    let mut governed = run.start(["sh", "-c", &script])?;
    governed.running.until_printed("ready")?;
    network.client.command(egress::binary()?).arg("detach").finish()?.expect_success()?;
    std::fs::write(&go, "").context("let the command go on")?;
    let outcome = governed.finish()?;
    outcome.expect_success()?;
    silent.expect_nothing()
}
