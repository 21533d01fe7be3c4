//! What the kernel half needs of the machine, looked at before anything is governed.

use std::fs;

use super::{BPFFS, Governor, Sizes, pins};

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// What was found, or what was wrong and what to do.
    pub outcome: Result<String, String>,
}

/// `CAP_NET_ADMIN`, `CAP_SYS_ADMIN`, `CAP_BPF` of `include/uapi/linux/capability.h`.
const CAPABILITIES: [(u32, &str); 3] = [(12, "CAP_NET_ADMIN"), (21, "CAP_SYS_ADMIN"), (39, "CAP_BPF")];

/// Looks at kernel, privileges and BPF file system, in the order in which a person would mend them.
pub fn machine() -> Vec<Check> {
    vec![kernel(), privileges(), jit(), bpffs()]
}

/// Loads the programs, and says what this kernel can do with them.
pub fn programs(sizes: &Sizes) -> (Check, Option<Governor>) {
    let loaded = Governor::load(sizes);
    let outcome = match &loaded {
        Ok(governor) if governor.can_set_errno() => Ok("load; refusals have the errno of the policy".to_owned()),
        Ok(_) => Ok("load; refusals are always EPERM, because this kernel is older than 5.18".to_owned()),
        Err(error) => Err(format!("{error:#}; the kernel needs CONFIG_BPF_SYSCALL and CONFIG_CGROUP_BPF")),
    };
    (Check { name: "eBPF programs", outcome }, loaded.ok())
}

fn kernel() -> Check {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let outcome = match version(&release) {
        Some(found) if found >= OLDEST => Ok(release.trim().to_owned()),
        Some(_) => Err(format!("{} is older than {}.{}; use a newer kernel", release.trim(), OLDEST.0, OLDEST.1)),
        None => Err("the release in `/proc/sys/kernel/osrelease` cannot be read; mount `/proc`".to_owned()),
    };
    Check { name: "kernel", outcome }
}

/// The oldest kernel with everything that the core promise needs.
const OLDEST: (u32, u32) = (5, 15);

fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn privileges() -> Check {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let missing = missing_capabilities(&status);
    let outcome = if missing.is_empty() {
        Ok("all that are needed".to_owned())
    } else {
        Err(format!("without {}; run as root, for example with `sudo`", missing.join(", ")))
    };
    Check { name: "capabilities", outcome }
}

fn missing_capabilities(status: &str) -> Vec<&'static str> {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0);
    CAPABILITIES.iter().filter(|(bit, _)| effective >> bit & 1 == 0).map(|(_, name)| *name).collect()
}

fn jit() -> Check {
    let setting = fs::read_to_string("/proc/sys/net/core/bpf_jit_enable").unwrap_or_default();
    let outcome = match setting.trim() {
        "0" => Ok("off: correct but slow; `sysctl net.core.bpf_jit_enable=1` turns it on".to_owned()),
        "" => Ok("not known: `/proc/sys/net/core/bpf_jit_enable` cannot be read".to_owned()),
        _ => Ok("on".to_owned()),
    };
    Check { name: "BPF compiler", outcome }
}

fn bpffs() -> Check {
    let outcome = if pins::is_bpffs() {
        Ok(BPFFS.to_owned())
    } else if fs::metadata(BPFFS).is_ok() {
        Ok(format!("not mounted at `{BPFFS}` yet; it is mounted when it is needed"))
    } else {
        Err(format!("there is no `{BPFFS}`; the kernel has no BPF, or `/sys` is not mounted"))
    };
    Check { name: "BPF file system", outcome }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_read_as_far_as_its_version() {
        for (release, expected) in [
            ("6.18.44-fc\n", Some((6, 18))),
            ("5.15.0-91-generic", Some((5, 15))),
            ("6.1", Some((6, 1))),
            ("", None),
            ("next", None),
        ] {
            assert_eq!(version(release), expected, "{release}");
        }
        assert!((5, 10) < OLDEST && (6, 1) > OLDEST);
    }

    #[test]
    fn each_capability_that_is_missing_is_named() {
        assert_eq!(missing_capabilities("Name:\tx\nCapEff:\t000001ffffffffff\n"), Vec::<&str>::new());
        assert_eq!(missing_capabilities("CapEff:\t0000008000201000\n"), Vec::<&str>::new());
        assert_eq!(missing_capabilities("CapEff:\t0000000000001000\n"), ["CAP_SYS_ADMIN", "CAP_BPF"]);
        assert_eq!(missing_capabilities(""), ["CAP_NET_ADMIN", "CAP_SYS_ADMIN", "CAP_BPF"]);
    }
}
