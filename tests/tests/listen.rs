//! `listen: false` keeps everyone out; `listen: true` lets connections in and their replies out.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use egress_tests::{
    deadline::{SOON, until},
    egress::{Egress, Governed},
    network::{CLIENT_V4, CLIENT_V6, Network, public_v4},
    policy, probe,
};
use nix::errno::Errno;

/// How long a connection is tried that nobody answers.
const UNANSWERED: Duration = Duration::from_millis(400);

#[test]
fn binding_a_tcp_port_for_others_is_refused() -> Result<()> {
    let network = Network::new()?;
    let refused = ["0.0.0.0:8080", "[::]:8080", "198.20.0.1:8080", "[2c0f:fff0::1]:8080", "[::ffff:0.0.0.0]:8080"];
    let actions = refused.map(|address| format!("listen {address}"));
    let outcome = Egress::under(&network.client, &policy::allowing(policy::NOTHING, ""))?.probe(&actions)?;
    for report in outcome.reports()? {
        report.expect_refusal("bind", Errno::EPERM)?;
    }
    let refusals = outcome.refusals()?;
    ensure!(refusals.iter().filter(|event| event.reason == "listen").count() == refused.len(), "{refusals:#?}");
    Ok(())
}

#[test]
fn binding_for_oneself_is_not_listening() -> Result<()> {
    let network = Network::new()?;
    let actions = [
        "listen 127.0.0.1:8080",
        "listen [::1]:8080",
        "bind-tcp 0.0.0.0:0",
        "bind-tcp 198.20.0.1:0",
        "bind-udp 0.0.0.0:5000",
        "bind-udp [::]:5001",
    ];
    let run = Egress::under(&network.client, &policy::allowing(policy::NOTHING, ""))?;
    for report in run.probe(&actions)?.reports()? {
        report.expect_success()?;
    }
    Ok(())
}

/// A governed `probe accept` that listens, under this policy.
fn listener(network: &Network, policy: &str, address: SocketAddr, seconds: u64) -> Result<Governed> {
    let probe = probe::program()?.display().to_string();
    let run = Egress::under(&network.client, policy)?.option("--quiet");
    let governed = run.start([probe, format!("accept {address} {seconds}")])?;
    until("a listener", SOON, || Ok(governed.running.stderr()?.contains("listening").then_some(())))
        .with_context(|| format!("stderr: {:?}", governed.running.stderr()))?;
    Ok(governed)
}

/// Connects from the world, sends a mark and waits for its echo.
fn visit(network: &Network, address: SocketAddr) -> io::Result<()> {
    network.world.enter(|| {
        let mut connection = TcpStream::connect_timeout(&address, UNANSWERED)?;
        connection.set_read_timeout(Some(SOON))?;
        connection.write_all(b"visitor")?;
        connection.read_exact(&mut [0; 7])
    })
}

#[test]
fn visitors_are_accepted_and_answered_where_the_policy_says_so() -> Result<()> {
    let network = Network::new()?;
    for address in [SocketAddr::new(CLIENT_V4.into(), 8080), SocketAddr::new(CLIENT_V6.into(), 8080)] {
        let policy = policy::allowing(policy::NOTHING, "listen: true\n");
        let governed = listener(&network, &policy, address, 10)?;
        visit(&network, address).with_context(|| format!("visit {address}"))?;
        let outcome = governed.finish()?;
        outcome.expect_success()?;
        outcome.report()?.expect_success()?;
        ensure!(outcome.refusals()?.is_empty(), "{:?}", outcome.refusals()?);
    }
    Ok(())
}

#[test]
fn a_listener_that_slipped_past_bind_is_never_reached() -> Result<()> {
    let network = Network::new()?;
    let probe = probe::program()?.display().to_string();
    // `listen` without `bind` takes any port; the test finds it in the process's own view of its sockets.
    let script = format!("'{probe}' 'listen-unbound 10' >&2 & echo $!; wait");
    let run = Egress::under(&network.client, &policy::allowing(policy::NOTHING, ""))?;
    let mut governed = run.option("--quiet").start(["sh", "-c", &script])?;
    governed.running.until_printed("\n")?;
    let port = until("a listening port", SOON, || listening_port(&network))?;
    let address = SocketAddr::new(CLIENT_V4.into(), port);
    let Err(error) = visit(&network, address) else { bail!("{address} answered") };
    ensure!(error.kind() == io::ErrorKind::TimedOut, "{address}: {error}");
    let refusal = until("a refusal on record", SOON, || {
        let events = governed.events()?;
        Ok(events.into_iter().find(|event| event.kind == "refusal" && event.reason == "unsolicited"))
    })?;
    ensure!(refusal.hook == "ingress", "{refusal:?}");
    Ok(())
}

/// The IPv4 port on which somebody on the client listens.
fn listening_port(network: &Network) -> Result<Option<u16>> {
    let table = network.client.network.enter(|| std::fs::read_to_string("/proc/thread-self/net/tcp"));
    let table = table.context("read the table of TCP sockets")?;
    // On any address: the DNS proxy listens on loopback.
    let is_listener = |line: &&str| {
        let mut words = line.split_whitespace().skip(1);
        words.next().is_some_and(|local| local.starts_with("00000000:")) && words.nth(1) == Some("0A")
    };
    let line = table.lines().find(is_listener);
    let port = line.and_then(|line| line.split_whitespace().nth(1)?.rsplit_once(':'));
    port.map(|(_, port)| u16::from_str_radix(port, 16).context("read a port")).transpose()
}

#[test]
fn a_datagram_that_nobody_asked_for_does_not_arrive() -> Result<()> {
    let network = Network::new()?;
    for (listen, arrives) in [("listen: false\n", false), ("listen: true\n", true)] {
        let probe = probe::program()?.display().to_string();
        let address = SocketAddr::new(CLIENT_V4.into(), 5000);
        let policy = policy::allowing(&["198.20.1.0/24"], listen);
        let run = Egress::under(&network.client, &policy)?.option("--quiet");
        let governed = run.start([probe, format!("wait-udp {address} 1")])?;
        until("a receiver", SOON, || Ok(governed.running.stderr()?.contains("listening").then_some(())))?;
        network
            .world
            .enter(|| UdpSocket::bind((public_v4(1), 0))?.send_to(b"visitor", address))
            .context("send a datagram to the client")?;
        let outcome = governed.finish()?;
        outcome.expect_success()?;
        let report = outcome.report()?;
        ensure!((report.reply == "visitor") == arrives, "{listen}: {report:?}");
    }
    Ok(())
}
