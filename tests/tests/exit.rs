//! How a run ends: with the command's own code, nothing of the command alive, and nothing left behind.

use anyhow::{Context as _, Result, ensure};
use egress_tests::{cgroup, egress::Egress, network::Network, policy};
use nix::sys::signal::Signal;

fn run(network: &Network) -> Result<Egress<'_>> {
    Egress::under(&network.client, &policy::allowing(policy::NOTHING, ""))
}

/// An error if a run left a cgroup, a process or a pin.
fn expect_nothing_left(network: &Network) -> Result<()> {
    let cgroups = network.client.cgroup.children()?;
    ensure!(cgroups.is_empty(), "left behind: {cgroups:?}");
    let processes = network.client.cgroup.processes()?;
    ensure!(processes.is_empty(), "left alive: {processes:?}");
    let pins = network.client.pins()?;
    ensure!(pins.is_empty(), "left behind: {pins:?}");
    Ok(())
}

#[test]
fn the_exit_code_is_the_command_s_own() -> Result<()> {
    let network = Network::new()?;
    for (script, code) in [("exit 0", 0), ("exit 1", 1), ("exit 42", 42), ("exit 125", 125), ("kill -9 $$", 137)] {
        run(&network)?.run(["sh", "-c", script])?.finished.expect_code(code).context(script)?;
        expect_nothing_left(&network).context(script)?;
    }
    Ok(())
}

#[test]
fn a_command_that_cannot_start_has_the_codes_of_env() -> Result<()> {
    let network = Network::new()?;
    let directory = network.client.directory().display().to_string();
    for (command, code) in [("no-such-command", 127), ("/no/such/command", 127), (directory.as_str(), 126)] {
        let outcome = run(&network)?.run([command])?;
        outcome.finished.expect_code(code)?;
        ensure!(outcome.finished.stderr.contains(command), "{command}: {}", outcome.finished.stderr);
        expect_nothing_left(&network)?;
    }
    Ok(())
}

#[test]
fn input_and_output_are_the_command_s() -> Result<()> {
    let network = Network::new()?;
    let outcome = run(&network)?.run(["sh", "-c", "cat; echo out; echo err >&2"])?;
    ensure!(outcome.finished.stdout == "out\n", "{outcome:?}");
    ensure!(outcome.finished.stderr.starts_with("err\n"), "{outcome:?}");

    let quiet = run(&network)?.option("--quiet").run(["sh", "-c", "echo err >&2"])?;
    ensure!(quiet.finished.stderr == "err\n", "{quiet:?}");
    Ok(())
}

#[test]
fn signals_reach_the_command() -> Result<()> {
    let network = Network::new()?;
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGUSR1] {
        let name = signal.as_str().trim_start_matches("SIG");
        let script = format!("trap 'echo caught {name}; exit 7' {name}; echo ready; while :; do sleep 0.05; done");
        let mut governed = run(&network)?.start(["sh", "-c", &script])?;
        governed.running.until_printed("ready")?;
        governed.running.signal(signal)?;
        let outcome = governed.finish()?;
        outcome.finished.expect_code(7).with_context(|| name.to_owned())?;
        ensure!(outcome.finished.stdout.contains(&format!("caught {name}")), "{outcome:?}");
        expect_nothing_left(&network)?;
    }
    Ok(())
}

#[test]
fn a_signal_that_ends_the_command_is_in_the_exit_code() -> Result<()> {
    let network = Network::new()?;
    let mut governed = run(&network)?.start(["sh", "-c", "echo ready; exec sleep 60"])?;
    governed.running.until_printed("ready")?;
    governed.running.signal(Signal::SIGTERM)?;
    governed.finish()?.finished.expect_code(128 + 15)?;
    expect_nothing_left(&network)
}

#[test]
fn what_the_command_left_behind_is_killed() -> Result<()> {
    let network = Network::new()?;
    let point = cgroup::mount_point()?;
    for script in [
        "sleep 600 & echo started",
        "setsid sleep 600 > /dev/null 2>&1 & echo started",
        "(trap '' TERM HUP; while :; do sleep 1; done) & echo started",
        "own=$0$(sed -n s/^0:://p /proc/self/cgroup); mkdir $own/below
        (echo 0 > $own/below/cgroup.procs; echo started; exec sleep 600) & sleep 0.1",
    ] {
        let outcome = run(&network)?.run(["sh".as_ref(), "-c".as_ref(), script.as_ref(), point.as_os_str()])?;
        outcome.finished.expect_code(0).with_context(|| script.to_owned())?;
        ensure!(outcome.finished.stdout == "started\n", "{outcome:?}");
        expect_nothing_left(&network).with_context(|| script.to_owned())?;
    }
    Ok(())
}

#[test]
fn the_command_never_runs_ungoverned() -> Result<()> {
    let network = Network::new()?;
    let outcome = run(&network)?.run(["cat", "/proc/self/cgroup"])?;
    let own = outcome.finished.stdout.lines().find_map(|line| line.strip_prefix("0::")).map(str::to_owned);
    let own = own.context("the command saw no cgroup")?;
    let parent = network.client.cgroup.directory().file_name().context("a cgroup without a name")?;
    let (_, below) = own.split_once(&*parent.to_string_lossy()).context(own.clone())?;
    ensure!(below.len() > 1, "the command ran in the cgroup of `egress` itself: {own}");
    Ok(())
}

#[test]
fn the_command_runs_as_the_user_that_the_option_names() -> Result<()> {
    let network = Network::new()?;
    let outcome = run(&network)?.option("--user").option("nobody").run(["id", "-un"])?;
    outcome.expect_success()?;
    ensure!(outcome.finished.stdout == "nobody\n", "{outcome:?}");
    let groups = run(&network)?.option("--user").option("nobody").run(["id", "-G"])?;
    ensure!(!groups.finished.stdout.split_whitespace().any(|group| group == "0"), "{groups:?}");
    Ok(())
}
