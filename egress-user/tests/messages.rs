//! What must hold for any message: for the seeds of the fuzz targets, for what a few changes make of them, and for any
//! bytes. `cargo xtask fuzz` looks much further.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{fs, path::Path, sync::LazyLock};

use egress_user::{
    dns::invariants,
    policy::{self, Policy},
};
use proptest::{
    collection::vec,
    prelude::*,
    sample::{Index, select},
};

static POLICY: LazyLock<Policy> =
    LazyLock::new(|| policy::parse("dns.yaml", include_bytes!("../../fuzz/dns.yaml")).unwrap());

/// One change to a seed.
#[derive(Clone, Debug)]
enum Change {
    Put(Index, u8),
    Insert(Index, u8),
    Remove(Index),
    Cut(Index),
    Repeat(Index, Index),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let length = bytes.len();
        match self {
            Self::Put(at, byte) => bytes.splice(at.index(length)..=at.index(length), [*byte]).for_each(drop),
            Self::Insert(at, byte) => bytes.insert(at.index(length), *byte),
            Self::Remove(at) => drop(bytes.remove(at.index(length))),
            Self::Cut(at) => bytes.truncate(at.index(length)),
            Self::Repeat(from, to) => {
                let tail: Vec<u8> = bytes.iter().copied().skip(from.index(length)).collect();
                bytes.splice(to.index(length).., tail).for_each(drop);
            }
        }
    }
}

#[test]
fn every_seed_holds() {
    for seed in seeds("client_message") {
        invariants::hold_for_client_message(&POLICY, &seed);
    }
    for seed in seeds("name_server_answer") {
        assert!(invariants::hold_for_name_server_answer(&POLICY, &seed), "{seed:02x?} is no answer");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn changed_messages_of_clients_are_answered_or_not(bytes in changed("client_message")) {
        invariants::hold_for_client_message(&POLICY, &bytes);
    }

    #[test]
    fn changed_answers_of_name_servers_release_nothing_else(bytes in changed("name_server_answer")) {
        invariants::hold_for_name_server_answer(&POLICY, &bytes);
    }

    #[test]
    fn any_bytes_will_do(bytes in vec(any::<u8>(), 0..600)) {
        invariants::hold_for_client_message(&POLICY, &bytes);
        invariants::hold_for_name_server_answer(&POLICY, &bytes);
    }
}

fn changed(target: &str) -> impl Strategy<Value = Vec<u8>> + use<> {
    let byte = prop_oneof![any::<u8>(), select(vec![0, 1, 12, 63, 64, 0xc0, 0xff])];
    let change = prop_oneof![
        4 => (any::<Index>(), byte.clone()).prop_map(|(at, byte)| Change::Put(at, byte)),
        2 => (any::<Index>(), byte).prop_map(|(at, byte)| Change::Insert(at, byte)),
        2 => any::<Index>().prop_map(Change::Remove),
        1 => any::<Index>().prop_map(Change::Cut),
        1 => any::<(Index, Index)>().prop_map(|(from, to)| Change::Repeat(from, to)),
    ];
    (select(seeds(target)), vec(change, 0..6)).prop_map(|(mut bytes, changes)| {
        for change in changes {
            change.apply(&mut bytes);
        }
        bytes
    })
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() > 5, "the seeds were not found");
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}
