//! A client's message: read, decided about, answered in every way.
#![no_main]

use std::sync::LazyLock;

use egress_user::{
    dns::invariants,
    policy::{self, Policy},
};
use libfuzzer_sys::fuzz_target;

static POLICY: LazyLock<Policy> =
    LazyLock::new(|| policy::parse("dns.yaml", include_bytes!("../dns.yaml")).expect("a policy without problems"));

fuzz_target!(|bytes: &[u8]| invariants::hold_for_client_message(&POLICY, bytes));
