//! What a policy does not allow fails at once with an error that the application can read, does not leave, and is on
//! record with its reason.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result};
use egress_tests::{
    egress::Egress,
    network::{DNS_V4, METADATA, Network, mapped, private_v4, private_v6, public_v4, public_v6},
    policy,
    servers::{dns::Dns, echo::Echo},
};
use nix::errno::Errno;

/// Tries the destination over TCP and both ways of UDP, with a server there that answers, and expects three refusals.
fn expect_refusals(policy: &str, to: SocketAddr, reason: &str) -> Result<()> {
    let network = Network::new()?;
    let server_address = SocketAddr::new(to.ip().to_canonical(), to.port());
    let tcp = Echo::tcp(&network.world, server_address)?;
    let udp = Echo::udp(&network.world, server_address)?;
    let wire = network.watch()?;
    let actions = [format!("tcp {to} secret-1"), format!("udp {to} secret-2"), format!("udp-connected {to} secret-3")];
    let outcome = Egress::under(&network.client, policy)?.probe(&actions)?;
    for (report, call) in outcome.reports()?.iter().zip(["connect", "sendto", "connect"]) {
        report.expect_refusal(call, Errno::EPERM)?;
    }
    tcp.expect_nothing()?;
    udp.expect_nothing()?;
    wire.expect_nothing_to(server_address.ip())?;
    wire.expect_no("secret")?;
    outcome.expect_refusal(server_address, reason)
}

#[test]
fn each_refusal_has_its_reason() -> Result<()> {
    let any = ["0.0.0.0/0", "::/0"];
    for (what, policy, to, port, reason) in [
        ("nothing is allowed", policy::allowing(policy::NOTHING, ""), public_v4(1), 443, "no_rule"),
        ("nothing is allowed", policy::allowing(policy::NOTHING, ""), public_v6(1), 443, "no_rule"),
        ("another host is allowed", policy::allowing(&["198.20.1.2"], ""), public_v4(1), 443, "no_rule"),
        ("another host is allowed", policy::allowing(&["2c0f:fff0::1:2"], ""), public_v6(1), 443, "no_rule"),
        ("the port is blocked", policy::allowing(&any, "blocked_ports: [22]\n"), public_v4(1), 22, "blocked_port"),
        ("the port is blocked", policy::allowing(&any, "blocked_ports: [22]\n"), public_v6(1), 22, "blocked_port"),
        ("private", policy::allowing(&any, ""), private_v4(1), 443, "special_purpose"),
        ("private", policy::allowing(&any, ""), private_v6(1), 443, "special_purpose"),
        ("metadata", policy::allowing(&any, ""), METADATA, 80, "special_purpose"),
        ("external", policy::allowing(&any, "tier: external\n"), private_v4(1), 443, "tier"),
        ("external", policy::allowing(&any, "tier: external\n"), private_v6(1), 443, "tier"),
        ("internal", policy::allowing(&["10.77.0.0/16"], "tier: internal\n"), public_v4(1), 443, "tier"),
        ("internal", policy::allowing(&["fd77::/64"], "tier: internal\n"), public_v6(1), 443, "tier"),
    ] {
        expect_refusals(&policy, SocketAddr::new(to, port), reason).with_context(|| format!("{what}: {to}"))?;
    }
    Ok(())
}

#[test]
fn a_blocked_port_beats_every_rule() -> Result<()> {
    for rule in ["198.20.1.1", "198.20.1.1:25", "{network: 198.20.0.0/16, ports: [20-30]}"] {
        let policy = policy::allowing(&[rule], "blocked_ports: [25]\n");
        expect_refusals(&policy, SocketAddr::new(public_v4(1), 25), "blocked_port").context(rule)?;
    }
    Ok(())
}

#[test]
fn a_port_blocked_for_one_protocol_is_open_for_the_other() -> Result<()> {
    let network = Network::new()?;
    let to = SocketAddr::new(public_v4(1), 5432);
    let (tcp, udp) = (Echo::tcp(&network.world, to)?, Echo::udp(&network.world, to)?);
    let policy = policy::allowing(&["198.20.1.1"], "blocked_ports: [5432/tcp]\n");
    let actions = [format!("tcp {to} over-tcp"), format!("udp {to} over-udp")];
    let reports = Egress::under(&network.client, &policy)?.probe(&actions)?.reports()?;
    let [over_tcp, over_udp] = reports.as_slice() else { anyhow::bail!("{reports:?}") };
    over_tcp.expect_refusal("connect", Errno::EPERM)?;
    over_udp.expect_success()?;
    tcp.expect_nothing()?;
    udp.until_received("over-udp")
}

#[test]
fn a_mapped_address_is_the_ipv4_address() -> Result<()> {
    let network = Network::new()?;
    let (open, closed) = (SocketAddr::new(public_v4(1), 443), SocketAddr::new(public_v4(2), 443));
    let servers = [Echo::tcp(&network.world, open)?, Echo::udp(&network.world, open)?];
    let silent = [Echo::tcp(&network.world, closed)?, Echo::udp(&network.world, closed)?];
    let wire = network.watch()?;
    // An IPv6 network around all mapped addresses is not a rule for IPv4.
    let policy = policy::allowing(&["198.20.1.1", "2c0f:fff0::/64"], "");
    let [open, closed] = [open, closed].map(|to| SocketAddr::new(mapped(to.ip()), to.port()));
    let actions = [
        format!("tcp {open} open"),
        format!("udp {open} open"),
        format!("udp-connected {open} open"),
        format!("tcp {closed} secret"),
        format!("udp {closed} secret"),
        format!("udp-connected {closed} secret"),
    ];
    let reports = Egress::under(&network.client, &policy)?.probe(&actions)?.reports()?;
    let (allowed, refused) = reports.split_at(3);
    for report in allowed {
        report.expect_success()?;
    }
    for (report, call) in refused.iter().zip(["connect", "sendto", "connect"]) {
        report.expect_refusal(call, Errno::EPERM)?;
    }
    for server in servers {
        server.until_received("open")?;
    }
    for server in silent {
        server.expect_nothing()?;
    }
    wire.expect_something_to(public_v4(1))?;
    wire.expect_no("secret")
}

#[test]
fn a_name_that_resolves_into_a_private_network_does_not_open_it() -> Result<()> {
    let network = Network::new()?;
    let dns = Dns::start(&network.world, DNS_V4)?;
    let inside = [private_v4(1), private_v6(1), METADATA];
    dns.answer("rebind.example.com", 60, &[&inside[..], &[public_v4(1)]].concat())?;
    let public = Echo::tcp(&network.world, SocketAddr::new(public_v4(1), 80))?;
    let servers: Result<Vec<Echo>> =
        inside.iter().map(|address| Echo::tcp(&network.world, SocketAddr::new(*address, 80))).collect();
    let wire = network.watch()?;
    let run = Egress::under(&network.client, &policy::allowing(&["rebind.example.com"], ""))?;
    let hosts = inside.into_iter().chain([public.address().ip()]);
    let actions: Vec<String> = hosts.map(|host| format!("tcp {} secret", SocketAddr::new(host, 80))).collect();
    let outcome = run.probe(&actions)?;
    let reports = outcome.reports()?;
    let Some((last, refused)) = reports.split_last() else { anyhow::bail!("no reports") };
    // The public address of the same name is as open as ever.
    last.expect_success()?;
    for ((report, address), server) in refused.iter().zip(inside).zip(servers?) {
        report.expect_refusal("connect", Errno::EPERM)?;
        server.expect_nothing()?;
        wire.expect_nothing_to(address)?;
        outcome.expect_refusal(SocketAddr::new(address, 80), "special_purpose")?;
    }
    Ok(())
}

#[test]
fn a_name_reaches_into_a_private_network_where_a_rule_names_it() -> Result<()> {
    let network = Network::new()?;
    let dns = Dns::start(&network.world, DNS_V4)?;
    dns.answer("db.example.com", 60, &[private_v4(2)])?;
    let echo = Echo::tcp(&network.world, SocketAddr::new(private_v4(2), 5432))?;
    let policy = policy::allowing(&["db.example.com", "{network: 10.77.1.0/24, ports: [5432]}"], "");
    let reports = Egress::under(&network.client, &policy)?
        .probe(&[format!("tcp {} hello", echo.address()), format!("tcp {}:5433", private_v4(2))])?
        .reports()?;
    let [open, other_port] = reports.as_slice() else { anyhow::bail!("{reports:?}") };
    open.expect_success()?;
    other_port.expect_refusal("connect", Errno::EPERM)
}

#[test]
fn the_error_is_the_one_that_the_policy_names() -> Result<()> {
    let network = Network::new()?;
    for (refuse, errno) in
        [("EPERM", Errno::EPERM), ("ECONNREFUSED", Errno::ECONNREFUSED), ("EHOSTUNREACH", Errno::EHOSTUNREACH)]
    {
        let policy = policy::allowing(policy::NOTHING, &format!("refuse: {refuse}\n"));
        for to in [public_v4(1), public_v6(1), mapped(public_v4(1))].map(|host: IpAddr| SocketAddr::new(host, 443)) {
            let actions = [format!("tcp {to}"), format!("udp {to} x"), format!("udp-connected {to} x")];
            let reports = Egress::under(&network.client, &policy)?.probe(&actions)?.reports()?;
            for (report, call) in reports.iter().zip(["connect", "sendto", "connect"]) {
                report.expect_refusal(call, errno).with_context(|| format!("refuse: {refuse}"))?;
            }
        }
    }
    Ok(())
}
