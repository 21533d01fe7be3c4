//! Which questions are asked and which are refused, with the reason.

use anyhow::{Context as _, Result, ensure};
use egress_tests::{
    egress::{Egress, Governed},
    names::{API, Names, asking, script, told},
    network::{public_v4, public_v6},
    policy,
    servers::misbehaving::{Reply, https_data},
};

const SERVER: &str = "203.0.113.53";

#[test]
fn a_name_without_a_rule_is_refused_with_the_way_to_allow_it() -> Result<()> {
    let names = Names::new()?;
    let policy = policy::allowing(&[API], "");
    for how in ["udp", "tcp"] {
        let told = names.ask_once(&policy, &[how, SERVER, "evil.example.net"])?;
        told.expect_refusal()?;
        let text = told.text.context("no text")?;
        for expected in ["test", "evil.example.net", "allow"] {
            ensure!(text.contains(expected), "no `{expected}` in `{text}`");
        }
    }
    let dig = names.under(&policy)?.run(["dig", "evil.example.net"])?;
    for expected in ["status: REFUSED", "EDE: 15 (Blocked)", "evil.example.net"] {
        ensure!(dig.finished.stdout.contains(expected), "no `{expected}`: {}", dig.finished.stdout);
    }
    // Who does not speak EDNS gets none.
    let told = names.ask_once(&policy, &["udp", SERVER, "evil.example.net", "A", "noedns"])?;
    ensure!(told.code == Some(5) && told.ede.is_none(), "{told:?}");
    names.server.expect_no_question("evil.example.net")
}

#[test]
fn a_policy_may_say_that_refused_names_do_not_exist() -> Result<()> {
    let names = Names::new()?;
    let policy = policy::allowing(&[API], "dns: {refuse: nxdomain}\n");
    let told = names.ask_once(&policy, &["udp", SERVER, "evil.example.net"])?;
    ensure!(told.code == Some(3) && told.ede == Some(15), "{told:?}");
    names.server.expect_no_question("evil.example.net")
}

#[test]
fn a_wildcard_admits_what_is_below_and_stops_at_label_boundaries() -> Result<()> {
    let names = Names::new()?;
    names.server.reply_below("com", [Reply::addresses(60, &[public_v4(3)])])?;
    names.server.reply_below("net", [Reply::addresses(60, &[public_v4(3)])])?;
    let cases = [
        ("a.example.com", true),
        ("a.b.c.d.example.com", true),
        ("A.eXample.COM", true),
        ("example.com", false),
        ("badexample.com", false),
        ("a.badexample.com", false),
        ("example.com.evil.net", false),
        ("a.example.com.evil.net", false),
        ("com", false),
    ];
    let words: Vec<&str> = ["names", SERVER].into_iter().chain(cases.iter().map(|(name, _)| *name)).collect();
    let all = names.ask(&policy::allowing(&["*.example.com"], ""), &words)?;
    ensure!(all.len() == cases.len(), "{all:?}");
    for (told, (name, is_allowed)) in all.iter().zip(cases) {
        if is_allowed {
            told.expect_addresses(&[public_v4(3)]).context(name)?;
        } else {
            told.expect_refusal().context(name)?;
        }
    }
    names.server.expect_no_question("evil.net")?;
    names.server.expect_no_question("badexample.com")
}

#[test]
fn the_spelling_of_a_question_comes_back() -> Result<()> {
    let names = Names::new()?;
    for (name, rule) in [("aPi.ExaMPle.cOM", API), ("X.eXampLe.com", "*.example.com")] {
        names.server.reply("x.example.com", [Reply::addresses(60, &[public_v4(1)])])?;
        let told = names.ask_once(&policy::allowing(&[rule], ""), &["udp", SERVER, name])?;
        told.expect_addresses(&[public_v4(1)])?;
        ensure!(told.name.as_deref() == Some(name), "{told:?}");
        ensure!(told.records.iter().all(|(owner, ..)| owner == name), "{told:?}");
    }
    Ok(())
}

#[test]
fn only_harmless_types_are_asked_unless_the_policy_lists_others() -> Result<()> {
    let names = Names::new()?;
    let refused = ["TXT", "MX", "NS", "SOA", "SRV", "NULL", "ANY", "AXFR", "99", "256", "65399"];
    let all = names.ask(&policy::allowing(&[API], ""), &[&["types", SERVER, API], &refused[..]].concat())?;
    for (told, kind) in all.iter().zip(refused) {
        told.expect_refusal().context(kind)?;
    }
    let types = names.server.seen();
    ensure!(types.iter().all(|seen| [1, 28].contains(&seen.kind)), "{types:?}");

    names.server.reply("txt.example.com", [Reply::bytes(60, 16, b"\x05hello")])?;
    let with_txt = policy::allowing(&["txt.example.com"], "dns: {types: [A, AAAA, TXT]}\n");
    let told = names.ask_once(&with_txt, &["udp", SERVER, "txt.example.com", "TXT"])?;
    ensure!(told.records.iter().any(|(_, kind, data)| *kind == 16 && data == "0568656c6c6f"), "{told:?}");
    names.ask_once(&with_txt, &["udp", SERVER, "txt.example.com", "HTTPS"])?.expect_refusal()
}

#[test]
fn keys_and_address_hints_are_taken_out_of_https_records() -> Result<()> {
    let names = Names::new()?;
    let data = https_data([198, 20, 1, 1].into(), "2c0f:fff0::1:1".parse()?, b"a key");
    names.server.reply("web.example.com", [Reply::bytes(60, 65, &data)])?;
    let told =
        names.ask_once(&policy::allowing(&["web.example.com"], ""), &["udp", SERVER, "web.example.com", "HTTPS"])?;
    let [(_, 65, found)] = told.records.as_slice() else { anyhow::bail!("{told:?}") };
    // Priority, target, ALPN and port stay.
    ensure!(found == "0001000001000602683202683300030002 01bb".replace(' ', "").as_str(), "{told:?}");
    Ok(())
}

#[test]
fn the_name_of_an_address_is_told_where_the_address_may_be_reached() -> Result<()> {
    let names = Names::new()?;
    let text = "\"$@\" udp 203.0.113.53 api.example.com; \"$@\" udp 203.0.113.53 1.1.20.198.in-addr.arpa PTR; \
                  \"$@\" udp 203.0.113.53 9.1.20.198.in-addr.arpa PTR";
    let outcome = names.under(&policy::allowing(&[API], ""))?.run(script(text, policy::NOTHING))?;
    let all = told(&outcome)?;
    let [address, known, unknown] = all.as_slice() else { anyhow::bail!("{all:?}") };
    address.expect_addresses(&[public_v4(1)])?;
    ensure!(known.code == Some(0) && known.records.len() == 1, "{known:?}");
    unknown.expect_refusal()?;
    names.server.expect_no_question("arpa")
}

#[test]
fn two_workloads_with_different_policies_ask_for_one_name_at_once() -> Result<()> {
    let names = Names::new()?;
    let go = names.network.client.directory().join("go");
    let text = format!(
        "echo ready >&2; while [ ! -e '{}' ]; do sleep 0.02; done; for n in 1 2 3 4 5; do \"$@\"; done",
        go.display()
    );
    let start = |allow: &str| -> Result<Governed> {
        let run: Egress<'_> = names.under(&policy::allowing(&[allow], ""))?;
        run.start(script(&text, &["udp", SERVER, API]))
    };
    let (allowed, refused) = (start("*.example.com")?, start("api.example.net")?);
    std::fs::write(&go, "").context("let the commands go on")?;
    let (allowed, refused) = (told(&allowed.finish()?)?, told(&refused.finish()?)?);
    ensure!(allowed.len() == 5 && refused.len() == 5, "{allowed:?} {refused:?}");
    for (allowed, refused) in allowed.iter().zip(&refused) {
        allowed.expect_addresses(&[public_v4(1)])?;
        refused.expect_refusal()?;
    }
    Ok(())
}

#[test]
fn a_question_for_each_family_gets_that_family() -> Result<()> {
    let names = Names::new()?;
    for (kind, address) in [("A", public_v4(1)), ("AAAA", public_v6(1))] {
        let told = names.ask_once(&policy::allowing(&[API], ""), &["udp", SERVER, API, kind])?;
        told.expect_addresses(&[address])?;
    }
    Ok(())
}

#[test]
fn an_audited_workload_is_answered_and_what_would_be_refused_is_recorded() -> Result<()> {
    let names = Names::new()?;
    names.server.reply("other.example.net", [Reply::addresses(60, &[public_v4(4)])])?;
    let outcome =
        names.under(&policy::allowing(&[API], "mode: audit\n"))?.run(asking(&["udp", SERVER, "other.example.net"]))?;
    let all = told(&outcome)?;
    all.first().context("nothing told")?.expect_addresses(&[public_v4(4)])?;
    let questions = outcome.questions()?;
    let recorded =
        questions.iter().any(|question| question.name == "other.example.net" && question.reason == "no_rule");
    ensure!(recorded, "{questions:#?}");
    Ok(())
}
