//! Whatever is wrong with what `egress run` is given: one clear message, the right exit code, nothing left behind, and
//! the command never runs.

use std::{fs, net::SocketAddr};

use anyhow::{Context as _, Result, ensure};
use egress_tests::{
    egress::{self, Egress},
    network::{DNS_V4, Network, public_v4},
    policy,
    servers::{dns::Dns, echo::Echo},
};
use nix::errno::Errno;

/// A failure of `egress run` itself.
const OWN_FAILURE: i32 = 125;

/// Expects that a run fails with one line that contains all of `words`, and that the command never ran.
fn expect_failure(network: &Network, run: Egress<'_>, words: &[&str]) -> Result<()> {
    let witness = network.client.directory().join("witness");
    let outcome = run.run(["touch".as_ref(), witness.as_os_str()])?;
    ensure!(!witness.exists(), "the command ran: {outcome:?}");
    outcome.finished.expect_code(OWN_FAILURE)?;
    let message = &outcome.finished.stderr;
    ensure!(message.starts_with("egress: "), "{message}");
    ensure!(message.len() < 4000, "a message of {} bytes: {message:.200}", message.len());
    ensure!(!message.contains("panicked") && !message.contains("RUST_BACKTRACE"), "{message}");
    for word in words {
        ensure!(message.contains(word), "no `{word}` in: {message}");
    }
    let cgroups = network.client.cgroup.children()?;
    ensure!(cgroups.is_empty(), "left behind: {cgroups:?}");
    let pins = network.client.pins()?;
    ensure!(pins.is_empty(), "left behind: {pins:?}");
    Ok(())
}

#[test]
fn a_policy_with_a_problem_is_reported_with_its_place() -> Result<()> {
    let network = Network::new()?;
    let long_label = format!("{}.example.com", "a".repeat(64));
    let deep = format!("version: {}1{}\n", "[".repeat(10_000), "]".repeat(10_000));
    let bomb = (0..30).fold("a0: &a0 [x]\n".to_owned(), |text, level| {
        let next = level + 1;
        format!("{text}a{next}: &a{next} [*a{level}, *a{level}, *a{level}, *a{level}]\n")
    });
    for (what, text, words) in [
        ("empty", String::new(), &["policy.yaml"][..]),
        ("only a comment", "# nothing\n".to_owned(), &["policy.yaml"]),
        ("no version", "name: test\n".to_owned(), &["version"]),
        ("a later version", "version: 2\nname: test\n".to_owned(), &["policy.yaml:1:10", "version"]),
        ("unknown key", policy::allowing(policy::NOTHING, "alow: []\n"), &["policy.yaml:4:1", "alow"]),
        ("repeated key", policy::allowing(policy::NOTHING, "name: again\n"), &["policy.yaml:4:1", "name"]),
        ("no YAML", "version: [1\n".to_owned(), &["policy.yaml"]),
        ("deeply nested", deep, &["policy.yaml"]),
        ("exploding aliases", bomb, &["policy.yaml"]),
        ("NUL in a name", policy::allowing(&["a\\0b.example.com"], ""), &["policy.yaml:4:"]),
        ("emoji", policy::allowing(&["exa mple"], ""), &["policy.yaml:4:5", "exa mple"]),
        ("long label", policy::allowing(&[&long_label], ""), &["policy.yaml:4:5"]),
        ("public suffix", policy::allowing(&["*.com"], ""), &["policy.yaml:4:5", "*.com"]),
        ("host bits", policy::allowing(&["10.0.0.1/8"], ""), &["policy.yaml:4:5", "10.0.0.0/8"]),
        ("port 0", policy::allowing(&["{network: 10.0.0.0/8, ports: [0]}"], ""), &["policy.yaml:4:"]),
        ("reversed range", policy::allowing(&["{network: 10.0.0.0/8, ports: [9-8]}"], ""), &["policy.yaml:4:", "9-8"]),
        ("blocked port 70000", policy::allowing(policy::NOTHING, "blocked_ports: [70000]\n"), &["policy.yaml:4:17"]),
        ("wildcard inside", policy::allowing(&["a.*.example.com"], ""), &["policy.yaml:4:5", "a.*.example.com"]),
    ] {
        expect_failure(&network, Egress::under(&network.client, &text)?, words).context(what)?;
    }
    Ok(())
}

#[test]
fn every_problem_of_a_policy_is_reported_at_once() -> Result<()> {
    let network = Network::new()?;
    let text = policy::allowing(&["exa mple", "10.0.0.0/40"], "blocked_ports: [0]\n");
    let words = ["policy.yaml:4:5", "policy.yaml:5:5", "policy.yaml:6:17"];
    expect_failure(&network, Egress::under(&network.client, &text)?, &words)
}

#[test]
fn a_file_that_is_no_policy_is_refused() -> Result<()> {
    let network = Network::new()?;
    let directory = network.client.directory();
    let (latin, huge) = (directory.join("latin.yaml"), directory.join("huge.yaml"));
    fs::write(&latin, b"version: 1\nname: \xe9t\xe9\n")?;
    fs::File::create(&huge)?.set_len(100 << 20)?;
    for (what, path) in [
        ("missing", directory.join("missing.yaml")),
        ("a directory", directory.to_path_buf()),
        ("invalid UTF-8", latin),
        ("100 MB", huge),
        ("endless", "/dev/zero".into()),
    ] {
        let shown = path.display().to_string();
        let run = Egress::new(&network.client)?.option("--policy").option(&path);
        expect_failure(&network, run, &[&shown]).context(what)?;
    }
    Ok(())
}

#[test]
fn wrong_options_are_refused() -> Result<()> {
    let network = Network::new()?;
    let policy = policy::allowing(policy::NOTHING, "");
    for (options, words) in [
        (&["--allow", "exa mple"][..], &["exa mple"][..]),
        (&["--allow", "10.0.0.1/8"], &["10.0.0.0/8"]),
        (&["--allow", "a.example.com", "--block-port", "0"], &["0"]),
        (&["--allow", "a.example.com", "--user", "no-such-user"], &["no-such-user"]),
        (&["--allow", "a.example.com", "--events", "/no/such/directory/events"], &["/no/such/directory/events"]),
    ] {
        let run = options.iter().fold(Egress::without_events(&network.client)?, Egress::option);
        expect_failure(&network, run, words).with_context(|| format!("{options:?}"))?;
    }
    // What the parser of the command line finds is told in its own words. A policy and rules together have no meaning.
    let both = Egress::under(&network.client, &policy)?.option("--allow").option("a.example.com");
    let nowhere = Egress::under(&network.client, &policy)?.option("--resolver").option("nowhere");
    for (run, words) in [(both, "--allow"), (nowhere, "nowhere")] {
        let outcome = run.run(["true"])?;
        ensure!(outcome.finished.code() == OWN_FAILURE, "{outcome:?}");
        ensure!(outcome.finished.stderr.contains(words), "{outcome:?}");
    }
    Ok(())
}

#[test]
fn a_link_is_not_followed_to_the_file_that_events_would_overwrite() -> Result<()> {
    let network = Network::new()?;
    let (victim, link) = (network.client.directory().join("victim"), network.client.directory().join("link"));
    fs::write(&victim, "precious").context("write a file")?;
    std::os::unix::fs::symlink(&victim, &link).context("make a link")?;
    let run = Egress::without_events(&network.client)?.option("--allow").option("198.20.1.1");
    expect_failure(&network, run.option("--events").option(&link), &["link", "symbolic link"])?;
    ensure!(fs::read_to_string(&victim).context("read a file")? == "precious", "the file was overwritten");
    Ok(())
}

#[test]
fn a_directory_of_pins_that_others_could_change_is_refused() -> Result<()> {
    let network = Network::new()?;
    for spoil in ["chown 65534 $0", "chmod 777 $0", "rmdir $0; ln -s /sys/fs/bpf/elsewhere $0"] {
        let script = format!("rm -rf $0; mkdir -p /sys/fs/bpf/elsewhere $0; {spoil}");
        let made = network.client.command("sh").args(["-c", &script, "/sys/fs/bpf/egress"]).finish()?;
        made.expect_success()?;
        let run = Egress::without_events(&network.client)?.option("--allow").option("198.20.1.1");
        expect_failure(&network, run, &["/sys/fs/bpf/egress", "only root"]).context(spoil)?;
    }
    Ok(())
}

#[test]
fn without_privileges_nothing_starts() -> Result<()> {
    let network = Network::new()?;
    let policy = policy::allowing(policy::NOTHING, "");
    let path = network.client.directory().join("policy.yaml");
    fs::write(&path, &policy)?;
    let binary = network.client.publish(&egress::binary()?)?.display().to_string();
    let nobody = ["setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups"];
    let no_capabilities = ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all"];
    for wrapper in [&nobody[..], &no_capabilities] {
        // In place of the path that `egress` has for root only.
        let readable = [wrapper, &["sh", "-c", "shift; exec \"$0\" \"$@\"", &binary]].concat();
        let run = Egress::without_events(&network.client)?.option("--policy").option(&path).through(readable);
        expect_failure(&network, run, &["root"]).with_context(|| format!("{wrapper:?}"))?;
    }
    Ok(())
}

#[test]
fn where_cgroup2_is_hidden_the_command_is_governed_all_the_same() -> Result<()> {
    let network = Network::new()?;
    let to = SocketAddr::new(public_v4(1), 443);
    let run = Egress::under(&network.client, &policy::allowing(policy::NOTHING, ""))?;
    let hide = "umount -l \"$1\" && shift && exec \"$@\"";
    let point = egress_tests::cgroup::mount_point()?.display().to_string();
    let run = run.through(["unshare", "--mount", "sh", "-c", hide, "sh", &point]);
    run.probe(&[format!("tcp {to}")])?.report()?.expect_refusal("connect", Errno::EPERM)
}

#[test]
fn a_missing_bpf_file_system_is_mounted_or_reported() -> Result<()> {
    let network = Network::new()?;
    let run = Egress::under(&network.client, &policy::allowing(policy::NOTHING, ""))?;
    let hide = "umount -l /sys/fs/bpf; exec \"$@\"";
    let outcome = run.through(["unshare", "--mount", "sh", "-c", hide, "sh"]).run(["true"])?;
    outcome.expect_success()
}

#[test]
fn many_rules_are_accepted() -> Result<()> {
    let network = Network::new()?;
    let _dns = Dns::start(&network.world, DNS_V4)?;
    let echo = Echo::tcp(&network.world, SocketAddr::new(public_v4(1), 7))?;
    let others = (0..10_000_u32).map(|number| format!("{{network: 11.{}.{}.0/24}}", number / 256, number % 256));
    let rules: Vec<String> = others.chain([public_v4(1).to_string()]).collect();
    let run = Egress::under(&network.client, &policy::allowing(&rules, ""))?;
    run.probe(&[format!("tcp {} hello", echo.address())])?.report()?.expect_success()
}

#[test]
fn an_internationalised_name_is_its_ascii_form() -> Result<()> {
    let network = Network::new()?;
    let dns = Dns::start(&network.world, DNS_V4)?;
    dns.answer("xn--bcher-kva.example", 60, &[public_v4(1)])?;
    let echo = Echo::tcp(&network.world, SocketAddr::new(public_v4(1), 7))?;
    let run = Egress::under(&network.client, &policy::allowing(&["bücher.example"], ""))?;
    run.probe(&[format!("tcp {} hello", echo.address())])?.report()?.expect_success()
}

#[test]
fn no_command_is_wrong_usage() -> Result<()> {
    let network = Network::new()?;
    for arguments in [&["run"][..], &["run", "--allow", "a.example.com"], &["run", "--no-such-option", "--", "true"]] {
        let finished = network.client.command(egress::binary()?).args(arguments).finish()?;
        ensure!([2, OWN_FAILURE].contains(&finished.code()), "{finished:?}");
        ensure!(finished.stderr.contains("Usage"), "{finished:?}");
    }
    Ok(())
}
