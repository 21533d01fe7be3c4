//! The system's packages: what is needed from them, and how they are installed with apt.

use std::{collections::BTreeSet, path::Path, process::Command};

use anyhow::{Context as _, bail};

use crate::{
    command::{find_program, run},
    privilege::Privilege,
    toolchain,
};

/// Programs that kernel tests and the demo call, each with the Debian package that has it.
pub(crate) const PROGRAMS: [(&str, &str); 17] = [
    ("busybox", "busybox-static"),
    ("curl", "curl"),
    ("dig", "bind9-dnsutils"),
    ("dnsmasq", "dnsmasq-base"),
    ("go", "golang-go"),
    ("host", "bind9-host"),
    ("ip", "iproute2"),
    ("musl-gcc", "musl-tools"),
    ("nginx", "nginx-light"),
    ("node", "nodejs"),
    ("nsenter", "util-linux"),
    ("openssl", "openssl"),
    ("ping", "iputils-ping"),
    ("ps", "procps"),
    ("python3", "python3"),
    ("setpriv", "util-linux"),
    ("unbound", "unbound"),
];

/// Services that these packages start, each with its package. The tests start their own, in their own namespaces.
const SERVICES: [(&str, &str); 2] = [("nginx", "nginx-light"), ("unbound", "unbound")];

/// Debian's own compiler with a `core` for the kernel's virtual machine. The compiler in the package `rustc` is older and
/// its `core` for other targets is a different package; these two are what Debian builds its browsers with.
pub(crate) const COMPILER: [&str; 2] = ["rustc-web", "libstd-rust-web-dev-bpf"];

/// What `bpf-linker` is built against.
pub(crate) fn linker_dependencies(llvm: u32) -> [String; 4] {
    [format!("llvm-{llvm}-dev"), format!("libpolly-{llvm}-dev"), "zlib1g-dev".to_owned(), "libzstd-dev".to_owned()]
}

/// The packages of the programs that are not there, each once.
pub(crate) fn of_missing_programs() -> Vec<&'static str> {
    let missing = PROGRAMS.iter().filter(|(program, _)| find_program(program).is_none());
    let packages: BTreeSet<&str> = missing.map(|(_, package)| *package).collect();
    packages.into_iter().collect()
}

/// The services that these packages start.
fn services_of(packages: &[impl AsRef<str>]) -> Vec<&'static str> {
    let started =
        SERVICES.iter().filter(|(_, package)| packages.iter().any(|installed| installed.as_ref() == *package));
    started.map(|(service, _)| *service).collect()
}

/// A new machine often installs its updates on its own at first, and holds apt's lock meanwhile. Seconds.
const LOCK_WAIT: &str = "-oDPkg::Lock::Timeout=300";

/// The package manager of Debian and its relatives.
#[derive(Debug)]
pub(crate) struct Apt {
    privilege: Privilege,
    is_updated: bool,
}

impl Apt {
    /// Apt as this process may use it; that it may at all is found out when it is needed.
    pub(crate) fn new(privilege: Privilege) -> Self {
        Self { privilege, is_updated: false }
    }

    /// Whether a package can be installed in a version that is not too old.
    pub(crate) fn offers(&mut self, package: &str, release_min: (u32, u32)) -> anyhow::Result<bool> {
        self.update()?;
        let output = toolchain::output(Command::new("apt-cache").args(["policy", package]).env("LC_ALL", "C"))
            .map_err(anyhow::Error::msg)
            .with_context(|| format!("ask apt for `{package}`"))?;
        Ok(candidate(&output).is_some_and(|release| release >= release_min))
    }

    /// Installs packages, and nothing that they merely recommend. Stops where apt would remove another package.
    pub(crate) fn install(&mut self, packages: &[impl AsRef<str>]) -> anyhow::Result<()> {
        self.update()?;
        let mut command = self.command("env")?;
        command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get"]);
        command.args(["install", "-y", "--no-install-recommends", "--no-remove", LOCK_WAIT]);
        run(command.args(packages.iter().map(AsRef::as_ref)))?;
        let started = services_of(packages);
        if !started.is_empty() && Path::new("/run/systemd/system").exists() {
            run(self.command("systemctl")?.args(["disable", "--now"]).args(started))?;
        }
        Ok(())
    }

    /// Reads the lists of packages anew, once.
    fn update(&mut self) -> anyhow::Result<()> {
        if self.is_updated {
            return Ok(());
        }
        if find_program("apt-get").is_none() {
            bail!("this machine has no apt");
        }
        run(self.command("apt-get")?.args(["update", "--quiet", LOCK_WAIT]))?;
        self.is_updated = true;
        Ok(())
    }

    fn command(&self, program: &str) -> anyhow::Result<Command> {
        self.privilege.command(program).context("this process is not root, and `sudo -n` does not work")
    }
}

/// What a person types to install packages.
pub(crate) fn install_command(packages: &[impl AsRef<str>]) -> String {
    let packages: Vec<&str> = packages.iter().map(AsRef::as_ref).collect();
    format!("sudo apt-get install -y --no-install-recommends {}", packages.join(" "))
}

/// Reads the release that would be installed out of the output of `apt-cache policy`, without its epoch.
fn candidate(policy: &str) -> Option<(u32, u32)> {
    let version = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: "))?;
    let release = version.split_once(':').map_or(version, |(_, release)| release);
    toolchain::parse_release(release.split(['-', '+', '~']).next()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_candidate_is_read_from_the_policy_of_a_package() {
        for (policy, expected) in [
            ("rustc-web:\n  Installed: (none)\n  Candidate: 1.96.0+dfsg1-1~deb12u2\n  Version table:\n", Some((1, 96))),
            ("llvm-22-dev:\n  Installed: (none)\n  Candidate: 1:22.1.8-1~deb12u1\n", Some((22, 1))),
            ("curl:\n  Installed: 7.88.1-10\n  Candidate: (none)\n", None),
            ("", None),
        ] {
            assert_eq!(candidate(policy), expected, "{policy:?}");
        }
    }

    #[test]
    fn a_service_that_a_package_starts_is_stopped_and_others_are_left_alone() {
        assert_eq!(services_of(&["curl", "unbound"]), ["unbound"]);
        assert_eq!(services_of(&["curl", "unbound-host"]), Vec::<&str>::new());
        let packages = PROGRAMS.map(|(_, package)| package);
        assert!(SERVICES.iter().all(|(_, package)| packages.contains(package)));
    }

    #[test]
    fn the_linker_is_built_against_the_llvm_of_the_compiler() {
        assert_eq!(linker_dependencies(22), ["llvm-22-dev", "libpolly-22-dev", "zlib1g-dev", "libzstd-dev"]);
    }
}
