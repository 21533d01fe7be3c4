//! Questions reach us on every kind of socket, and answers come back as from the server that was asked.

use std::{ffi::OsString, net::IpAddr};

use anyhow::{Context as _, Result, ensure};
use egress_tests::{
    egress::binary,
    names::{API, ASKED, ASKED_V6, Names, asking, script, told},
    network::{CLIENT_V4, mapped, public_v4, public_v6},
    policy,
    servers::misbehaving::Reply,
};

fn allowing_api() -> String {
    policy::allowing(&[API], "")
}

#[test]
fn answers_come_from_the_address_that_was_asked() -> Result<()> {
    let names = Names::new()?;
    for server in [ASKED, ASKED_V6] {
        let server_text = server.to_string();
        for (how, is_connected) in [("udp", false), ("connected", true), ("tcp", true)] {
            let told = names.ask_once(&allowing_api(), &[how, &server_text, API])?;
            told.expect_addresses(&[public_v4(1)]).with_context(|| format!("{how} {server}"))?;
            if is_connected {
                ensure!(told.peer == Some((server, 53)), "`getpeername` of {how} {server}: {told:?}");
            }
            if how != "tcp" {
                ensure!(told.from == Some((server, 53)), "the source of {how} {server}: {told:?}");
            }
        }
    }
    Ok(())
}

#[test]
fn an_ipv6_socket_may_ask_an_ipv4_server() -> Result<()> {
    let names = Names::new()?;
    for options in [&[][..], &["connected"]] {
        let told = names.ask_once(&allowing_api(), &[&["mapped", "203.0.113.53", API], options].concat())?;
        told.expect_addresses(&[public_v4(1)])?;
        ensure!(told.from == Some((mapped(ASKED), 53)), "{options:?}: {told:?}");
    }
    Ok(())
}

#[test]
fn one_socket_may_ask_two_servers_at_once() -> Result<()> {
    let names = Names::new()?;
    names.server.reply("other.example.com", [Reply::addresses(60, &[public_v4(2)])])?;
    let policy = policy::allowing(&[API, "other.example.com"], "");
    for (one, other) in [("203.0.113.53", "198.51.100.7"), ("2001:db8::53", "2001:db8::54")] {
        let all = names.ask(&policy, &["two_servers", one, other, API, "other.example.com"])?;
        for (id, server, address) in [(1, one, public_v4(1)), (2, other, public_v4(2))] {
            let server: IpAddr = server.parse()?;
            let told = all.iter().find(|told| told.id == id).with_context(|| format!("no answer {id}: {all:?}"))?;
            told.expect_addresses(&[address])?;
            ensure!(told.from == Some((server, 53)), "{told:?}: expected it from {server}");
        }
    }
    Ok(())
}

#[test]
fn one_connection_may_carry_several_questions() -> Result<()> {
    let names = Names::new()?;
    let told = names.ask_once(&allowing_api(), &["tcp", "203.0.113.53", API, "evil.example.com", API])?;
    ensure!(told.all.len() == 3, "{told:?}");
    for answer in &told.all {
        let expected = if answer.id == 2 { (5, 0) } else { (0, 1) };
        ensure!((answer.code, answer.addresses.len()) == (Some(expected.0), expected.1), "{answer:?}");
    }
    Ok(())
}

#[test]
fn no_route_to_the_name_server_is_needed() -> Result<()> {
    let names = Names::new()?;
    let without_routes = [
        format!("route del default via {} dev cable", public_v4(0)),
        format!("route del default via {} dev cable", public_v6(0)),
    ];
    names.network.client.network.ip(&without_routes)?;
    for (how, server) in [("udp", ASKED), ("connected", ASKED), ("tcp", ASKED), ("udp", ASKED_V6), ("tcp", ASKED_V6)] {
        let told = names.ask_once(&allowing_api(), &[how, &server.to_string(), API])?;
        told.expect_addresses(&[public_v4(1)]).with_context(|| format!("{how} {server}"))?;
    }
    Ok(())
}

#[test]
fn a_name_server_on_loopback_or_of_the_machine_itself_is_redirected_too() -> Result<()> {
    let names = Names::new()?;
    for server in ["127.0.0.53", "127.0.0.1", "::1", &CLIENT_V4.to_string()] {
        for how in ["udp", "connected", "tcp"] {
            let told = names.ask_once(&allowing_api(), &[how, server, API])?;
            told.expect_addresses(&[public_v4(1)]).with_context(|| format!("{how} {server}"))?;
        }
    }
    Ok(())
}

#[test]
fn a_socket_bound_to_a_device_is_refused_at_once() -> Result<()> {
    let names = Names::new()?;
    let wire = names.network.watch()?;
    let told = names.ask_once(&allowing_api(), &["device", "203.0.113.53", API, "cable"])?;
    // Either it works or it fails; what it must not do is wait.
    ensure!(told.code == Some(0) || told.error.is_some(), "{told:?}");
    ensure!(told.seconds < 2.0, "{told:?}");
    wire.expect_nothing_to(ASKED)
}

#[test]
fn a_workload_in_a_network_namespace_of_its_own_is_answered() -> Result<()> {
    let names = Names::new()?;
    let text = "ip link set lo up; for how in udp connected tcp; do \"$@\" $how 203.0.113.53 api.example.com; done; \
                  \"$@\" udp 2001:db8::53 api.example.com";
    let words = [vec!["unshare".into(), "--net".into()], script(text, policy::NOTHING)].concat();
    let outcome = names.under(&allowing_api())?.run(words)?;
    let all = told(&outcome)?;
    ensure!(all.len() == 4, "{all:?}");
    for told in &all {
        told.expect_addresses(&[public_v4(1)])?;
    }
    Ok(())
}

#[test]
fn another_network_namespace_that_ends_leaves_the_first_as_it_was() -> Result<()> {
    let names = Names::new()?;
    let text = "unshare --net sh -c 'ip link set lo up; \"$@\"' sh \"$@\" udp 203.0.113.53 api.example.com; \
                  \"$@\" udp 203.0.113.53 api.example.com";
    let outcome = names.under(&allowing_api())?.run(script(text, policy::NOTHING))?;
    let all = told(&outcome)?;
    ensure!(all.len() == 2, "{all:?}");
    for told in &all {
        told.expect_addresses(&[public_v4(1)])?;
    }
    Ok(())
}

#[test]
fn a_run_inside_a_run_resolves_what_both_allow() -> Result<()> {
    let names = Names::new()?;
    names.server.reply("other.example.com", [Reply::addresses(60, &[public_v4(2)])])?;
    let inner = "\"$0\" run --quiet --allow 'api.example.com:443' --allow 'outer.example.org:443' -- \"$@\"";
    for (name, is_allowed) in [(API, true), ("other.example.com", false), ("outer.example.org", false)] {
        let mut command: Vec<OsString> = ["sh", "-c", inner].map(OsString::from).to_vec();
        command.push(binary()?.into());
        command.extend(asking(&["udp", "203.0.113.53", name]));
        let outcome = names.under(&policy::allowing(&["*.example.com"], ""))?.run(command)?;
        let [told] = told(&outcome)?.try_into().map_err(|all| anyhow::anyhow!("{all:?}"))?;
        if is_allowed {
            told.expect_addresses(&[public_v4(1)])?;
            ensure!(told.from == Some((ASKED, 53)), "{told:?}");
        } else {
            ensure!(told.addresses.is_empty() && told.code != Some(0), "{name}: {told:?}");
        }
    }
    names.server.expect_no_question("outer.example.org")
}
