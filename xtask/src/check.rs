//! `cargo xtask check`: what a change must satisfy before its tests count.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};

use crate::{
    command::{cargo, run as run_command, target_directory, workspace},
    setup,
};

/// Lines of a source file with its tests. A longer one holds more than one idea.
const FILE_LINES_MAX: usize = 400;

pub(crate) fn run() -> anyhow::Result<()> {
    let toolchain = setup::toolchain()?;
    // For the host, the eBPF half is not all there.
    let mut ebpf = toolchain.cargo("rustc", &target_directory()?.join("xtask"));
    // Every check runs although another failed: one look is to show all that there is to mend.
    let checks = [
        run_command(cargo("fmt").args(["--all", "--check"])),
        no_long_files(),
        run_command(cargo("clippy").args(["--workspace", "--all-targets", "--", "-D", "warnings"])),
        run_command(ebpf.args(["--package", "egress-ebpf", "--locked", "--", "-Dwarnings"])),
        run_command(cargo("doc").args(["--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings")),
    ];
    let failures: Vec<String> = checks.into_iter().filter_map(Result::err).map(|error| format!("{error:#}")).collect();
    if !failures.is_empty() {
        bail!("not every check passed\n  - {}", failures.join("\n  - "));
    }
    Ok(())
}

fn no_long_files() -> anyhow::Result<()> {
    let mut long = Vec::new();
    let root = workspace();
    for file in source_files(&root)? {
        let lines = fs::read_to_string(&file).with_context(|| format!("read `{}`", file.display()))?.lines().count();
        if lines > FILE_LINES_MAX {
            let name = file.strip_prefix(&root).unwrap_or(&file);
            long.push(format!("`{}` has {lines} lines", name.display()));
        }
    }
    if !long.is_empty() {
        long.sort();
        bail!("a source file has {FILE_LINES_MAX} lines at most: {}", long.join(", "));
    }
    eprintln!("no source file has more than {FILE_LINES_MAX} lines");
    Ok(())
}

/// Rust files below a folder, without those that cargo or another tool made.
fn source_files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("list `{}`", folder.display()))? {
        let entry = entry.with_context(|| format!("list `{}`", folder.display()))?;
        let path = entry.path();
        let name = entry.file_name();
        let is_folder = entry.file_type().with_context(|| format!("look at `{}`", path.display()))?.is_dir();
        if is_folder && name != "target" && !name.to_string_lossy().starts_with('.') {
            files.append(&mut source_files(&path)?);
        } else if !is_folder && path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn source_files_are_found_in_every_package_and_not_among_what_was_built() {
        let files = source_files(&workspace()).unwrap();
        for expected in ["xtask/src/check.rs", "egress-common/src/lib.rs", "egress-user/build.rs"] {
            assert!(files.iter().any(|file| file.ends_with(expected)), "{expected} in {files:?}");
        }
        let built = workspace().join("target");
        assert!(!files.iter().any(|file| file.starts_with(&built)), "{files:?}");
    }
}
