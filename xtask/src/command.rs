//! Running other programs so that a person sees which and why.

use std::{
    borrow::Cow,
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};

/// Prints the command as a person would type it, and runs it in the workspace.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    command.current_dir(workspace());
    eprintln!("+ {}", spelled(command));
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command.status().with_context(|| format!("start `{name}`"))?;
    if !status.success() {
        bail!("`{}` failed: {status}", spelled(command));
    }
    Ok(())
}

/// The cargo that runs this task, so that a toolchain chosen with `+NAME` holds for what it starts.
pub(crate) fn cargo(subcommand: &str) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.arg(subcommand);
    command
}

/// The folder with the workspace's `Cargo.toml`.
pub(crate) fn workspace() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package).to_owned()
}

/// Cargo's folder for what it builds: the one that this program lies in (`target/debug/xtask`).
pub(crate) fn target_directory() -> anyhow::Result<PathBuf> {
    let program = env::current_exe().context("find the running program")?;
    let folder = program.ancestors().nth(2).with_context(|| format!("`{}` lies in no folder", program.display()))?;
    Ok(folder.to_owned())
}

/// Where a program is, on `PATH` or where the programs for root are, which `PATH` of other users leaves out.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
}

/// A command in the spelling of a shell.
pub(crate) fn spelled(command: &Command) -> String {
    let variables =
        command.get_envs().filter_map(|(name, value)| Some(format!("{}={}", name.to_string_lossy(), quoted(value?))));
    // Cargo is called by its full path, which says nothing to a person.
    let program = Path::new(command.get_program());
    let program = if program.file_stem() == Some(OsStr::new("cargo")) { Path::new("cargo") } else { program };
    let words = [program.as_os_str()].into_iter().chain(command.get_args()).map(|word| quoted(word).into_owned());
    variables.chain(words).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &OsStr) -> Cow<'_, str> {
    let text = word.to_string_lossy();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        text
    } else if text.contains('\x1f') {
        // What cargo puts between flags. A terminal shows nothing for it.
        Cow::Owned(format!("$'{}'", text.replace('\'', r"\'").replace('\x1f', r"\x1f")))
    } else {
        Cow::Owned(format!("'{}'", text.replace('\'', r"'\''")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_spelled_so_that_it_can_be_typed() {
        let mut command = Command::new("/home/me/.rustup/bin/cargo");
        command.args(["test", "two words", "", "it's"]).env("EGRESS_BIN", "/a b/egress");
        assert_eq!(spelled(&command), r"EGRESS_BIN='/a b/egress' cargo test 'two words' '' 'it'\''s'");
        let mut command = Command::new("cargo");
        command.arg("check").env("CARGO_ENCODED_RUSTFLAGS", "-Cdebuginfo=2\x1f-Clinker=bpf-linker");
        assert_eq!(spelled(&command), r"CARGO_ENCODED_RUSTFLAGS=$'-Cdebuginfo=2\x1f-Clinker=bpf-linker' cargo check");
        let mut command = Command::new("/usr/bin/mount");
        command.args(["-t", "bpf", "bpf", "/sys/fs/bpf"]);
        assert_eq!(spelled(&command), "/usr/bin/mount -t bpf bpf /sys/fs/bpf");
    }
}
