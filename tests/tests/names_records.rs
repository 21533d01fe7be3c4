//! Every question is on record, refused names are in the summary, and `explain` says what a name is now.

use anyhow::{Context as _, Result, ensure};
use egress_tests::{
    egress,
    names::{API, ASKED, Names, asking, script},
    network::{DNS_V4, private_v4, public_v4},
    policy,
    servers::misbehaving::Reply,
};

const SERVER: &str = "203.0.113.53";

#[test]
fn every_question_is_on_record() -> Result<()> {
    let names = Names::new()?;
    names.server.reply("cdn.example.com", [Reply::chain(60, &["edge.example.net"], &[public_v4(2)])?])?;
    let policy = policy::allowing(&["*.example.com"], "");
    let words = ["names", SERVER, API, "CDN.example.com", "evil.example.net", "missing.example.com", API];
    let outcome = names.under(&policy)?.run(asking(&words))?;
    outcome.expect_success()?;
    let questions = outcome.questions()?;
    let cgroup = names.network.client.cgroup.directory().file_name().context("a cgroup without a name")?;
    let expected = [
        (API, "allow", "NOERROR", "upstream", vec![public_v4(1)], vec![]),
        ("CDN.example.com", "allow", "NOERROR", "upstream", vec![public_v4(2)], vec!["edge.example.net"]),
        ("evil.example.net", "deny", "REFUSED", "policy", vec![], vec![]),
        ("missing.example.com", "allow", "NXDOMAIN", "upstream", vec![], vec![]),
        (API, "allow", "NOERROR", "cache", vec![public_v4(1)], vec![]),
    ];
    ensure!(questions.len() == expected.len(), "{questions:#?}");
    for (question, (name, verdict, code, source, addresses, cnames)) in questions.iter().zip(expected) {
        ensure!(question.time.contains('T') && question.time.ends_with('Z'), "{question:?}");
        ensure!(question.cgroup.contains(&*cgroup.to_string_lossy()), "{question:?}");
        ensure!(question.pid > 1 && question.command.starts_with("python3"), "{question:?}");
        ensure!(question.server.ip() == ASKED && question.server.port() == 53, "{question:?}");
        ensure!((question.transport.as_str(), question.record_type.as_str()) == ("udp", "A"), "{question:?}");
        ensure!((question.name.as_str(), question.verdict.as_str()) == (name, verdict), "{question:?}");
        ensure!((question.code.as_str(), question.source.as_str()) == (code, source), "{question:?}");
        ensure!(question.addresses == addresses && question.cnames == cnames, "{question:?}");
        ensure!(question.upstream_ms.is_some() == (source == "upstream"), "{question:?}");
        ensure!(question.reason == if verdict == "deny" { "no_rule" } else { "rule" }, "{question:?}");
    }
    Ok(())
}

#[test]
fn refused_names_are_in_the_summary_and_in_the_file_of_refusals() -> Result<()> {
    let names = Names::new()?;
    let text = "\"$@\" > /dev/null; tries=0
        until grep -q evil.example.net \"$EGRESS_REFUSALS\" || [ $tries -gt 200 ]; do
            sleep 0.02; tries=$((tries + 1))
        done
        cat \"$EGRESS_REFUSALS\"";
    let words = ["names", SERVER, "evil.example.net", "evil.example.net", API];
    let outcome = names.under(&policy::allowing(&[API], ""))?.run(script(text, &words))?;
    outcome.expect_success()?;
    for expected in ["evil.example.net", "no_rule"] {
        ensure!(outcome.finished.stderr.contains(expected), "no `{expected}` in {}", outcome.finished.stderr);
    }
    let line = outcome.finished.stdout.lines().find(|line| line.contains("evil.example.net"));
    let refusal: serde_json::Value = serde_json::from_str(line.context("no refusal in the file")?)?;
    ensure!(refusal.get("reason").is_some_and(|reason| reason == "no_rule"), "{refusal}");
    Ok(())
}

#[test]
fn withheld_addresses_are_on_record_with_the_reason() -> Result<()> {
    let names = Names::new()?;
    names.server.reply("rebind.example.com", [Reply::addresses(60, &[private_v4(1)])])?;
    let outcome =
        names.under(&policy::allowing(&["*.example.com"], ""))?.run(asking(&["udp", SERVER, "rebind.example.com"]))?;
    outcome.expect_success()?;
    let questions = outcome.questions()?;
    let [question] = questions.as_slice() else { anyhow::bail!("{questions:#?}") };
    ensure!(question.addresses.is_empty() && question.verdict == "deny", "{question:?}");
    ensure!(outcome.finished.stderr.contains("rebind.example.com"), "{}", outcome.finished.stderr);
    Ok(())
}

#[test]
fn explain_tells_what_a_name_resolves_to_and_which_rule_admits_it() -> Result<()> {
    let names = Names::new()?;
    names.network.client.ask(&[DNS_V4])?;
    let path = names.network.client.directory().join("policy.yaml");
    std::fs::write(&path, policy::allowing(&["*.example.com:443"], "")).context("write a policy")?;
    let explain = |name: &str| {
        let command = names.network.client.command(egress::binary()?).args(["explain", "--policy"]).arg(&path);
        command.arg(name).finish()
    };
    let allowed = explain(API)?;
    for expected in ["*.example.com", "198.20.1.1", "2c0f:fff0::1:1", "60"] {
        ensure!(allowed.stdout.contains(expected), "no `{expected}` in {allowed:?}");
    }
    let refused = explain("api.example.net")?;
    ensure!(!refused.stdout.contains("198.20.1.1"), "{refused:?}");
    names.server.expect_no_question("example.net")
}
