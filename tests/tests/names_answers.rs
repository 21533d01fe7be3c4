//! What name servers answer is looked at before the workload sees it, and can be used from the moment it does.

use std::{net::IpAddr, time::Duration};

use anyhow::{Context as _, Result, ensure};
use egress_tests::{
    egress::Outcome,
    names::{API, Names, Told, asking, script, told},
    network::{METADATA, mapped, private_v4, private_v6, public_v4, public_v6},
    policy, probe,
    servers::{
        listener::Listener,
        misbehaving::{Reply, Source},
    },
};
use nix::errno::Errno;

const SERVER: &str = "203.0.113.53";

/// Asks for the name and then tries to connect to port 7 of each address.
fn ask_and_connect(names: &Names, policy: &str, name: &str, to: &[IpAddr]) -> Result<(Vec<Told>, Outcome)> {
    let probe = probe::program()?.display().to_string();
    let actions: Vec<String> =
        to.iter().map(|address| format!("'tcp {}'", std::net::SocketAddr::new(*address, 7))).collect();
    let text = format!("\"$@\" > told; '{probe}' {}; cat told >&2", actions.join(" "));
    let directory = names.network.client.directory().display().to_string();
    let text = format!("cd {directory} && {text}");
    let outcome = names.under(policy)?.option("--quiet").run(script(&text, &["udp", SERVER, name]))?;
    outcome.expect_success()?;
    let lines = outcome.finished.stderr.lines().filter(|line| line.starts_with('{'));
    let told = lines.map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect::<Result<_>>()?;
    Ok((told, outcome))
}

#[test]
fn addresses_of_special_networks_are_taken_out_of_answers() -> Result<()> {
    let names = Names::new()?;
    let _silent = Listener::start(&names.network.world, "0.0.0.0:7".parse()?)?;
    for special in [private_v4(1), METADATA, "127.0.0.1".parse()?, "100.64.0.1".parse()?, "0.0.0.0".parse()?] {
        names.server.reply("rebind.example.com", [Reply::addresses(60, &[special, public_v4(2)])])?;
        let told = names.ask_once(&policy::allowing(&["*.example.com"], ""), &["udp", SERVER, "rebind.example.com"])?;
        told.expect_addresses(&[public_v4(2)]).with_context(|| special.to_string())?;

        names.server.reply("rebind.example.com", [Reply::addresses(60, &[special])])?;
        let (told, outcome) =
            ask_and_connect(&names, &policy::allowing(&["rebind.example.com"], ""), "rebind.example.com", &[special])?;
        let told = told.first().context("nothing told")?;
        ensure!(told.addresses.is_empty() && told.code != Some(0), "{special}: {told:?}");
        ensure!(told.text.as_ref().is_some_and(|text| text.contains(&special.to_string())), "{special}: {told:?}");
        if special != "0.0.0.0".parse::<IpAddr>()? && !special.is_loopback() {
            outcome.report()?.expect_refusal("connect", Errno::EPERM)?;
        }
    }
    for special in [private_v6(1), mapped(private_v4(1)), "::1".parse()?, "64:ff9b::a4d:101".parse()?] {
        names.server.reply("rebind.example.com", [Reply::addresses(60, &[special])])?;
        let words = ["udp", SERVER, "rebind.example.com", "AAAA"];
        let told = names.ask_once(&policy::allowing(&["*.example.com"], ""), &words)?;
        ensure!(told.addresses.is_empty() && told.code != Some(0), "{special}: {told:?}");
    }
    Ok(())
}

#[test]
fn an_address_of_a_special_network_is_answered_where_a_rule_names_a_network_inside_it() -> Result<()> {
    let names = Names::new()?;
    let _open = Listener::start(&names.network.world, "0.0.0.0:7".parse()?)?;
    names.server.reply("intern.example.com", [Reply::addresses(60, &[private_v4(1)])])?;
    let policy = policy::allowing(&["intern.example.com", "10.77.0.0/16"], "");
    let (told, outcome) = ask_and_connect(&names, &policy, "intern.example.com", &[private_v4(1)])?;
    told.first().context("nothing told")?.expect_addresses(&[private_v4(1)])?;
    outcome.report()?.expect_success()
}

#[test]
fn answers_that_nobody_asked_for_are_ignored() -> Result<()> {
    let names = Names::new()?;
    let _silent = Listener::start(&names.network.world, "0.0.0.0:7".parse()?)?;
    let (forged, right) = (Reply::addresses(60, &[public_v4(9)]), Reply::addresses(60, &[public_v4(2)]));
    for (what, forged) in [
        ("another id", forged.clone().with_wrong_id()),
        ("another address", forged.clone().from(Source::OtherAddress)),
        ("another port", forged.clone().from(Source::OtherPort)),
        ("another question", forged.clone().about("other.example.com")),
    ] {
        names.server.reply("new.example.com", [forged, right.clone()])?;
        let policy = policy::allowing(&["*.example.com"], "");
        let (told, outcome) = ask_and_connect(&names, &policy, "new.example.com", &[public_v4(9)])?;
        told.first().context("nothing told")?.expect_addresses(&[public_v4(2)]).context(what)?;
        outcome.report()?.expect_refusal("connect", Errno::EPERM).context(what)?;
    }
    Ok(())
}

#[test]
fn records_of_other_names_are_ignored() -> Result<()> {
    let names = Names::new()?;
    let _silent = Listener::start(&names.network.world, "0.0.0.0:7".parse()?)?;
    let reply = Reply::addresses(60, &[public_v4(2)]);
    names.server.reply("new.example.com", [reply.and("bank.example.net", 60, public_v4(9))])?;
    let policy = policy::allowing(&["*.example.com", "bank.example.net"], "");
    let (told, outcome) = ask_and_connect(&names, &policy, "new.example.com", &[public_v4(9)])?;
    told.first().context("nothing told")?.expect_addresses(&[public_v4(2)])?;
    outcome.report()?.expect_refusal("connect", Errno::EPERM)
}

#[test]
fn a_chain_of_eight_aliases_is_followed_in_one_answer_and_in_eight() -> Result<()> {
    let names = Names::new()?;
    let _open = Listener::start(&names.network.world, "0.0.0.0:7".parse()?)?;
    let chain: Vec<String> = (1..=8).map(|number| format!("hop{number}.cdn{number}.example.org")).collect();
    let policy = policy::allowing(&["*.example.com"], "");
    names.server.reply("whole.example.com", [Reply::chain(60, &chain, &[public_v4(2)])?])?;
    names.server.reply("parts.example.com", [Reply::chain(60, &chain[..1], &[])?])?;
    for pair in chain.windows(2) {
        names.server.reply(&pair[0], [Reply::chain(60, &pair[1..], &[])?])?;
    }
    names.server.reply(&chain[7], [Reply::addresses(60, &[public_v4(3)])])?;
    for (name, address) in [("whole.example.com", public_v4(2)), ("parts.example.com", public_v4(3))] {
        let (told, outcome) = ask_and_connect(&names, &policy, name, &[address])?;
        let told = told.first().context("nothing told")?;
        told.expect_addresses(&[address]).context(name)?;
        ensure!(told.records.iter().filter(|(_, kind, _)| *kind == 5).count() == 8, "{told:?}");
        outcome.report()?.expect_success().context(name)?;
        let questions = outcome.questions()?;
        let question = questions.iter().find(|question| question.name == name).context("no record")?;
        ensure!(question.cnames.len() == 8 && question.addresses == [address], "{question:?}");
    }
    // The names on the way are not allowed for their own sake.
    names.ask_once(&policy, &["udp", SERVER, &chain[7]])?.expect_refusal()
}

#[test]
fn a_chain_that_never_ends_is_a_failure_and_not_a_wait() -> Result<()> {
    let names = Names::new()?;
    names.server.reply("a.example.com", [Reply::chain(60, &["b.example.com"], &[])?])?;
    names.server.reply("b.example.com", [Reply::chain(60, &["a.example.com"], &[])?])?;
    let told = names.ask_once(&policy::allowing(&["*.example.com"], ""), &["udp", SERVER, "a.example.com"])?;
    ensure!(told.addresses.is_empty() && told.error.is_none(), "{told:?}");
    Ok(())
}

#[test]
fn an_address_with_a_ttl_of_nothing_or_one_second_is_usable_when_it_is_known() -> Result<()> {
    let names = Names::new()?;
    let _open = Listener::start(&names.network.world, "0.0.0.0:7".parse()?)?;
    for ttl in [0, 1] {
        let pool: Vec<IpAddr> = (1..14).map(public_v4).collect();
        names.server.rotate_below("example.com", ttl, 1, pool)?;
        let words = ["handed_out", "4", SERVER, "7", "new.example.com"];
        let outcome = names.under(&policy::allowing(&["*.example.com"], ""))?.run(asking(&words))?;
        let all = told(&outcome)?;
        let told = all.first().context("nothing told")?;
        ensure!(told.failed == 0 && told.known >= 3 && told.connected > 100, "TTL {ttl}: {told:?}");
        ensure!(outcome.refusals()?.is_empty(), "TTL {ttl}: {:?}", outcome.refusals()?.first());
    }
    Ok(())
}

#[test]
fn an_answer_with_a_thousand_addresses_comes_whole_over_tcp_and_all_are_usable() -> Result<()> {
    let names = Names::new()?;
    let _open = Listener::start(&names.network.world, "0.0.0.0:7".parse()?)?;
    let many = names.widen(1000)?;
    names.server.reply("many.example.com", [Reply::addresses(60, &many)])?;
    let policy = policy::allowing(&["many.example.com"], "");
    let cut = names.ask_once(&policy, &["udp", SERVER, "many.example.com"])?;
    ensure!(cut.cut && cut.length <= 1232, "{cut:?}");
    let whole = names.ask_once(&policy, &["tcp", SERVER, "many.example.com"])?;
    whole.expect_addresses(&many)?;
    let ends = [many[0], many[500], many[999]];
    let (_, outcome) = ask_and_connect(&names, &policy, "many.example.com", &ends)?;
    for report in outcome.reports()? {
        report.expect_success()?;
    }
    Ok(())
}

#[test]
fn an_answer_that_the_name_server_cut_is_asked_for_over_tcp() -> Result<()> {
    let names = Names::new()?;
    names.server.reply("cut.example.com", [Reply::addresses(60, &[public_v4(2), public_v6(2)]).cut()])?;
    let told = names.ask_once(&policy::allowing(&["*.example.com"], ""), &["udp", SERVER, "cut.example.com"])?;
    told.expect_addresses(&[public_v4(2)])?;
    ensure!(names.server.seen().iter().any(|seen| seen.over_tcp && seen.name == "cut.example.com"), "no TCP");
    Ok(())
}

#[test]
fn what_does_not_exist_and_what_has_no_such_record_is_told_apart() -> Result<()> {
    let names = Names::new()?;
    names.server.reply("only6.example.com", [Reply::addresses(60, &[public_v6(1)])])?;
    let policy = policy::allowing(&["*.example.com"], "");
    let all = names.ask(&policy, &["names", SERVER, "missing.example.com", "only6.example.com"])?;
    ensure!(all.iter().map(|told| told.code).eq([Some(3), Some(0)]), "{all:?}");
    ensure!(all.iter().all(|told| told.addresses.is_empty() && told.ede != Some(15)), "{all:?}");
    Ok(())
}

#[test]
fn a_ttl_is_passed_on_and_counts_down() -> Result<()> {
    let names = Names::new()?;
    let text = "\"$@\"; sleep 1.1; \"$@\"";
    let run = names.under(&policy::allowing(&["*.example.com"], ""))?.time_max(Duration::from_secs(20));
    let all = told(&run.run(script(text, &["udp", SERVER, API]))?)?;
    let ttls: Vec<u32> = all.iter().filter_map(|told| told.ttl).collect();
    let [first, second] = ttls.as_slice() else { anyhow::bail!("{all:?}") };
    ensure!(*first == 60 && (50..60).contains(second), "{ttls:?}");
    ensure!(names.server.questions(API) == 1, "{:?}", names.server.seen());
    Ok(())
}
