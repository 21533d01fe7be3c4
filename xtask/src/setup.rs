//! `cargo xtask setup`: finds what building and testing need, and installs what is missing.
//!
//! Each part looks first, so that a second call finds everything and changes nothing.

use std::{fs, path::Path};

use anyhow::{Context as _, bail};

use crate::{
    command::{cargo, find_program, run, spelled, target_directory},
    packages::{self, Apt, COMPILER},
    privilege::Privilege,
    toolchain::{LINKER, Survey, Toolchain},
};

/// The release of bpf-linker that is installed where there is none. Anyone that links is taken, whatever its release.
const LINKER_RELEASE: &str = "0.13.0";

/// The major versions of LLVM that this release can be built against, each a feature `llvm-NN` of its crate.
const LINKER_LLVM: std::ops::RangeInclusive<u32> = 21..=23;

/// The LLVM of Debian 12's `rustc-web`, for advice; what is installed follows the compiler that is found.
const LLVM_OF_DEBIAN: u32 = 22;

const BPFFS: &str = "/sys/fs/bpf";

/// Sets up all that `build`, `test` and `demo` need.
pub(crate) fn everything() -> anyhow::Result<()> {
    let privilege = Privilege::of_this_process();
    let mut apt = Apt::new(privilege);
    // Each part is tried although another failed: a person wants to hear at once of everything that is missing.
    let parts = [toolchain_from(&mut apt).map(drop), programs(&mut apt), bpffs(privilege)];
    let problems: Vec<String> = parts.into_iter().filter_map(|part| Some(format!("{:#}", part.err()?))).collect();
    if !problems.is_empty() {
        bail!("set-up is not complete\n\n{}", problems.join("\n\n"));
    }
    Ok(())
}

/// Sets up a compiler and a linker for the eBPF half.
pub(crate) fn toolchain() -> anyhow::Result<Toolchain> {
    toolchain_from(&mut Apt::new(Privilege::of_this_process()))
}

fn toolchain_from(apt: &mut Apt) -> anyhow::Result<Toolchain> {
    let trial = target_directory()?.join("xtask");
    let survey = Survey::take();
    if !trial.exists() {
        eprintln!("trying what is here; a nightly compiler builds its `core` first, which takes a minute");
    }
    let reasons = match survey.toolchain(&trial) {
        Ok(toolchain) => {
            already_there(&format!("eBPF toolchain: {toolchain}"));
            return Ok(toolchain);
        }
        Err(reasons) => reasons,
    };
    eprintln!("no toolchain for the eBPF half yet:{}", listed(&reasons));
    let advice = by_hand(&survey);
    let toolchain = install_toolchain(apt, survey, &trial)
        .with_context(|| format!("there is no toolchain for the eBPF half. {advice}"))?;
    eprintln!("eBPF toolchain: {toolchain}");
    Ok(toolchain)
}

fn install_toolchain(apt: &mut Apt, mut survey: Survey, trial: &Path) -> anyhow::Result<Toolchain> {
    let mut llvm = linker_llvm(&llvm_versions(&survey), &mut |llvm| offers_llvm(apt, llvm))?;
    if llvm.is_none() {
        let release_min = crate::toolchain::parse_release(env!("CARGO_PKG_RUST_VERSION")).unwrap_or_default();
        for package in COMPILER {
            if !apt.offers(package, release_min)? {
                bail!("apt offers no `{package}` of {} or later", env!("CARGO_PKG_RUST_VERSION"));
            }
        }
        apt.install(&COMPILER)?;
        survey = Survey::take();
        if let Ok(toolchain) = survey.toolchain(trial) {
            return Ok(toolchain);
        }
        llvm = linker_llvm(&llvm_versions(&survey), &mut |llvm| offers_llvm(apt, llvm))?;
    }
    let llvm = llvm.with_context(|| format!("apt offers no LLVM for {LINKER} that fits a compiler on this machine"))?;
    apt.install(&packages::linker_dependencies(llvm))?;
    eprintln!("building {LINKER} {LINKER_RELEASE} takes a minute or two");
    run(&mut install_linker(llvm))?;
    Survey::take()
        .toolchain(trial)
        .map_err(|reasons| anyhow::anyhow!("what was installed does not work:{}", listed(&reasons)))
}

fn llvm_versions(survey: &Survey) -> Vec<u32> {
    survey.compilers.iter().map(|compiler| compiler.version.llvm).collect()
}

fn offers_llvm(apt: &mut Apt, llvm: u32) -> anyhow::Result<bool> {
    apt.offers(&format!("llvm-{llvm}-dev"), (llvm, 0))
}

/// The LLVM to build the linker against: that of the best compiler for which there is one. It must not be older than the
/// compiler's, whose bitcode the linker reads; the same is safe.
fn linker_llvm(
    compilers: &[u32],
    is_offered: &mut impl FnMut(u32) -> anyhow::Result<bool>,
) -> anyhow::Result<Option<u32>> {
    for llvm in compilers.iter().copied().filter(|llvm| LINKER_LLVM.contains(llvm)) {
        if is_offered(llvm)? {
            return Ok(Some(llvm));
        }
    }
    Ok(None)
}

/// Replaces a linker that is there: it was tried, and does not fit.
fn install_linker(llvm: u32) -> std::process::Command {
    let mut command = cargo("install");
    command.arg(format!("{LINKER}@{LINKER_RELEASE}"));
    // The default features ask for the newest LLVM, whatever the compiler has.
    command.args(["--locked", "--force", "--no-default-features", "--features", &format!("llvm-{llvm}")]);
    command.env("LLVM_PREFIX", format!("/usr/lib/llvm-{llvm}"));
    command
}

/// Both ways to a toolchain, for the person who has to go one of them.
fn by_hand(survey: &Survey) -> String {
    let present = llvm_versions(survey).into_iter().find(|llvm| LINKER_LLVM.contains(llvm));
    let llvm = present.unwrap_or(LLVM_OF_DEBIAN);
    let mut commands =
        vec![packages::install_command(&packages::linker_dependencies(llvm)), spelled(&install_linker(llvm))];
    if present.is_none() {
        commands.insert(0, packages::install_command(&COMPILER));
    }
    format!(
        "One of these two ways leads to one:\n\n\
         on Debian 12:\n  {}\n\n\
         anywhere, with rustup and a released `{LINKER}` (https://github.com/aya-rs/bpf-linker/releases) on PATH:\n  \
         rustup toolchain install nightly --profile minimal --component rust-src\n\n\
         What stopped set-up",
        commands.join("\n  ")
    )
}

/// Sets up the programs that kernel tests and the demo call.
fn programs(apt: &mut Apt) -> anyhow::Result<()> {
    let missing = packages::of_missing_programs();
    if missing.is_empty() {
        let names: Vec<&str> = packages::PROGRAMS.iter().map(|(program, _)| *program).collect();
        already_there(&format!("programs for tests: {}", names.join(", ")));
        return Ok(());
    }
    apt.install(&missing).with_context(|| {
        let command = packages::install_command(&missing);
        format!("programs for tests are missing. On Debian this installs them:\n  {command}\nWhat stopped set-up")
    })?;
    match packages::PROGRAMS.iter().find(|(program, _)| find_program(program).is_none()) {
        Some((program, package)) => bail!("`{package}` is installed and has no `{program}`"),
        None => Ok(()),
    }
}

/// Mounts the file system that keeps programs and maps in the kernel.
fn bpffs(privilege: Privilege) -> anyhow::Result<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("read `/proc/self/mountinfo`")?;
    if is_bpffs_mounted(&mounts) {
        already_there(&format!("bpffs at {BPFFS}"));
        return Ok(());
    }
    let advice =
        || format!("bpffs is not mounted. This mounts it:\n  sudo mount -t bpf bpf {BPFFS}\nWhat stopped set-up");
    let mount = privilege.command("mount");
    let mut mount = mount.context("this process is not root, and `sudo -n` does not work").with_context(advice)?;
    run(mount.args(["-t", "bpf", "bpf", BPFFS])).with_context(advice)
}

/// Reads `/proc/PID/mountinfo`: the mount point is the fifth field, the type the first after the dash.
fn is_bpffs_mounted(mounts: &str) -> bool {
    mounts
        .lines()
        .filter_map(|line| line.split_once(" - "))
        .any(|(mount, source)| mount.split(' ').nth(4) == Some(BPFFS) && source.split(' ').next() == Some("bpf"))
}

fn already_there(what: &str) {
    eprintln!("already there: {what}");
}

fn listed(reasons: &[String]) -> String {
    format!("\n  - {}", reasons.join("\n  - "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_linker_gets_the_llvm_of_the_best_compiler_for_which_there_is_one() {
        for (compilers, offered, expected) in [
            (vec![], vec![21, 22, 23], None),
            (vec![22], vec![22], Some(22)),
            (vec![23, 22], vec![22], Some(22)),
            (vec![23, 22], vec![22, 23], Some(23)),
            (vec![22], vec![14, 19], None),
            // No such feature, although there would be a package.
            (vec![19], vec![19], None),
        ] {
            let chosen = linker_llvm(&compilers, &mut |llvm| Ok(offered.contains(&llvm)));
            assert_eq!(chosen.unwrap(), expected, "compilers {compilers:?}, offered {offered:?}");
        }
    }

    #[test]
    fn bpffs_counts_as_mounted_only_where_egress_pins() {
        for (mounts, expected) in [
            ("36 25 0:31 / /sys/fs/bpf rw,nosuid shared:9 - bpf bpf rw,mode=700", true),
            ("36 25 0:31 / /sys/fs/bpf rw - bpf none rw", true),
            ("36 25 0:31 / /mnt/bpf rw - bpf bpf rw", false),
            ("36 25 0:31 / /sys/fs/bpf rw - tmpfs bpf rw", false),
            ("", false),
        ] {
            assert_eq!(is_bpffs_mounted(mounts), expected, "{mounts:?}");
        }
    }
}
