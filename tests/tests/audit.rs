//! `mode: audit` lets everything through and records what it would have refused.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use egress_tests::{
    egress::Egress,
    network::{METADATA, Network, public_v4, public_v6},
    policy,
    servers::echo::Echo,
};

#[test]
fn audit_lets_through_and_records_what_it_would_have_refused() -> Result<()> {
    let network = Network::new()?;
    let policy = policy::allowing(&["0.0.0.0/0"], "mode: audit\nblocked_ports: [22]\n");
    for (host, port, reason) in
        [(public_v4(1), 22, "blocked_port"), (public_v6(1), 443, "no_rule"), (METADATA, 80, "special_purpose")]
    {
        let to = SocketAddr::new(host, port);
        let (tcp, udp) = (Echo::tcp(&network.world, to)?, Echo::udp(&network.world, to)?);
        let actions = [format!("tcp {to} through"), format!("udp {to} through"), format!("udp-connected {to} through")];
        let outcome = Egress::under(&network.client, &policy)?.probe(&actions)?;
        for report in outcome.reports()? {
            report.expect_success()?;
        }
        tcp.until_received("through")?;
        udp.until_received("through")?;
        outcome.expect_refusal(to, reason)?;
        let refusals = outcome.refusals()?;
        ensure!(refusals.iter().all(|event| event.verdict == "allow"), "{refusals:#?}");
    }
    Ok(())
}

#[test]
fn audit_records_a_listener_and_lets_visitors_in() -> Result<()> {
    let network = Network::new()?;
    let policy = policy::allowing(policy::NOTHING, "mode: audit\n");
    let outcome = Egress::under(&network.client, &policy)?.probe(&["listen 0.0.0.0:8080", "socket 2 3 1"])?;
    for report in outcome.reports()? {
        report.expect_success()?;
    }
    for reason in ["listen", "socket_kind"] {
        let refusals = outcome.refusals()?;
        ensure!(refusals.iter().any(|event| event.reason == reason), "no `{reason}` in {refusals:#?}");
    }
    Ok(())
}
