//! Where below the hierarchy the cgroup of a run goes.

use std::path::PathBuf;

/// A cgroup on the way from the hierarchy's root to the own cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// Its path from the root of the hierarchy.
    pub(super) cgroup: PathBuf,
    /// Whether the user that the command will run as may write its `cgroup.procs`.
    pub(super) writable: bool,
}

/// The cgroup under which that of the run is made; `steps` go from the root to the own cgroup.
///
/// It is the own cgroup, so that its limits and its policies hold for the command too. But where systemd has delegated
/// a part of the hierarchy to the user of the command, that user may move processes between any two cgroups inside
/// this part, and so out of ours. The kernel asks for the right to write to the common ancestor
/// (<https://docs.kernel.org/admin-guide/cgroup-v2.html#delegation-containment>), so above the delegated part there is
/// no such move.
pub(super) fn parent_of_run(steps: &[Step]) -> Option<&PathBuf> {
    match steps.iter().position(|step| step.writable) {
        None => steps.last().map(|own| &own.cgroup),
        Some(delegated) => steps.get(delegated.checked_sub(1)?).map(|above| &above.cgroup),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cgroup_of_a_run_is_where_its_user_cannot_move_processes_out_of_it() {
        for (steps, expected) in [
            (&[("/c", false)][..], Some("/c")),
            (&[("/c", false), ("/c/system", false), ("/c/system/ssh", false)], Some("/c/system/ssh")),
            (&[("/c", false), ("/c/u", false), ("/c/u/1000", true), ("/c/u/1000/app", true)], Some("/c/u")),
            (&[("/c", false), ("/c/u", true), ("/c/u/kept", false)], Some("/c")),
            (&[("/c", true), ("/c/u", false)], None),
            (&[], None),
        ] {
            let steps: Vec<Step> = steps
                .iter()
                .map(|(cgroup, writable)| Step { cgroup: PathBuf::from(cgroup), writable: *writable })
                .collect();
            assert_eq!(parent_of_run(&steps), expected.map(PathBuf::from).as_ref(), "{steps:?}");
        }
    }
}
