//! What a name resolves to now, and what a workload would get to hear of it.

use std::collections::BTreeSet;

use anyhow::Context as _;

use crate::{
    dns::{
        question::{Asked, Outcome},
        release::{self, Release},
        upstream::Upstream,
    },
    policy::{DomainName, NameServer, Policy, RecordType},
};

/// Asks the name servers as the proxy does, and puts what the policy lets through into lines.
pub(super) fn lines(policy: &Policy, name: &DomainName, servers: &[NameServer]) -> anyhow::Result<Vec<String>> {
    if policy.admits(name).is_none() {
        return Ok(vec![format!("{name} is not asked for: no rule is about it")]);
    }
    let upstream = Upstream::new(servers)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")?;
    let question = |kind| Asked { name: name.clone(), kind };
    let (v4, v6) = (question(RecordType::A), question(RecordType::AAAA));
    let (v4_outcome, v6_outcome) = runtime.block_on(async { tokio::join!(upstream.ask(&v4), upstream.ask(&v6)) });
    let outcomes = [(v4, v4_outcome), (v6, v6_outcome)];
    let wanted = outcomes.into_iter().filter(|(asked, _)| policy.dns.types.contains(&asked.kind));
    Ok(describe(policy, name, wanted.collect()))
}

fn describe(policy: &Policy, name: &DomainName, outcomes: Vec<(Asked, Outcome)>) -> Vec<String> {
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    for (asked, outcome) in outcomes {
        match outcome.answer {
            Ok(answer) => found.push(release::release(policy, &asked, &answer)),
            Err(why) => failures.push(format!("  {}: {why}", asked.kind)),
        }
    }
    let aliases: BTreeSet<&str> = found.iter().flat_map(|release| &release.aliases).map(String::as_str).collect();
    let through = if aliases.is_empty() {
        String::new()
    } else {
        format!(", through {},", aliases.into_iter().collect::<Vec<_>>().join(" and "))
    };
    let grace = policy.dns.grace_seconds;
    let addresses = found.iter().flat_map(|release| &release.addresses);
    let addresses = addresses.map(|(address, ttl)| format!("  {address}, for {ttl} s and {grace} s of grace"));
    let withheld = found.iter().flat_map(|release| &release.withheld);
    let withheld = withheld.map(|withheld| format!("  {withheld} is withheld: a name does not open it"));
    let mut lines: Vec<String> = addresses.chain(withheld).chain(failures).collect();
    if lines.is_empty() {
        let exists = found.iter().any(|Release { exists, .. }| *exists);
        lines.push(if exists { "  no addresses" } else { "  no such name" }.to_owned());
    }
    lines.insert(0, format!("{name} resolves now{through} to:"));
    lines
}
