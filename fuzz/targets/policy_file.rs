//! A policy file: read, shown, and read again as the same policy.
#![no_main]

use egress_user::policy;
use libfuzzer_sys::{Corpus, fuzz_target};

fuzz_target!(|bytes: &[u8]| -> Corpus {
    let Ok(policy) = policy::parse("policy.yaml", bytes) else { return Corpus::Keep };
    let shown = policy::show(&policy);
    let again = policy::parse("shown.yaml", shown.as_bytes());
    assert_eq!(again.as_ref().ok(), Some(&policy), "{shown}");
    Corpus::Keep
});
