//! Name servers that are slow, broken, dead, back again, or speak TLS.

use anyhow::{Context as _, Result, ensure};
use egress_tests::{
    deadline::{SOON, until},
    egress::Egress,
    names::{API, ASKED, Names, asking, script, told},
    network::{DNS_V4, DNS_V6, Network, public_v4},
    policy,
    servers::{
        dnsmasq::Dnsmasq,
        misbehaving::{Misbehaving, Reply},
        unbound::Unbound,
    },
};
use std::time::Duration;

const SERVER: &str = "203.0.113.53";

#[test]
fn a_name_that_is_never_answered_does_not_hold_up_the_others() -> Result<()> {
    let names = Names::new()?;
    names.server.reply_below("silent.example.com", [])?;
    let text = "for n in $(seq 50); do \"$@\" udp 203.0.113.53 n$n.silent.example.com > /dev/null & done; \
                  \"$@\" names 203.0.113.53 api.example.com new.example.com api.example.com; wait";
    names.server.reply("new.example.com", [Reply::addresses(60, &[public_v4(2)])])?;
    let outcome = names.under(&policy::allowing(&["*.example.com"], ""))?.run(script(text, policy::NOTHING))?;
    let all = told(&outcome)?;
    ensure!(all.len() == 3, "{all:?}");
    for told in all {
        ensure!(told.code == Some(0) && told.addresses.len() == 1 && told.seconds < 3.0, "{told:?}");
    }
    Ok(())
}

#[test]
fn a_failure_of_the_name_server_is_told_with_its_reason() -> Result<()> {
    let names = Names::new()?;
    for (code, what) in [(2, "SERVFAIL"), (5, "REFUSED"), (1, "FORMERR"), (4, "NOTIMP")] {
        names.server.reply("broken.example.com", [Reply::code(code)])?;
        let told = names.ask_once(&policy::allowing(&["*.example.com"], ""), &["udp", SERVER, "broken.example.com"])?;
        ensure!(told.code == Some(2), "{what}: {told:?}");
        ensure!(told.ede.is_some_and(|ede| ede != 15) && told.text.is_some(), "{what}: {told:?}");
    }
    Ok(())
}

#[test]
fn an_answer_that_is_late_reaches_who_still_waits_and_harms_nobody_else() -> Result<()> {
    let names = Names::new()?;
    let late = Reply::addresses(60, &[public_v4(2)]).after(Duration::from_millis(700));
    names.server.reply("late.example.com", [late])?;
    // `timeout` ends the first client long before its answer.
    let text = "timeout 0.3 \"$@\" udp 203.0.113.53 late.example.com > /dev/null; \
                  \"$@\" udp 203.0.113.53 late.example.com; \"$@\" udp 203.0.113.53 api.example.com";
    let outcome = names.under(&policy::allowing(&["*.example.com"], ""))?.run(script(text, policy::NOTHING))?;
    let all = told(&outcome)?;
    let [late, other] = all.as_slice() else { anyhow::bail!("{all:?}") };
    late.expect_addresses(&[public_v4(2)])?;
    other.expect_addresses(&[public_v4(1)])
}

#[test]
fn names_resolve_again_when_a_dead_name_server_is_back() -> Result<()> {
    let Names { network, server } = Names::new()?;
    drop(server);
    let run = Egress::under(&network.client, &policy::allowing(&["*.example.com"], ""))?;
    let words = asking(&["until_answered", SERVER, API, "30"]);
    let first = asking(&["udp", SERVER, "first.example.com"]);
    let text = "first() { \"$1\" \"$2\" \"$3\" \"$4\" \"$5\"; }; first \"$@\"; shift 5; exec \"$@\"";
    let shell = ["sh", "-c", text, "sh"].map(Into::into).to_vec();
    let governed = run.option("--resolver").option(format!("{DNS_V4}:53")).start([shell, first, words].concat())?;
    let mut all_given_up = || Ok(governed.running.stdout()?.contains('\n').then_some(()));
    until("a first answer", Duration::from_secs(30), &mut all_given_up)?;
    let server = Misbehaving::start(&network.world, DNS_V4)?;
    server.reply(API, [Reply::addresses(60, &[public_v4(1)])])?;
    let all = told(&governed.finish()?)?;
    let [dead, back] = all.as_slice() else { anyhow::bail!("{all:?}") };
    ensure!(dead.code == Some(2) || dead.error.is_some(), "{dead:?}");
    back.expect_addresses(&[public_v4(1)])
}

#[test]
fn a_dead_first_name_server_delays_questions_by_little() -> Result<()> {
    let names = Names::new()?;
    let run = Egress::under(&names.network.client, &policy::allowing(&["*.example.com"], ""))?;
    // Nobody has the first address.
    let run = run.option("--resolver").option("198.20.0.99:53").option("--resolver").option(format!("{DNS_V4}:53"));
    names.server.reply_below("example.com", [Reply::addresses(60, &[public_v4(2)])])?;
    let all = told(&run.run(asking(&[
        "names",
        SERVER,
        "a.example.com",
        "b.example.com",
        "c.example.com",
        "d.example.com",
    ]))?)?;
    for told in &all {
        told.expect_addresses(&[public_v4(2)])?;
    }
    ensure!(all.last().is_some_and(|told| told.seconds < 0.5), "{all:?}");
    Ok(())
}

#[test]
fn questions_for_one_name_share_one_question_upstream() -> Result<()> {
    let names = Names::new()?;
    // Long enough for most to ask meanwhile, and too short for the question to be repeated.
    let late = Reply::addresses(60, &[public_v4(2)]).after(Duration::from_millis(200));
    names.server.reply("shared.example.com", [late])?;
    let text = "for n in $(seq 20); do \"$@\" udp 203.0.113.53 shared.example.com & done; wait";
    let outcome = names.under(&policy::allowing(&["*.example.com"], ""))?.run(script(text, policy::NOTHING))?;
    let all = told(&outcome)?;
    ensure!(all.len() == 20, "{all:?}");
    for told in all {
        told.expect_addresses(&[public_v4(2)])?;
    }
    // A client that came after the answer has it from the cache.
    ensure!(names.server.questions("shared.example.com") == 1, "{:?}", names.server.seen());
    Ok(())
}

#[test]
fn names_come_from_unbound_and_from_dnsmasq_over_both_families() -> Result<()> {
    let network = Network::new()?;
    let _unbound = Unbound::start(&network.world, DNS_V4, &[(API, public_v4(2))])?;
    let _dnsmasq = Dnsmasq::start(&network.world, DNS_V6, &[(API, public_v4(3))])?;
    for (server, address) in [(DNS_V4, public_v4(2)), (DNS_V6, public_v4(3))] {
        // Without an option it is the system's name server that is asked.
        network.client.ask(&[server])?;
        let run = Egress::under(&network.client, &policy::allowing(&["*.example.com"], ""))?;
        let all = told(&run.run(asking(&["udp", &server.to_string(), API]))?)?;
        all.first().context("nothing told")?.expect_addresses(&[address])?;
    }
    Ok(())
}

#[test]
fn names_come_over_tls_only_from_a_server_with_the_right_certificate() -> Result<()> {
    let network = Network::new()?;
    network.client.ask(&[ASKED])?;
    let unbound = Unbound::over_tls(&network.world, DNS_V4, "dns.example.net", &[(API, public_v4(2))])?;
    let trust = format!("SSL_CERT_FILE={}", unbound.authority()?.display());
    for (name, trusted, is_answered) in [
        ("dns.example.net", trust.as_str(), true),
        ("other.example.net", trust.as_str(), false),
        ("dns.example.net", "SSL_CERT_FILE=/dev/null", false),
    ] {
        let policy = policy::allowing(&["*.example.com"], &format!("dns: {{servers: [\"tls://{DNS_V4}#{name}\"]}}\n"));
        let run = Egress::under(&network.client, &policy)?.through(["env", trusted]);
        let all = told(&run.run(asking(&["udp", SERVER, API]))?)?;
        let told = all.first().context("nothing told")?;
        if is_answered {
            told.expect_addresses(&[public_v4(2)])?;
        } else {
            ensure!(told.addresses.is_empty(), "{name} {trusted}: {told:?}");
        }
    }
    Ok(())
}

#[test]
fn the_policy_may_name_the_servers_that_are_asked() -> Result<()> {
    let names = Names::new()?;
    let policy = policy::allowing(&[API], &format!("dns: {{servers: [{DNS_V4}]}}\n"));
    let run = Egress::under(&names.network.client, &policy)?;
    let all = told(&run.run(asking(&["udp", SERVER, API]))?)?;
    all.first().context("nothing told")?.expect_addresses(&[public_v4(1)])
}

#[test]
fn the_exact_names_of_a_policy_are_resolved_before_anybody_asks() -> Result<()> {
    let names = Names::new()?;
    let run = names.under(&policy::allowing(&[API], ""))?;
    let governed = run.start(["sleep", "20"])?;
    until("questions for both families", SOON, || Ok((names.server.questions(API) >= 2).then_some(())))?;
    drop(governed);
    Ok(())
}
