//! Programs of every kind find the addresses of a name, whatever name server they ask and however they ask it.

use std::ffi::OsString;

use anyhow::{Context as _, Result, ensure};
use egress_tests::{
    clients,
    names::{API, ASKED, ASKED_V6, Names},
    policy,
};

/// Runs each of these commands under a policy that allows the name, and expects both of its addresses, and that nothing
/// went to the name servers that the commands believe to ask.
fn expect_addresses(commands: &[Vec<OsString>], expected: &[&str]) -> Result<()> {
    let names = Names::new()?;
    let wire = names.network.watch()?;
    for command in commands {
        let outcome = names.under(&policy::allowing(&[API], ""))?.run(command)?;
        outcome.expect_success().with_context(|| format!("{command:?}"))?;
        for address in expected {
            ensure!(outcome.finished.stdout.contains(address), "{command:?} found no {address}: {outcome:?}");
        }
        // And a name that no rule allows is none.
        let other: Vec<OsString> = command.iter().map(replaced).collect();
        let outcome = names.under(&policy::allowing(&[API], ""))?.run(&other)?;
        for address in expected {
            ensure!(!outcome.finished.stdout.contains(address), "{other:?} found {address}: {outcome:?}");
        }
    }
    names.server.expect_no_question("evil.example.com")?;
    wire.expect_nothing_to(ASKED)?;
    wire.expect_nothing_to(ASKED_V6)
}

fn replaced(word: &OsString) -> OsString {
    if word == API { "evil.example.com".into() } else { word.clone() }
}

fn words(text: &str) -> Vec<OsString> {
    text.split_whitespace().map(OsString::from).collect()
}

const BOTH: &[&str] = &["198.20.1.1", "2c0f:fff0::1:1"];

#[test]
fn the_gnu_c_library_finds_them_with_every_option_of_its_resolver() -> Result<()> {
    let options = ["edns0", "use-vc", "single-request", "single-request-reopen", "trust-ad", "use-vc edns0"];
    let commands: Vec<Vec<OsString>> = options
        .iter()
        .map(|options| {
            [words("env"), vec![format!("RES_OPTIONS={options}").into()], words("getent ahosts api.example.com")]
                .concat()
        })
        .collect();
    expect_addresses(&commands, BOTH)
}

#[test]
fn musl_finds_them() -> Result<()> {
    expect_addresses(&[vec![clients::musl()?.into(), API.into()]], BOTH)
}

#[test]
fn go_finds_them_with_its_own_resolver() -> Result<()> {
    expect_addresses(&[vec![clients::go()?.into(), API.into()]], BOTH)
}

#[test]
fn node_finds_them_through_the_c_library_and_through_its_own_resolver() -> Result<()> {
    let commands = ["lookup", "resolve"].map(|how| [clients::node(how), vec![API.into()]].concat());
    expect_addresses(&commands, BOTH)
}

#[test]
fn python_finds_them() -> Result<()> {
    let program = "import socket, sys; print(*{found[4][0] for found in socket.getaddrinfo(sys.argv[1], 443)})";
    expect_addresses(&[vec!["python3".into(), "-c".into(), program.into(), API.into()]], BOTH)
}

#[test]
fn busybox_finds_them() -> Result<()> {
    let commands = [words("busybox nslookup api.example.com"), words("busybox nslookup api.example.com 198.51.100.7")];
    expect_addresses(&commands, BOTH)
}

#[test]
fn host_finds_them_over_both_transports() -> Result<()> {
    // Without a type it asks for mail servers too, which is refused.
    for (kind, address) in [("A", "198.20.1.1"), ("AAAA", "2c0f:fff0::1:1")] {
        let commands = [
            words(&format!("host -t {kind} api.example.com")),
            words(&format!("host -T -t {kind} api.example.com 198.51.100.7")),
        ];
        expect_addresses(&commands, &[address])?;
    }
    Ok(())
}

#[test]
fn dig_finds_them_and_sees_the_server_that_it_asked() -> Result<()> {
    for (server, options) in [
        ("203.0.113.53", ""),
        ("203.0.113.53", "+tcp"),
        ("203.0.113.53", "+noedns"),
        ("203.0.113.53", "+nocookie"),
        ("203.0.113.53", "+dnssec"),
        ("203.0.113.53", "+bufsize=4096"),
        ("198.51.100.7", "+notcp"),
        ("2001:db8::53", "+notcp"),
        ("2001:db8::53", "+tcp"),
        ("8.8.8.8", "-b 198.20.0.1"),
    ] {
        let text = format!("dig @{server} api.example.com A {options} +tries=1");
        let names = Names::new()?;
        let outcome = names.under(&policy::allowing(&[API], ""))?.run(words(&text))?;
        outcome.expect_success().with_context(|| text.clone())?;
        let found = &outcome.finished.stdout;
        for expected in ["status: NOERROR", "198.20.1.1", &format!(";; SERVER: {server}#53")] {
            ensure!(found.contains(expected), "no `{expected}` from `{text}`: {found}");
        }
        ensure!(!found.contains("WARNING") && !found.contains("unexpected source"), "`{text}`: {found}");
    }
    Ok(())
}

#[test]
fn curl_connects_right_after_it_asked() -> Result<()> {
    use egress_tests::{network::public_v4, servers::https::Https};
    let names = Names::new()?;
    let https = Https::start(&names.network.world, &[API], &[(public_v4(1), 443).into()])?;
    for policy in [policy::allowing(&["api.example.com:443"], ""), policy::allowing(&["*.example.com:443"], "")] {
        let outcome = names.under(&policy)?.run(https.curl(&["--ipv4", "https://api.example.com/"]))?;
        outcome.expect_success().context(policy)?;
        ensure!(outcome.refusals()?.is_empty(), "{:?}", outcome.refusals()?);
    }
    Ok(())
}
