//! Under load: no allowed connection is refused, nothing that is hostile hurts others, and what is limited stays so.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use egress_tests::{
    names::{API, Names, asking, told},
    network::public_v4,
    policy,
    servers::{listener::Listener, misbehaving::Reply},
};

const SERVER: &str = "203.0.113.53";
/// More than any of these tests asks.
const AMPLE_BUDGET: &str = "dns:
  ttl_floor: 0s
  budget: {questions_per_minute: 1000000, names_per_hour: 100000, random_percent: 100}
";
/// A minute and a half on a busy machine, in a debug build.
const LONG: Duration = Duration::from_secs(150);

#[test]
fn ten_thousand_first_connections_right_after_the_answer_work() -> Result<()> {
    const COUNT: u16 = 10_000;
    let names = Names::new()?;
    let open = Listener::start(&names.network.world, "0.0.0.0:7".parse()?)?;
    // Each name has an address of its own, so each connection is the first to it.
    names.server.rotate_below("new.example.com", 60, 1, names.widen(COUNT)?)?;
    let words = ["first_connections", &COUNT.to_string(), SERVER, "new.example.com", "7", "4"];
    let run = names.under(&policy::allowing(&["*.new.example.com:7"], AMPLE_BUDGET))?.time_max(LONG);
    let outcome = run.option("--quiet").run(asking(&words))?;
    let all = told(&outcome)?;
    let told = all.first().context("nothing told")?;
    ensure!(told.resolved == u64::from(COUNT) && told.failed == 0, "{told:?}");
    ensure!(outcome.refusals()?.is_empty(), "{:?}", outcome.refusals()?.first());
    ensure!(open.connections() == u64::from(COUNT), "{} connections arrived", open.connections());
    Ok(())
}

#[test]
fn no_address_is_lost_while_a_pool_of_a_thousand_rotates() -> Result<()> {
    let names = Names::new()?;
    let _open = Listener::start(&names.network.world, "0.0.0.0:7".parse()?)?;
    // Eight addresses in each answer, as S3 does it; a hundred and twenty-five answers hand out all.
    names.server.rotate("s3.example.com", 0, 8, names.widen(1000)?)?;
    let names_below: Vec<String> = (0..25).map(|number| format!("bucket{number}.s3.example.com")).collect();
    names.server.rotate_below("s3.example.com", 1, 8, names.widen(1000)?)?;
    let below: Vec<&str> = names_below.iter().map(String::as_str).collect();
    let words = [&["handed_out", "12", SERVER, "7", "s3.example.com"], &below[..]].concat();
    let policy = policy::allowing(&["s3.example.com:7", "*.s3.example.com:7"], AMPLE_BUDGET);
    let outcome = names.under(&policy)?.option("--quiet").time_max(LONG).run(asking(&words))?;
    let all = told(&outcome)?;
    let told = all.first().context("nothing told")?;
    ensure!(told.known == 1000, "only {} addresses were handed out: {told:?}", told.known);
    ensure!(told.failed == 0 && told.connected > 1000, "{told:?}");
    ensure!(outcome.refusals()?.is_empty(), "{:?}", outcome.refusals()?.first());
    Ok(())
}

#[test]
fn bad_messages_hurt_nobody() -> Result<()> {
    let names = Names::new()?;
    let outcome =
        names.under(&policy::allowing(&[API], ""))?.option("--quiet").run(asking(&["garbage", SERVER, API]))?;
    let all = told(&outcome)?;
    let (good, bad): (Vec<_>, Vec<_>) = all.iter().partition(|told| told.what == "good");
    ensure!(good.len() == 2 && bad.len() > 30, "{all:?}");
    for told in good {
        told.expect_addresses(&[public_v4(1)]).context("after the bad messages")?;
    }
    for told in bad {
        // What stands in options may be anything, and need not be looked at.
        if told.what == "an EDNS option that is too long" {
            ensure!([Some(0), Some(1)].contains(&told.code), "{told:?}");
            continue;
        }
        ensure!(told.addresses.is_empty() && told.code != Some(0), "{told:?}");
        if ["no question", "two questions", "a cut question", "a name that points to itself"].contains(&&*told.what) {
            ensure!(told.code == Some(1), "expected FORMERR: {told:?}");
        }
        if told.what == "EDNS of version 7" {
            ensure!(told.code == Some(16), "expected BADVERS: {told:?}");
        }
        if ["a notify", "an update"].contains(&&*told.what) {
            ensure!(told.code == Some(4), "expected NOTIMP: {told:?}");
        }
        if ["nothing", "one byte", "half a head", "an answer"].contains(&&*told.what) {
            ensure!(told.code.is_none(), "expected silence: {told:?}");
        }
    }
    names.server.expect_no_question("version.bind")
}

#[test]
fn half_a_message_keeps_nobody_from_an_answer() -> Result<()> {
    let names = Names::new()?;
    let all = names.ask(&policy::allowing(&[API], ""), &["half", SERVER, API])?;
    ensure!(all.len() == 3, "{all:?}");
    for told in all {
        told.expect_addresses(&[public_v4(1)])?;
        ensure!(told.seconds < 2.0, "{told:?}");
    }
    Ok(())
}

#[test]
fn ten_thousand_connections_keep_nobody_from_an_answer() -> Result<()> {
    let names = Names::new()?;
    let run = names.under(&policy::allowing(&[API], ""))?.option("--quiet").time_max(LONG);
    let all = told(&run.run(asking(&["connections", "10000", SERVER, API]))?)?;
    let [told, after] = all.as_slice() else { anyhow::bail!("{all:?}") };
    ensure!(told.answered == 100 && told.slowest < 3.0, "{told:?}");
    after.expect_addresses(&[public_v4(1)])
}

#[test]
fn a_tunnel_below_a_wildcard_is_stopped_and_told_of() -> Result<()> {
    let names = Names::new()?;
    names.server.reply_below("tunnel.example.com", [Reply::addresses(0, &[public_v4(2)])])?;
    // Labels as `dnscat` and as `iodine` send them.
    for length in ["32", "60"] {
        let before = names.server.seen().len();
        let policy = policy::allowing(&["*.example.com"], "");
        let words = ["tunnel", SERVER, "tunnel.example.com", "600", length];
        let outcome = names.under(&policy)?.run(asking(&words))?;
        let all = told(&outcome)?;
        let told = all.first().context("nothing told")?;
        told.expect_refusal()?;
        let passed = told.codes.get("0").copied().unwrap_or_default();
        ensure!(passed <= 300, "{passed} of 600 questions carried data out: {told:?}");
        let sent = names.server.seen().len() - before;
        ensure!(u64::try_from(sent)? <= passed, "{sent} questions went out");
        let alerts = outcome.alerts()?;
        ensure!(!alerts.is_empty() && alerts.len() < 10, "{alerts:?}");
        ensure!(alerts.iter().all(|alert| alert.to_string().contains("dns_budget")), "{alerts:?}");
    }
    Ok(())
}

#[test]
fn the_budget_of_the_policy_is_kept() -> Result<()> {
    let names = Names::new()?;
    names.server.reply_below("example.com", [Reply::addresses(60, &[public_v4(2)])])?;
    for (budget, expected) in [("questions_per_minute: 10", 10), ("names_per_hour: 7", 7)] {
        let policy = policy::allowing(&["*.example.com"], &format!("dns: {{budget: {{{budget}}}}}\n"));
        let all: Vec<String> = (0..20).map(|number| format!("host-{number}.example.com")).collect();
        let words: Vec<&str> = ["names", SERVER].into_iter().chain(all.iter().map(String::as_str)).collect();
        let told = names.ask(&policy, &words)?;
        let passed = told.iter().filter(|told| told.code == Some(0)).count();
        ensure!(passed == expected, "{budget}: {passed} of 20 were answered");
        // What is in the cache carries nothing out, so it does not count.
        let words: Vec<&str> = ["names", SERVER].into_iter().chain(["host-0.example.com"; 20]).collect();
        for told in names.ask(&policy, &words)? {
            told.expect_addresses(&[public_v4(2)]).context(budget)?;
        }
    }
    Ok(())
}

#[test]
fn a_flood_of_one_workload_does_not_starve_another() -> Result<()> {
    let names = Names::new()?;
    names.server.reply_below("flood.example.net", [])?;
    let flood = names.under(&policy::allowing(&["*.flood.example.net"], AMPLE_BUDGET))?.option("--quiet");
    let flood = flood.start(asking(&["flood", SERVER, "flood.example.net", "6"]))?;
    until_flooded(&names)?;
    let new: Vec<String> = (0..20).map(|number| format!("n{number}.example.com")).collect();
    names.server.reply_below("example.com", [Reply::addresses(60, &[public_v4(2)])])?;
    let words: Vec<&str> = ["names", SERVER].into_iter().chain(new.iter().map(String::as_str)).collect();
    for told in names.ask(&policy::allowing(&["*.example.com"], ""), &words)? {
        told.expect_addresses(&[public_v4(2)])?;
        ensure!(told.seconds < 2.0, "{told:?}");
    }
    flood.finish()?.expect_success()
}

#[test]
fn a_flood_for_refused_names_is_recorded_within_bounds() -> Result<()> {
    let names = Names::new()?;
    let policy = policy::allowing(policy::NOTHING, "");
    let outcome = names.under(&policy)?.run(asking(&["flood", SERVER, "evil.example.net", "2"]))?;
    outcome.expect_success()?;
    ensure!(outcome.finished.stderr.len() < 64 << 10, "a summary of {} bytes", outcome.finished.stderr.len());
    names.server.expect_no_question("evil.example.net")
}

fn until_flooded(names: &Names) -> Result<()> {
    egress_tests::deadline::until("a flood", egress_tests::deadline::SOON, || {
        Ok((names.server.seen().len() > 20).then_some(()))
    })
}
