//! The two deciders agree, and the way from one compiled policy to the next is safe at every step.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use egress_common::{Decision, Reason, Verdict};
use egress_user::{
    compile::{Changes, CompiledPolicy, Shortcut, Step, compile, diff},
    policy::{DomainName, Known, Policy},
    testing::{Case, Replacement, cases, replacements, sequences},
};
use proptest::{prelude::*, strategy::ValueTree as _, test_runner::TestRunner};

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn the_two_deciders_agree_on_verdict_and_reason(case in cases()) {
        let Case { policy, known, now_seconds, flows } = case;
        let compiled = compile(&policy, &known).unwrap();
        for flow in flows {
            let expected = policy.allows(&flow, &known, now_seconds);
            prop_assert_eq!(compiled.decide(&flow, now_seconds), expected, "{:?}", flow);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn the_same_policy_has_the_same_bytes(case in cases()) {
        let (policy, known) = (case.policy.clone(), case.known.clone());
        prop_assert_eq!(bytes(&compile(&policy, &known).unwrap()), bytes(&compile(&case.policy, &case.known).unwrap()));
    }

}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn a_new_policy_in_the_same_slot_is_safe_at_every_step(replacement in replacements()) {
        let Replacement { case, policy, known } = replacement;
        check_update(&case, &policy, &known)?;
    }

    #[test]
    fn new_addresses_of_the_same_policy_are_safe_at_every_step(replacement in replacements()) {
        let Replacement { case, policy: _, known } = replacement;
        check_update(&case, &case.policy.clone(), &known)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn the_shortcut_comes_to_what_compiling_everything_comes_to((policy, knowns) in sequences()) {
        follow(&policy, &knowns)?;
    }
}

#[test]
fn the_shortcut_is_taken_most_of_the_time() {
    let mut runner = TestRunner::deterministic();
    let (mut taken, mut all) = (0, 0);
    for _ in 0..200 {
        let (policy, knowns) = sequences().new_tree(&mut runner).unwrap().current();
        taken += follow(&policy, &knowns).unwrap();
        all += knowns.len() - 1;
    }
    assert!(taken * 2 > all && taken < all, "{taken} of {all}");
}

/// Goes from one state of knowledge to the next, by the shortcut where there is one, and says how often there was.
fn follow(policy: &Policy, knowns: &[Known]) -> Result<usize, TestCaseError> {
    let mut current = compile(policy, &knowns[0]).unwrap();
    let mut shortcut = Shortcut::new(policy);
    let mut taken = 0;
    for pair in knowns.windows(2) {
        let (before, after) = (owners(&pair[0]), owners(&pair[1]));
        let touched: BTreeSet<IpAddr> = before.keys().chain(after.keys()).copied().collect();
        let of = |address: IpAddr| after.get(&address).into_iter().flatten().map(|(name, end)| (*name, *end));
        let expected = compile(policy, &pair[1]).unwrap();
        let named = touched.into_iter().map(|address| (address, of(address)));
        if let Some(changes) = shortcut.changes(&current, named) {
            taken += 1;
            changes.apply(&mut current);
            let Changes { steps } = changes;
            let is_address = |step: &Step| matches!(step, Step::PutAddress(..) | Step::RemoveAddress(_));
            prop_assert!(steps.iter().all(is_address), "{steps:?}");
        } else {
            shortcut.forget_places();
            current = diff(&current, expected.clone(), 0).unwrap().policy;
        }
        prop_assert_eq!(entries(&current), entries(&expected));
    }
    Ok(taken)
}

/// The names of each address, with the time at which it ends for them.
fn owners(known: &Known) -> BTreeMap<IpAddr, Vec<(&DomainName, u32)>> {
    let mut owners: BTreeMap<IpAddr, Vec<_>> = BTreeMap::new();
    for (name, addresses) in &known.addresses {
        for (address, end) in addresses {
            owners.entry(address.to_canonical()).or_default().push((name, *end));
        }
    }
    owners
}

/// Follows the steps from the case's policy to the next one, and asks about every flow after each of them.
fn check_update(case: &Case, policy: &Policy, known: &Known) -> Result<(), TestCaseError> {
    let now = case.now_seconds;
    let old = compile(&case.policy, &case.known).unwrap();
    let new = compile(policy, known).unwrap();
    let update = diff(&old, new.clone(), now).unwrap();

    let flows = case.flows.iter();
    let verdicts = flows.map(|flow| (flow, old.decide(flow, now).verdict, new.decide(flow, now).verdict));
    let unchanged: Vec<_> = verdicts.filter(|(_, before, after)| before == after).collect();
    let mut current = old.clone();
    for step in &update.changes.steps {
        if let Step::PutPortSet(index, _) = step {
            let mut entries = current.addresses.values().chain(current.networks.values());
            prop_assert!(entries.all(|entry| entry.port_set != *index), "overwrites a port set in use");
        }
        step.apply(&mut current);
        for (flow, verdict, _) in &unchanged {
            prop_assert_eq!(current.decide(flow, now).verdict, *verdict, "{:?} after {:?}", flow, step);
        }
    }
    prop_assert_eq!(&current, &update.policy);
    prop_assert_eq!(entries(&current), entries(&new));
    let again = diff(&update.policy, new, now).unwrap();
    prop_assert!(again.changes.steps.is_empty(), "a second update still has {} steps", again.changes.steps.len());
    Ok(())
}

#[test]
fn a_healthy_share_of_the_cases_is_allowed() {
    let mut runner = TestRunner::deterministic();
    let mut decisions: Vec<Decision> = Vec::new();
    for _ in 0..300 {
        let Case { policy, known, now_seconds, flows } = cases().new_tree(&mut runner).unwrap().current();
        decisions.extend(flows.iter().map(|flow| policy.allows(flow, &known, now_seconds)));
    }
    let per_mille = |wanted: &dyn Fn(&Decision) -> bool| {
        1_000 * decisions.iter().filter(|decision| wanted(decision)).count() / decisions.len()
    };
    let allowed = per_mille(&|decision| decision.verdict == Verdict::Allow);
    assert!((200..=800).contains(&allowed), "{allowed} ‰ of the cases are allowed");
    for reason in [
        Reason::BlockedPort,
        Reason::PortNotAllowed,
        Reason::SpecialPurpose,
        Reason::Tier,
        Reason::Expired,
        Reason::NoRule,
    ] {
        let refused = per_mille(&|decision| decision.reason == reason);
        assert!(refused >= 5, "{refused} ‰ of the cases are refused with {reason:?}");
    }
}

/// Every byte of the maps.
fn bytes(policy: &CompiledPolicy) -> Vec<u8> {
    let mut bytes = bytemuck::bytes_of(&*policy.policy).to_vec();
    bytes.extend_from_slice(bytemuck::cast_slice(&policy.port_sets));
    for (address, entry) in &policy.addresses {
        bytes.extend_from_slice(bytemuck::bytes_of(address));
        bytes.extend_from_slice(bytemuck::bytes_of(entry));
    }
    for (prefix, entry) in &policy.networks {
        bytes.extend_from_slice(bytemuck::bytes_of(&prefix.address));
        bytes.push(prefix.length);
        bytes.extend_from_slice(bytemuck::bytes_of(entry));
    }
    bytes
}

/// Every entry with the ports that it names, whatever their index.
fn entries(policy: &CompiledPolicy) -> Vec<(String, u32, u8, Vec<u8>)> {
    let addresses = policy.addresses.iter().map(|(address, entry)| (format!("{address:?}"), entry));
    let networks = policy.networks.iter().map(|(prefix, entry)| (format!("{prefix:?}"), entry));
    addresses
        .chain(networks)
        .map(|(key, entry)| {
            let ports = bytemuck::bytes_of(&policy.port_sets[usize::from(entry.port_set)]).to_vec();
            (key, entry.expires_at, entry.otherwise, ports)
        })
        .collect()
}
