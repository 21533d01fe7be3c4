//! The command line of `egress run`.

use super::*;

#[test]
fn a_name_server_is_an_address_with_or_without_a_port() {
    for (text, expected) in [
        ("192.0.2.53", Some("192.0.2.53:53")),
        ("192.0.2.53:5353", Some("192.0.2.53:5353")),
        ("2001:db8::53", Some("[2001:db8::53]:53")),
        ("[2001:db8::53]", Some("[2001:db8::53]:53")),
        ("[2001:db8::53]:5353", Some("[2001:db8::53]:5353")),
        ("192.0.2.53:0", None),
        ("dns.example", None),
        ("", None),
    ] {
        assert_eq!(name_server(text).ok(), expected.map(|address| address.parse().unwrap()), "{text}");
    }
}

#[test]
fn wildcards_are_refused_by_name() {
    let policy = |rules: &[&str]| {
        let rules: Vec<String> = rules.iter().map(|rule| (*rule).to_owned()).collect();
        policy::from_arguments(&rules, &[]).unwrap()
    };
    assert!(refuse_wildcards(&policy(&["a.example", "10.0.0.0/8"])).is_ok());
    let error = refuse_wildcards(&policy(&["*.a.example:443", "b.example"])).unwrap_err().to_string();
    assert!(error.contains("`*.a.example`") && error.contains("DNS proxy") && !error.contains("b.example"), "{error}");
}
