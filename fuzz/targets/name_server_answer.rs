//! A name server's answer: what is released of it, and the replies with that.
#![no_main]

use std::sync::LazyLock;

use egress_user::{
    dns::invariants,
    policy::{self, Policy},
};
use libfuzzer_sys::{Corpus, fuzz_target};

static POLICY: LazyLock<Policy> =
    LazyLock::new(|| policy::parse("dns.yaml", include_bytes!("../dns.yaml")).expect("a policy without problems"));

fuzz_target!(|bytes: &[u8]| -> Corpus {
    if invariants::hold_for_name_server_answer(&POLICY, bytes) { Corpus::Keep } else { Corpus::Reject }
});
