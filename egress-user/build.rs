//! Builds the eBPF half and tells the loader where the object is (`EGRESS_EBPF_OBJECT`), so that it is embedded.
#![expect(clippy::print_stderr, reason = "a build script tells the person so why it stopped")]

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

#[path = "../xtask/src/toolchain.rs"]
mod toolchain;

use toolchain::{Survey, TARGET};

/// What the object is made of, seen from the workspace.
const SOURCES: [&str; 6] = [
    "egress-ebpf/src",
    "egress-ebpf/Cargo.toml",
    "egress-common/src",
    "egress-common/Cargo.toml",
    "Cargo.toml",
    "Cargo.lock",
];

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    let folder = |name: &str| env::var_os(name).map(PathBuf::from).ok_or_else(|| format!("cargo did not set `{name}`"));
    let workspace = folder("CARGO_MANIFEST_DIR")?.join("..");
    let target_directory = folder("OUT_DIR")?.join("egress-ebpf");
    for source in SOURCES {
        println!("cargo::rerun-if-changed={}", workspace.join(source).display());
    }

    let toolchain = Survey::take().toolchain(&target_directory).map_err(|reasons| no_toolchain(&reasons))?;
    for file in [&toolchain.compiler.rustc, &toolchain.linker] {
        println!("cargo::rerun-if-changed={}", file.display());
    }
    println!("the eBPF half is built by {toolchain}");

    compile(toolchain.cargo("build", &target_directory).args(["--package", "egress-ebpf", "--locked"]), &workspace)?;
    let object = target_directory.join(TARGET).join("release/egress-ebpf");
    println!("cargo::rustc-env=EGRESS_EBPF_OBJECT={}", object.display());
    Ok(())
}

/// Runs the inner build. Cargo hides what a build script prints, so its warnings are handed on one by one.
fn compile(command: &mut Command, workspace: &Path) -> Result<(), String> {
    let output = command.current_dir(workspace).output().map_err(|error| format!("start {command:?}: {error}"))?;
    let messages = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("the eBPF half does not build ({}):\n{messages}", output.status));
    }
    let summary = |line: &&str| line.contains(" generated ");
    for warning in messages.lines().filter(|line| line.starts_with("warning:")).filter(|line| !summary(line)) {
        println!("cargo::warning=eBPF half: {warning}");
    }
    Ok(())
}

fn no_toolchain(reasons: &[String]) -> String {
    format!(
        "no toolchain on this machine builds the eBPF half:\n  - {}\nThis command finds or installs one:\ncargo xtask setup",
        reasons.join("\n  - ")
    )
}
