//! UDP and ICMP: decided whichever way they are sent, whole or in fragments, and answered where they are allowed.

use std::net::SocketAddr;

use anyhow::{Result, bail, ensure};
use egress_tests::{
    egress::Egress,
    network::{DNS_V4, Network, public_v4, public_v6},
    policy,
    servers::{dns::Dns, echo::Echo},
};
use nix::errno::Errno;

/// A datagram that the cable carries only in fragments.
const LARGE: usize = 5000;

#[test]
fn datagrams_arrive_and_are_answered_whichever_way_they_are_sent() -> Result<()> {
    let network = Network::new()?;
    for host in [public_v4(1), public_v6(1)] {
        let echo = Echo::udp(&network.world, SocketAddr::new(host, 5000))?;
        let other = Echo::udp(&network.world, SocketAddr::new(host, 5001))?;
        let (to, elsewhere) = (echo.address(), other.address());
        let actions = [
            format!("udp {to} unconnected"),
            format!("udp-connected {to} connected"),
            format!("udp-elsewhere {to} {elsewhere} elsewhere"),
        ];
        let run = Egress::under(&network.client, &policy::allowing(&[host.to_string()], ""))?;
        for report in run.probe(&actions)?.reports()? {
            report.expect_success()?;
        }
        echo.until_received("unconnected")?;
        echo.until_received("connected")?;
        other.until_received("elsewhere")?;
    }
    Ok(())
}

#[test]
fn a_socket_that_is_connected_to_an_allowed_host_cannot_send_elsewhere() -> Result<()> {
    let network = Network::new()?;
    for (open, closed) in [(public_v4(1), public_v4(2)), (public_v6(1), public_v6(2))] {
        let silent = Echo::udp(&network.world, SocketAddr::new(closed, 5000))?;
        let wire = network.watch()?;
        let action = format!("udp-elsewhere {} {} secret", SocketAddr::new(open, 5000), silent.address());
        let outcome = Egress::under(&network.client, &policy::allowing(&[open.to_string()], ""))?.probe(&[action])?;
        outcome.report()?.expect_refusal("sendto", Errno::EPERM)?;
        outcome.expect_refusal(silent.address(), "no_rule")?;
        silent.expect_nothing()?;
        wire.expect_nothing_to(closed)?;
    }
    Ok(())
}

#[test]
fn a_question_for_a_source_address_is_no_datagram() -> Result<()> {
    let network = Network::new()?;
    for host in [public_v4(1), public_v6(1)] {
        let to = SocketAddr::new(host, 443);
        let silent = Echo::udp(&network.world, to)?;
        let wire = network.watch()?;
        let policy = policy::allowing(&[format!("{{network: {host}, ports: [443/tcp]}}")], "");
        let outcome = Egress::under(&network.client, &policy)?.probe(&[format!("udp-connected {to} secret")])?;
        // `connect` is let through, as the C library does it to sort addresses; the datagram is not.
        outcome.report()?.expect_refusal("send", Errno::EPERM)?;
        outcome.expect_refusal(to, "port_not_allowed")?;
        silent.expect_nothing()?;
        wire.expect_no("secret")?;
    }
    Ok(())
}

#[test]
fn looking_up_an_allowed_name_leaves_no_refusal_and_the_order_of_its_addresses() -> Result<()> {
    let network = Network::new()?;
    let dns = Dns::start(&network.world, DNS_V4)?;
    dns.answer("api.example.com", 60, &[public_v4(1), public_v6(1)])?;
    let look_up = ["getent", "ahosts", "api.example.com"];
    let free = network.client.command("env").args(look_up).finish()?;
    let policy = policy::allowing(&["{domain: api.example.com, ports: [443/tcp]}"], "");
    let outcome = Egress::under(&network.client, &policy)?.run(look_up)?;
    outcome.expect_success()?;
    ensure!(outcome.finished.stdout == free.stdout, "{} instead of {}", outcome.finished.stdout, free.stdout);
    let refusals = outcome.refusals()?;
    ensure!(refusals.is_empty(), "{refusals:?}");
    Ok(())
}

#[test]
fn a_large_datagram_arrives_whole_or_not_at_all() -> Result<()> {
    let network = Network::new()?;
    for (open, closed) in [(public_v4(1), public_v4(2)), (public_v6(1), public_v6(2))] {
        let echo = Echo::udp(&network.world, SocketAddr::new(open, 5000))?;
        let silent = Echo::udp(&network.world, SocketAddr::new(closed, 5000))?;
        let wire = network.watch()?;
        let actions =
            [format!("udp {} fragment {LARGE}", echo.address()), format!("udp {} secret {LARGE}", silent.address())];
        let run = Egress::under(&network.client, &policy::allowing(&[open.to_string()], ""))?;
        let reports = run.probe(&actions)?.reports()?;
        let [allowed, refused] = reports.as_slice() else { bail!("{reports:?}") };
        allowed.expect_success()?;
        ensure!(allowed.reply.len() == LARGE, "the answer has {} bytes", allowed.reply.len());
        ensure!(echo.received().iter().map(|received| received.bytes.len()).eq([LARGE]), "{:?}", echo.received());
        ensure!(wire.frames_to(open)?.len() > 3, "the cable carried it in one piece");
        refused.expect_refusal("sendto", Errno::EPERM)?;
        silent.expect_nothing()?;
        wire.expect_nothing_to(closed)?;
    }
    Ok(())
}

#[test]
fn an_echo_of_icmp_is_decided_like_any_destination() -> Result<()> {
    let network = Network::new()?;
    for (open, closed) in [(public_v4(1), public_v4(2)), (public_v6(1), public_v6(2))] {
        let wire = network.watch()?;
        let actions = [format!("ping {open} hello"), format!("ping {closed} secret")];
        for allow in [format!("{{network: {open}, ports: [icmp]}}"), open.to_string()] {
            let run = Egress::under(&network.client, &policy::allowing(&[allow], ""))?;
            let outcome = run.probe(&actions)?;
            let reports = outcome.reports()?;
            let [allowed, refused] = reports.as_slice() else { bail!("{reports:?}") };
            allowed.expect_success()?;
            ensure!(allowed.reply == "hello", "{allowed:?}");
            // ICMPv6 sends into the void without an error: the kernel does not hand it on.
            if closed.is_ipv4() {
                refused.expect_refusal("sendto", Errno::EPERM)?;
            }
            ensure!(refused.errno != 0, "{refused:?}");
            let of_icmp = outcome.refusals()?.iter().any(|event| event.protocol == "icmp" && event.reason == "no_rule");
            ensure!(of_icmp, "{:?}", outcome.refusals()?);
        }
        wire.expect_something_to(open)?;
        wire.expect_nothing_to(closed)?;
    }
    Ok(())
}

#[test]
fn a_rule_with_ports_does_not_allow_an_echo() -> Result<()> {
    let network = Network::new()?;
    let wire = network.watch()?;
    let run = Egress::under(&network.client, &policy::allowing(&["198.20.1.1:443"], ""))?;
    let outcome = run.probe(&[format!("ping {} secret", public_v4(1))])?;
    outcome.report()?.expect_refusal("sendto", Errno::EPERM)?;
    wire.expect_no("secret")
}

#[test]
fn the_real_ping_works_where_it_is_allowed() -> Result<()> {
    let network = Network::new()?;
    // `ping` asks for its source address with a UDP socket first, which tells it of the refusal: its exit code 2.
    for (host, code) in [(public_v4(1), 0), (public_v6(1), 0), (public_v4(2), 2)] {
        let policy = policy::allowing(&[public_v4(1).to_string(), public_v6(1).to_string()], "");
        let host = host.to_string();
        let outcome = Egress::under(&network.client, &policy)?.run(["ping", "-c", "1", "-W", "1", &host])?;
        outcome.finished.expect_code(code)?;
    }
    Ok(())
}
