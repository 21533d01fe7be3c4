//! When one of several addresses of a name is refused, clients go on to the next.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use egress_tests::{
    egress::Egress,
    network::{DNS_V4, Network, public_v4, public_v6},
    policy,
    servers::{dns::Dns, https::Https},
};

#[test]
fn curl_goes_on_to_an_address_that_is_allowed() -> Result<()> {
    let network = Network::new()?;
    let dns = Dns::start(&network.world, DNS_V4)?;
    let addresses = [public_v4(1), public_v4(2), public_v6(1), public_v6(2)];
    dns.answer("api.example.com", 60, &addresses)?;
    let everywhere = addresses.map(|address| SocketAddr::new(address, 443));
    let https = Https::start(&network.world, &["api.example.com"], &everywhere)?;
    for allowed in addresses {
        for refuse in ["EPERM", "ECONNREFUSED", "EHOSTUNREACH"] {
            // The name with another port only, so that it resolves and the other three addresses are refused.
            let rules = ["api.example.com:9".to_owned(), allowed.to_string()];
            let policy = policy::allowing(&rules, &format!("refuse: {refuse}\n"));
            let outcome = Egress::under(&network.client, &policy)?.run(https.curl(&["https://api.example.com/"]))?;
            outcome.expect_success().with_context(|| format!("only {allowed} is allowed, refuse: {refuse}"))?;
            ensure!(outcome.finished.stdout == format!("{allowed}\n"), "{outcome:?}");
        }
    }
    Ok(())
}

#[test]
fn a_refused_connection_is_known_in_less_than_a_millisecond() -> Result<()> {
    let network = Network::new()?;
    let actions: Vec<String> = (0..20).map(|_| format!("tcp {}:443", public_v4(1))).collect();
    let run = Egress::under(&network.client, &policy::allowing(policy::NOTHING, ""))?;
    let mut times: Vec<u64> = run.probe(&actions)?.reports()?.iter().map(|report| report.microseconds).collect();
    times.sort_unstable();
    // The median, because other tests run beside this one.
    let median = times.get(times.len() / 2).context("no reports")?;
    ensure!(*median < 1000, "{times:?}");
    Ok(())
}
