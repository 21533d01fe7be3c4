//! `egress doctor`.

use super::{FAILED, Failure, OK, print_line};
use crate::{
    cgroup::{Cgroup, Hierarchy},
    kernel::{
        Governor, Sizes,
        preflight::{self, Check},
    },
    policy::AddressLimits,
    probe::Probe,
    runs::{self, Found, State},
};

/// Looks whether this machine can govern a command, and for what runs that were killed have left behind.
///
/// Each line is `ok`, or `missing` with what to do. Ends with 1 if something is missing or left behind.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the command and returns its exit code.
#[expect(clippy::unnecessary_wraps, reason = "every command has this form")]
pub fn run(_args: Args) -> Result<u8, Failure> {
    let mut checks = preflight::machine();
    checks.push(own_cgroup());
    // Without what is above, the rest would only say so again.
    if checks.iter().all(|check| check.outcome.is_ok()) {
        checks.extend(enforcement());
    }
    let runs = runs::list().map_err(|error| {
        checks.push(Check { name: "runs", outcome: Err(format!("{error:#}; run as root, for example with `sudo`")) });
    });
    let runs = runs.unwrap_or_default();
    for check in &checks {
        print_line(&line(check));
    }
    for run in &runs {
        print_line(&describe(run));
    }
    let is_well = checks.iter().all(|check| check.outcome.is_ok()) && runs.iter().all(|run| run.alive);
    Ok(if is_well { OK } else { FAILED })
}

fn own_cgroup() -> Check {
    let outcome = match Hierarchy::find() {
        Ok(hierarchy) => Ok(format!("runs are governed below `{}`", hierarchy.own().display())),
        Err(error) => Err(format!("{error:#}")),
    };
    Check { name: "cgroup2", outcome }
}

/// Loads the programs and shows with real packets that they enforce.
fn enforcement() -> Vec<Check> {
    let name = "enforcement";
    let probe = match Probe::new() {
        Ok(probe) => probe,
        Err(error) => return vec![Check { name, outcome: Err(format!("{error:#}")) }],
    };
    let (programs, governor) =
        preflight::programs(&Sizes::for_policies([probe.policy()], AddressLimits::default().total));
    let Some(governor) = governor else { return vec![programs] };
    let outcome = match prove(&probe, governor) {
        Ok(()) => Ok("an allowed packet arrived, and a forbidden one was refused with EPERM".to_owned()),
        Err(error) => Err(format!("{error:#}")),
    };
    vec![programs, Check { name, outcome }]
}

fn prove(probe: &Probe, mut governor: Governor) -> anyhow::Result<()> {
    let cgroup = Cgroup::create(&format!("egress-doctor-{}", std::process::id()), 0)?;
    let proved = governor.attach(cgroup.directory()).and_then(|()| probe.prove(&mut governor, &cgroup));
    drop(governor);
    proved.and(cgroup.remove())
}

fn line(check: &Check) -> String {
    let Check { name, outcome } = check;
    match outcome {
        Ok(found) => format!("ok       {name}: {found}"),
        // The kernel's verifier explains itself on thousands of lines.
        Err(missing) => format!("missing  {name}: {}", missing.lines().next().unwrap_or_default()),
    }
}

fn describe(run: &Found) -> String {
    let Found { id, state, alive } = run;
    let what = match state {
        Some(State { pid, started, policy, command, cgroup: _, cgroup_namespace: _ }) => {
            format!("`{}` under policy `{policy}`, process {pid}, since {started}", command.escape_debug())
        }
        None => "of which nothing is known".to_owned(),
    };
    match alive {
        true => format!("ok       run {id}: {what}"),
        false => format!("left     run {id}: {what}; it was killed: remove what is left with `egress detach {id}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_stands_in_its_line_with_what_to_do() {
        let check = |outcome| Check { name: "kernel", outcome };
        assert_eq!(line(&check(Ok("6.18".to_owned()))), "ok       kernel: 6.18");
        assert_eq!(
            line(&check(Err("too old; use a newer one".to_owned()))),
            "missing  kernel: too old; use a newer one"
        );
    }

    #[test]
    fn a_dead_run_is_listed_with_how_to_remove_it() {
        let state = State {
            pid: 7,
            started: "2026-11-22T12:00:00.000000000Z".to_owned(),
            policy: "p".to_owned(),
            command: "curl".to_owned(),
            cgroup: None,
            cgroup_namespace: None,
        };
        let dead = Found { id: "0123abcd".to_owned(), state: Some(state), alive: false };
        assert_eq!(
            describe(&dead),
            "left     run 0123abcd: `curl` under policy `p`, process 7, since 2026-11-22T12:00:00.000000000Z; it was \
             killed: remove what is left with `egress detach 0123abcd`"
        );
        let alive = Found { alive: true, state: None, ..dead };
        assert_eq!(describe(&alive), "ok       run 0123abcd: of which nothing is known");
    }
}
