//! A workload reaches its own listeners on loopback, and those of others only where a rule names them.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail, ensure};
use egress_tests::{egress::Egress, network::Network, policy, probe, servers::echo::Echo};
use nix::errno::Errno;

#[test]
fn own_listeners_are_reached_under_every_name_of_loopback() -> Result<()> {
    let network = Network::new()?;
    let addresses = ["127.0.0.1:0", "127.0.0.2:8080", "[::1]:0", "[::ffff:127.0.0.1]:0", "127.0.0.1:22"];
    let actions = addresses.map(|address| format!("own-loopback {address}"));
    // Whether others may connect from outside has nothing to do with it.
    for listen in ["listen: true\n", "listen: false\n"] {
        let run = Egress::under(&network.client, &policy::allowing(policy::NOTHING, listen))?;
        for report in run.probe(&actions)?.reports()? {
            report.expect_success().with_context(|| listen.trim().to_owned())?;
        }
    }
    Ok(())
}

#[test]
fn a_listener_of_another_process_of_the_workload_is_its_own() -> Result<()> {
    let network = Network::new()?;
    let probe = probe::program()?.display().to_string();
    let script = format!(
        "'{probe}' 'accept 127.0.0.1:8080 10' 2> $0/said &
        until grep -q listening $0/said; do sleep 0.01; done
        '{probe}' 'tcp 127.0.0.1:8080 hello' && wait"
    );
    let directory = network.client.directory().display().to_string();
    let run = Egress::under(&network.client, &policy::allowing(policy::NOTHING, ""))?;
    let outcome = run.run(["sh", "-c", &script, &directory])?;
    outcome.expect_success()?;
    for report in outcome.reports()? {
        report.expect_success()?;
    }
    Ok(())
}

#[test]
fn own_datagrams_are_answered_under_every_name_of_loopback() -> Result<()> {
    let network = Network::new()?;
    let addresses = ["127.0.0.1:0", "127.0.0.2:5000", "0.0.0.0:5001", "[::1]:0", "[::ffff:127.0.0.1]:0"];
    let actions = addresses.map(|address| format!("own-datagrams {address}"));
    let outcome = Egress::under(&network.client, &policy::allowing(policy::NOTHING, ""))?.probe(&actions)?;
    for report in outcome.reports()? {
        report.expect_success()?;
    }
    let ends = outcome.events()?.iter().filter(|event| event.kind == "flow_end");
    let silent: Vec<_> = ends.filter(|event| event.tx_packets == 0 || event.tx_packets != event.rx_packets).collect();
    // A server gets its question before it has a flow to count it in.
    ensure!(silent.iter().all(|event| event.rx_packets == 0 && event.tx_packets == 1), "{silent:#?}");
    ensure!(silent.len() == addresses.len(), "{silent:#?}");
    Ok(())
}

#[test]
fn an_own_port_that_becomes_a_foreign_one_is_closed() -> Result<()> {
    let network = Network::new()?;
    let foreign = Echo::udp(&network.client.network, "0.0.0.0:5353".parse()?)?;
    let run = Egress::under(&network.client, &policy::allowing(policy::NOTHING, ""))?;
    let report = run.probe(&["take-over 127.0.0.1:5353 secret"])?.report()?;
    report.expect_refusal("send after close", Errno::EPERM)?;
    foreign.expect_nothing()
}

#[test]
fn foreign_listeners_are_refused() -> Result<()> {
    let network = Network::new()?;
    let (v4, v6) = ("127.0.0.1:3128".parse()?, "[::1]:3128".parse()?);
    let host = &network.client.network;
    let tcp = [Echo::tcp(host, v4)?, Echo::tcp(host, v6)?];
    let udp = [Echo::udp(host, v4)?, Echo::udp(host, v6)?];
    let actions: Vec<String> = ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "[::]"]
        .iter()
        .flat_map(|name| [format!("tcp {name}:3128 secret"), format!("udp {name}:3128 secret")])
        .collect();
    // Not even a rule for everything names loopback.
    for allow in [&[][..], &["0.0.0.0/0", "::/0"]] {
        let run = Egress::under(&network.client, &policy::allowing(allow, ""))?;
        let outcome = run.probe(&actions)?;
        for (index, report) in outcome.reports()?.iter().enumerate() {
            let call = if index % 2 == 0 { "connect" } else { "sendto" };
            report.expect_refusal(call, Errno::EPERM)?;
        }
        outcome.expect_refusal(v4, "special_purpose")?;
    }
    for server in tcp.iter().chain(&udp) {
        server.expect_nothing()?;
    }
    Ok(())
}

#[test]
fn a_foreign_listener_is_reached_where_a_rule_names_it() -> Result<()> {
    let network = Network::new()?;
    let host = &network.client.network;
    for address in ["127.0.0.1:5432", "[::1]:5432"] {
        let address: SocketAddr = address.parse()?;
        let named = [Echo::tcp(host, address)?, Echo::udp(host, address)?];
        let other = Echo::tcp(host, SocketAddr::new(address.ip(), 5433))?;
        let allow = [format!("{{network: {}, ports: [5432]}}", address.ip())];
        let actions =
            [format!("tcp {address} hello"), format!("udp {address} hello"), format!("tcp {} secret", other.address())];
        let reports = Egress::under(&network.client, &policy::allowing(&allow, ""))?.probe(&actions)?.reports()?;
        let [over_tcp, over_udp, refused] = reports.as_slice() else { bail!("{reports:?}") };
        over_tcp.expect_success()?;
        over_udp.expect_success()?;
        refused.expect_refusal("connect", Errno::EPERM)?;
        for server in named {
            server.until_received("hello")?;
        }
        other.expect_nothing()?;
    }
    Ok(())
}

#[test]
fn an_address_of_the_machine_itself_is_no_way_to_a_foreign_listener() -> Result<()> {
    let network = Network::new()?;
    let to = SocketAddr::new(egress_tests::network::CLIENT_V4.into(), 3128);
    let silent = Echo::tcp(&network.client.network, to)?;
    let run = Egress::under(&network.client, &policy::allowing(&["198.20.1.0/24"], ""))?;
    run.probe(&[format!("tcp {to} secret")])?.report()?.expect_refusal("connect", Errno::EPERM)?;
    silent.expect_nothing()
}
