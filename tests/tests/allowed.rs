//! What a policy allows works, with the real `curl` and real servers, as if there were no firewall.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use egress_tests::{
    command::Finished,
    egress::Egress,
    network::{DNS_V4, DNS_V6, Network, private_v4, private_v6, public_v4, public_v6},
    policy,
    servers::{dns::Dns, dnsmasq::Dnsmasq, echo::Echo, https::Https},
};

const NAME: &str = "api.example.com";

/// Runs `curl` under a policy that allows these destinations.
fn curl(network: &Network, https: &Https, allow: &[&str], arguments: &[&str]) -> Result<Finished> {
    Ok(Egress::under(&network.client, &policy::allowing(allow, ""))?.run(https.curl(arguments))?.finished)
}

fn https_at(network: &Network, addresses: &[IpAddr], port: u16) -> Result<Https> {
    let addresses: Vec<SocketAddr> = addresses.iter().map(|address| SocketAddr::new(*address, port)).collect();
    Https::start(&network.world, &[NAME, "cdn.example.net"], &addresses)
}

#[test]
fn a_name_is_reached_over_both_families() -> Result<()> {
    let network = Network::new()?;
    let dns = Dns::start(&network.world, DNS_V4)?;
    dns.answer(NAME, 60, &[public_v4(1), public_v6(1)])?;
    let https = https_at(&network, &[public_v4(1), public_v6(1)], 443)?;
    let url = format!("https://{NAME}/");
    for (family, expected) in [("--ipv4", public_v4(1)), ("--ipv6", public_v6(1))] {
        let finished = curl(&network, &https, &[NAME], &[family, &url])?;
        finished.expect_success()?;
        ensure!(finished.stdout == format!("{expected}\n"), "{finished:?}");
    }
    Ok(())
}

#[test]
fn a_name_is_reached_through_its_whole_chain_of_aliases() -> Result<()> {
    let network = Network::new()?;
    let dns = Dns::start(&network.world, DNS_V4)?;
    dns.alias(NAME, 60, "edge.example.net")?;
    dns.alias("edge.example.net", 5, "pop.example.org")?;
    dns.answer("pop.example.org", 60, &[public_v4(2)])?;
    let https = https_at(&network, &[public_v4(2)], 443)?;
    curl(&network, &https, &["api.example.com:443"], &[&format!("https://{NAME}/")])?.expect_success()
}

#[test]
fn every_address_of_a_name_is_reached() -> Result<()> {
    let network = Network::new()?;
    let dns = Dns::start(&network.world, DNS_V4)?;
    let addresses: Vec<IpAddr> = (1..9).map(public_v4).chain((1..9).map(public_v6)).collect();
    dns.answer(NAME, 60, &addresses)?;
    let mut servers = Vec::new();
    for address in addresses {
        servers.push(Echo::tcp(&network.world, SocketAddr::new(address, 443))?);
    }
    let actions: Vec<String> = servers.iter().map(|server| format!("tcp {} hello", server.address())).collect();
    let outcome = Egress::under(&network.client, &policy::allowing(&[NAME], ""))?.probe(&actions)?;
    for report in outcome.reports()? {
        report.expect_success()?;
    }
    Ok(())
}

#[test]
fn a_name_is_reached_in_any_spelling() -> Result<()> {
    let network = Network::new()?;
    let dns = Dns::start(&network.world, DNS_V4)?;
    dns.answer(NAME, 60, &[public_v4(1)])?;
    let https = https_at(&network, &[public_v4(1)], 443)?;
    for allow in ["API.Example.COM", "api.example.com."] {
        let finished = curl(&network, &https, &[allow], &["https://Api.example.com/"])?;
        finished.expect_success().with_context(|| format!("allow `{allow}`"))?;
    }
    Ok(())
}

#[test]
fn names_come_from_dnsmasq_over_ipv6_too() -> Result<()> {
    let network = Network::new()?;
    network.client.ask(&[DNS_V6])?;
    let _dns = Dnsmasq::start(&network.world, DNS_V6, &[(NAME, public_v4(3))])?;
    let https = https_at(&network, &[public_v4(3)], 443)?;
    curl(&network, &https, &[NAME], &[&format!("https://{NAME}/")])?.expect_success()
}

#[test]
fn a_name_server_on_another_port_is_asked_when_the_option_names_it() -> Result<()> {
    let network = Network::new()?;
    let server = SocketAddr::new(public_v4(9), 5353);
    let dns = Dns::start_at(&network.world, server)?;
    dns.answer(NAME, 60, &[public_v4(1)])?;
    let echo = Echo::tcp(&network.world, SocketAddr::new(public_v4(1), 443))?;
    let run = Egress::under(&network.client, &policy::allowing(&[NAME], ""))?;
    let outcome =
        run.option("--resolver").option(server.to_string()).probe(&[format!("tcp {} hello", echo.address())])?;
    outcome.report()?.expect_success()
}

#[test]
fn networks_and_addresses_are_reached() -> Result<()> {
    let network = Network::new()?;
    for (allow, host) in [
        ("198.20.1.0/24", public_v4(4)),
        ("198.20.1.4", public_v4(4)),
        ("2c0f:fff0::/64", public_v6(4)),
        ("2c0f:fff0::1:4", public_v6(4)),
        ("0.0.0.0/0", public_v4(5)),
        ("::/0", public_v6(5)),
        ("10.77.0.0/16", private_v4(1)),
        ("fd77::/64", private_v6(1)),
    ] {
        let echo = Echo::tcp(&network.world, SocketAddr::new(host, 443))?;
        let run = Egress::under(&network.client, &policy::allowing(&[allow], ""))?;
        let report = run.probe(&[format!("tcp {} hello", echo.address())])?.report()?;
        report.expect_success().with_context(|| format!("allow `{allow}`"))?;
        ensure!(report.reply == "hello", "{report:?}");
    }
    Ok(())
}

#[test]
fn only_the_ports_of_a_range_are_reached() -> Result<()> {
    let network = Network::new()?;
    let allow = ["{network: 198.20.1.0/24, ports: [8000-8002/tcp, 443]}"];
    let host = public_v4(6);
    let mut servers = Vec::new();
    let cases = [(7999, false), (8000, true), (8001, true), (8002, true), (8003, false), (443, true), (442, false)];
    for (port, _) in cases {
        servers.push(Echo::tcp(&network.world, SocketAddr::new(host, port))?);
    }
    let actions = cases.map(|(port, _)| format!("tcp {host}:{port} hello"));
    let outcome = Egress::under(&network.client, &policy::allowing(&allow, ""))?.probe(&actions)?;
    for ((report, server), (port, allowed)) in outcome.reports()?.iter().zip(&servers).zip(cases) {
        if allowed {
            report.expect_success()?;
        } else {
            report.expect_refusal("connect", nix::errno::Errno::EPERM)?;
            server.expect_nothing()?;
            outcome.expect_refusal(SocketAddr::new(host, port), "port_not_allowed")?;
        }
    }
    Ok(())
}

#[test]
fn rules_may_come_from_the_command_line() -> Result<()> {
    let network = Network::new()?;
    let echo = Echo::tcp(&network.world, SocketAddr::new(public_v4(1), 443))?;
    let blocked = Echo::tcp(&network.world, SocketAddr::new(public_v4(1), 22))?;
    let run = Egress::new(&network.client)?.option("--allow").option("198.20.1.1").option("--block-port").option("22");
    let outcome = run.probe(&[format!("tcp {} hello", echo.address()), format!("tcp {} hello", blocked.address())])?;
    let reports = outcome.reports()?;
    let [allowed, refused] = reports.as_slice() else { anyhow::bail!("{reports:?}") };
    allowed.expect_success()?;
    refused.expect_refusal("connect", nix::errno::Errno::EPERM)?;
    blocked.expect_nothing()
}

#[test]
fn a_name_that_does_not_resolve_does_not_stop_the_others() -> Result<()> {
    let network = Network::new()?;
    let dns = Dns::start(&network.world, DNS_V4)?;
    dns.answer(NAME, 60, &[public_v4(1)])?;
    dns.fail("broken.example.com")?;
    let https = https_at(&network, &[public_v4(1)], 443)?;
    let allow = ["missing.example.com", "broken.example.com", NAME];
    let finished = curl(&network, &https, &allow, &[&format!("https://{NAME}/")])?;
    finished.expect_success()?;
    for name in ["missing.example.com", "broken.example.com"] {
        ensure!(finished.stderr.contains(name), "`{name}` is not reported: {}", finished.stderr);
    }
    Ok(())
}
