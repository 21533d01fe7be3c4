//! `egress policy` and `egress explain` as a person runs them: what goes to stdout, what to stderr, and the exit code.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    path::Path,
    process::{Command, Output},
};

#[test]
fn check_names_every_file_and_every_problem() {
    let output =
        egress(&["policy", "check", "policies/ci-build.yaml", "policies/invalid/ports.yaml", "policies/no.yaml"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(text(&output.stdout), "policies/ci-build.yaml: ok\n");
    let errors = text(&output.stderr);
    assert_eq!(errors.lines().filter(|line| line.starts_with("policies/invalid/ports.yaml:")).count(), 10, "{errors}");
    assert!(errors.contains("open policy `policies/no.yaml`: No such file"), "{errors}");

    let output = egress(&["policy", "check", "policies/ci-build.yaml", "policies/audit-only.yaml"]);
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""));
}

#[test]
fn show_prints_a_policy_that_can_be_checked() {
    let output = egress(&["policy", "show", "policies/internal-worker.yaml"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stdout).contains("mode: enforce\ntier: internal\n"), "{}", text(&output.stdout));

    let output = egress(&["policy", "show", "policies/invalid/empty.yaml"]);
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(2), ""));
}

#[test]
fn schema_prints_json() {
    let output = egress(&["policy", "schema"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap().is_object());
}

#[test]
fn explain_says_by_which_line_or_what_to_add() {
    let mut answers = Vec::new();
    for (policy, destination) in [
        ("security-proxy", "api.untrusted-source.com:443/tcp"),
        ("security-proxy", "api.untrusted-source.com"),
        ("security-proxy", "10.20.1.1:8050"),
        ("security-proxy", "10.20.1.1:8000-9000/tcp"),
        ("security-proxy", "10.20.1.1:22/tcp"),
        ("security-proxy", "10.20.1.1:icmp"),
        ("security-proxy", "10.21.1.1:443/tcp"),
        ("security-proxy", "169.254.169.254:80/tcp"),
        ("security-proxy", "[2606:4700::1111]:53/udp"),
        ("security-proxy", "evil.example"),
        ("package-mirror", "fd12:3456:789a::11"),
        ("ci-build", "10.0.0.1:443/tcp"),
        ("internal-worker", "10.30.0.5"),
        ("internal-worker", "8.8.8.8:53/udp"),
        ("internal-worker", "db.internal.example:443/tcp"),
        ("audit-only", "8.8.8.8:53/udp"),
    ] {
        let policy_file = format!("policies/{policy}.yaml");
        let output = egress(&["explain", "--no-resolve", "--policy", &policy_file, destination]);
        assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""), "{destination}");
        answers.push(format!("$ egress explain --policy {policy_file} '{destination}'\n{}", text(&output.stdout)));
    }
    insta::assert_snapshot!("explain", answers.join("\n"));
}

#[test]
fn explain_without_what_it_needs_is_wrong_usage() {
    for (arguments, expected) in [
        (&["explain", "example.com"][..], "`--policy` is missing"),
        (&["explain", "--policy", "policies/ci-build.yaml", "*.example.com"], "expected one destination"),
        (&["explain", "--policy", "policies/ci-build.yaml", "example.com:https"], "expected a port"),
        (&["explain", "--policy", "policies/invalid/ports.yaml", "example.com"], "\npolicies/invalid/ports.yaml:4:5: "),
        (&["explain", "--policy", "/", "example.com"], "read policy `/`"),
    ] {
        let output = egress(arguments);
        assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(2), ""), "{arguments:?}");
        assert!(text(&output.stderr).contains(expected), "{arguments:?}: {}", text(&output.stderr));
    }
}

fn egress(arguments: &[&str]) -> Output {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    Command::new(env!("CARGO_BIN_EXE_egress")).args(arguments).current_dir(root).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}
