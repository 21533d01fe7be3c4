//! Which compiler and which linker build the eBPF half, and how they are called.
//!
//! `egress-user/build.rs` includes this file, so that set-up and build cannot disagree.
//!
//! The compiler must come with a `core` for the kernel's virtual machine, which a stable Rust does not have. There are
//! two that do: a rustup nightly with the component `rust-src` builds one on the way, and some distributions package a
//! compiler with one ready. Looking is not enough (the linker reads the compiler's bitcode, so their LLVM versions must
//! fit), so [`Survey::toolchain`] builds and links a small program with each pair until one works.

use std::{
    env,
    ffi::{OsStr, OsString},
    fmt, fs, io,
    path::{Path, PathBuf},
    process::Command,
};

/// The kernel's virtual machine, in the byte order of the processors that egress supports.
pub(crate) const TARGET: &str = "bpfel-unknown-none";

/// Where a distribution puts its own compiler. Not searched on `PATH`, where rustup's comes first.
pub(crate) const DISTRIBUTION_RUSTC: &str = "/usr/bin/rustc";

/// The linker's name.
pub(crate) const LINKER: &str = "bpf-linker";

/// Flags of every crate of the eBPF half: BTF from debug information, and 32-bit registers and atomics.
const RUSTFLAGS: [&str; 3] = ["-Cdebuginfo=2", "-Clink-arg=--btf", "-Ctarget-cpu=v3"];

/// The release profile of the eBPF half, of which `core` is a part when it is built from source. Above one unit a
/// program can exceed the 512 bytes of BPF stack, and the panic path of an overflow check does not link.
const PROFILE: [(&str, &str); 3] = [
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1"),
    ("CARGO_PROFILE_RELEASE_DEBUG", "2"),
    ("CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS", "false"),
];

const TRIAL_MANIFEST: &str = "\
[package]
name = \"trial\"
edition = \"2024\"
publish = false

[[bin]]
name = \"trial\"
path = \"main.rs\"

[workspace]
";

const TRIAL_PROGRAM: &str = "\
#![no_std]
#![no_main]

#[unsafe(no_mangle)]
#[unsafe(link_section = \"cgroup_skb/egress\")]
pub extern \"C\" fn trial(length: u32) -> u32 {
    length.saturating_sub(1).min(1)
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
";

/// A release of rustc, and the LLVM in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Version {
    /// `(1, 96)` for 1.96.0.
    pub(crate) release: (u32, u32),
    /// The major version of LLVM.
    pub(crate) llvm: u32,
}

impl Version {
    /// Reads the output of `rustc -vV`.
    pub(crate) fn parse(output: &str) -> Option<Self> {
        let value = |key: &str| output.lines().find_map(|line| line.strip_prefix(key));
        let llvm = value("LLVM version: ")?.split('.').next()?.trim().parse().ok()?;
        Some(Self { release: parse_release(value("release: ")?)?, llvm })
    }

    fn is_enough(self) -> bool {
        parse_release(env!("CARGO_PKG_RUST_VERSION")).is_some_and(|needed| self.release >= needed)
    }
}

/// Reads the first two numbers of a release such as `1.97.0-nightly`.
pub(crate) fn parse_release(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.trim().split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Reads the nightlies out of `rustup toolchain list`, whose lines may end with remarks in brackets.
fn parse_nightlies(output: &str) -> Vec<&str> {
    output
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| name.starts_with("nightly"))
        .collect()
}

/// Where the `core` of the eBPF half comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CoreLibrary {
    /// Built from the component `rust-src`.
    Source,
    /// Installed with the compiler.
    Ready,
}

/// A compiler with a `core` for [`TARGET`].
#[derive(Debug, Clone)]
pub(crate) struct Compiler {
    pub(crate) rustc: PathBuf,
    cargo: PathBuf,
    core: CoreLibrary,
    pub(crate) version: Version,
}

impl fmt::Display for Compiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor) = self.version.release;
        let core = match self.core {
            CoreLibrary::Source => "`core` from rust-src",
            CoreLibrary::Ready => "`core` ready",
        };
        write!(f, "`{}` {major}.{minor} (LLVM {}, {core})", self.rustc.display(), self.version.llvm)
    }
}

/// A compiler and a linker that were seen to work together.
#[derive(Debug)]
pub(crate) struct Toolchain {
    pub(crate) compiler: Compiler,
    pub(crate) linker: PathBuf,
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} with `{}`", self.compiler, self.linker.display())
    }
}

impl Toolchain {
    /// A `cargo` command for [`TARGET`] in release mode that puts everything under `target_directory`. That must not be
    /// the one of the calling cargo, which holds its lock.
    pub(crate) fn cargo(&self, subcommand: &str, target_directory: &Path) -> Command {
        let mut linker = OsString::from("-Clinker=");
        linker.push(&self.linker);
        let mut rustflags = RUSTFLAGS.map(OsString::from).to_vec();
        rustflags.push(linker);

        let mut command = Command::new(&self.compiler.cargo);
        for (name, _) in env::vars_os().filter(|(name, _)| steers_the_outer_build(name)) {
            command.env_remove(name);
        }
        command
            .envs(PROFILE)
            .env("CARGO_ENCODED_RUSTFLAGS", rustflags.join(OsStr::new("\x1f")))
            // aya-ebpf uses features of the nightly compiler.
            .env("RUSTC_BOOTSTRAP", "1")
            .env("RUSTC", &self.compiler.rustc)
            // Empty, not absent: a wrapper may be configured in a file, too.
            .env("RUSTC_WRAPPER", "")
            .env("RUSTC_WORKSPACE_WRAPPER", "")
            .args([subcommand, "--release", "--target", TARGET, "--target-dir"])
            .arg(target_directory);
        match self.compiler.core {
            CoreLibrary::Source => command.args(["-Z", "build-std=core"]),
            CoreLibrary::Ready => &mut command,
        };
        command
    }

    fn link_trial(&self, target_directory: &Path) -> Result<(), String> {
        let folder = target_directory.join("trial");
        let write = || {
            fs::create_dir_all(&folder)?;
            write_if_different(&folder.join("Cargo.toml"), TRIAL_MANIFEST)?;
            write_if_different(&folder.join("main.rs"), TRIAL_PROGRAM)
        };
        write().map_err(|error| format!("write a trial program in `{}`: {error}", folder.display()))?;
        let manifest = folder.join("Cargo.toml");
        output(self.cargo("build", target_directory).arg("--manifest-path").arg(manifest)).map(drop)
    }
}

/// Cargo compares times, so that an equal file that was written anew would be compiled anew.
fn write_if_different(path: &Path, text: &str) -> io::Result<()> {
    if fs::read_to_string(path).is_ok_and(|present| present == text) { Ok(()) } else { fs::write(path, text) }
}

/// Whether a variable tells a cargo or rustc how to do the build that is going on, and must not reach a second one.
/// How to reach registries and how to print concerns both.
fn steers_the_outer_build(name: &OsStr) -> bool {
    const SHARED: [&str; 7] = ["HOME", "MAKEFLAGS", "HTTP_", "NET_", "REGISTRY_", "REGISTRIES_", "TERM_"];
    const OTHERS: [&str; 4] = ["RUSTFLAGS", "RUSTDOC", "RUSTDOCFLAGS", "RUSTC_LINKER"];
    match name.to_string_lossy().as_ref().strip_prefix("CARGO_") {
        Some(rest) => !SHARED.iter().any(|shared| rest.starts_with(shared)),
        None => OTHERS.iter().any(|other| name == *other),
    }
}

/// What this machine has, and why some of it is of no use.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    /// The best first.
    pub(crate) compilers: Vec<Compiler>,
    pub(crate) linkers: Vec<PathBuf>,
    /// One sentence for each thing that was missing or not good enough.
    pub(crate) rejected: Vec<String>,
}

impl Survey {
    /// Looks for compilers and linkers.
    pub(crate) fn take() -> Self {
        let mut survey = Self::default();
        survey.look_for_nightlies();
        survey.look_for_distribution_compiler();
        survey.look_for_linkers();
        survey
    }

    fn look_for_nightlies(&mut self) {
        let Ok(list) = output(Command::new("rustup").args(["toolchain", "list"])) else {
            return self.rejected.push("no rustup".to_owned());
        };
        let nightlies = parse_nightlies(&list);
        if nightlies.is_empty() {
            self.rejected.push("rustup has no nightly".to_owned());
        }
        for name in nightlies {
            match nightly(name) {
                Ok(compiler) => self.compilers.push(compiler),
                Err(reason) => self.rejected.push(format!("rustup's `{name}` {reason}")),
            }
        }
    }

    fn look_for_distribution_compiler(&mut self) {
        match distribution(Path::new(DISTRIBUTION_RUSTC)) {
            Ok(compiler) => self.compilers.push(compiler),
            Err(reason) => self.rejected.push(format!("`{DISTRIBUTION_RUSTC}` {reason}")),
        }
    }

    fn look_for_linkers(&mut self) {
        for linker in linker_paths() {
            match output(Command::new(&linker).arg("--version")) {
                Ok(_) => self.linkers.push(linker),
                Err(reason) => self.rejected.push(format!("`{}` does not run: {reason}", linker.display())),
            }
        }
        if self.linkers.is_empty() {
            self.rejected.push(format!("no `{LINKER}` on PATH or in cargo's folder"));
        }
    }

    /// The first pair that links a trial program in `target_directory`; else every reason why there is none.
    pub(crate) fn toolchain(&self, target_directory: &Path) -> Result<Toolchain, Vec<String>> {
        let mut rejected = self.rejected.clone();
        for compiler in &self.compilers {
            for linker in &self.linkers {
                let toolchain = Toolchain { compiler: compiler.clone(), linker: linker.clone() };
                match toolchain.link_trial(target_directory) {
                    Ok(()) => return Ok(toolchain),
                    Err(reason) => rejected.push(format!("{toolchain} cannot build a small program: {reason}")),
                }
            }
        }
        Err(rejected)
    }
}

fn nightly(name: &str) -> Result<Compiler, String> {
    let sysroot = output(Command::new("rustup").args(["run", name, "rustc", "--print", "sysroot"]))?;
    let sysroot = Path::new(sysroot.trim_end());
    if !sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs").is_file() {
        return Err("lacks the component `rust-src`".to_owned());
    }
    let rustc = sysroot.join("bin/rustc");
    let version = version(&rustc)?;
    Ok(Compiler { rustc, cargo: sysroot.join("bin/cargo"), core: CoreLibrary::Source, version })
}

fn distribution(rustc: &Path) -> Result<Compiler, String> {
    if !rustc.exists() {
        return Err("is missing".to_owned());
    }
    let libraries = output(Command::new(rustc).args(["--print", "target-libdir", "--target", TARGET]))?;
    let has_core = fs::read_dir(libraries.trim_end())
        .is_ok_and(|files| files.flatten().any(|file| file.file_name().to_string_lossy().starts_with("libcore-")));
    if !has_core {
        return Err(format!("has no `core` for {TARGET}"));
    }
    // Any recent cargo can drive another compiler, and this one is here.
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into()).into();
    Ok(Compiler { rustc: rustc.to_owned(), cargo, core: CoreLibrary::Ready, version: version(rustc)? })
}

fn version(rustc: &Path) -> Result<Version, String> {
    let text = output(Command::new(rustc).arg("-vV"))?;
    let version = Version::parse(&text).ok_or_else(|| format!("has a version that is not understood: {text}"))?;
    if version.is_enough() {
        Ok(version)
    } else {
        let (major, minor) = version.release;
        Err(format!("is {major}.{minor}, and {} is needed", env!("CARGO_PKG_RUST_VERSION")))
    }
}

/// Every place where a linker is, in the order of `PATH`; last cargo's own folder, which need not be on it.
fn linker_paths() -> Vec<PathBuf> {
    let cargo_home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")));
    let mut folders: Vec<PathBuf> =
        env::var_os("PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default();
    folders.extend(cargo_home.map(|home| home.join("bin")));
    let mut linkers: Vec<PathBuf> = Vec::new();
    for linker in folders.into_iter().map(|folder| folder.join(LINKER)).filter(|path| path.is_file()) {
        if !linkers.contains(&linker) {
            linkers.push(linker);
        }
    }
    linkers
}

/// What a command prints; else what it complained about, or why it did not start.
pub(crate) fn output(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("cannot be started: {error}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STABLE: &str = "rustc 1.95.0 (59807616e 2026-04-14)\nbinary: rustc\nhost: x86_64-unknown-linux-gnu\n\
        release: 1.95.0\nLLVM version: 22.1.2\n";

    #[test]
    fn the_version_of_a_compiler_is_read_from_its_verbose_output() {
        let nightly = STABLE.replace("release: 1.95.0", "release: 1.97.0-nightly");
        for (output, expected) in [
            (STABLE, Some(Version { release: (1, 95), llvm: 22 })),
            (nightly.as_str(), Some(Version { release: (1, 97), llvm: 22 })),
            ("rustc 1.95.0\nrelease: 1.95.0\n", None),
            ("release: one\nLLVM version: 22.1\n", None),
            ("", None),
        ] {
            assert_eq!(Version::parse(output), expected, "{output:?}");
        }
    }

    #[test]
    fn a_compiler_older_than_the_workspace_is_not_enough() {
        for (release, expected) in
            [((1, 85), false), ((1, 94), false), ((1, 95), true), ((1, 100), true), ((2, 0), true)]
        {
            assert_eq!(Version { release, llvm: 22 }.is_enough(), expected, "{release:?}");
        }
    }

    #[test]
    fn only_nightlies_are_taken_from_the_list_of_toolchains() {
        let output = "stable-x86_64-unknown-linux-gnu (active, default)\nnightly-x86_64-unknown-linux-gnu\n\
            1.95.0-x86_64-unknown-linux-gnu\nnightly-2026-05-01-x86_64-unknown-linux-gnu (override)\nmine\n";
        assert_eq!(
            parse_nightlies(output),
            ["nightly-x86_64-unknown-linux-gnu", "nightly-2026-05-01-x86_64-unknown-linux-gnu"]
        );
        assert!(parse_nightlies("no installed toolchains\n").is_empty());
    }

    #[test]
    fn variables_of_the_outer_build_do_not_reach_the_inner_one() {
        for (name, expected) in [
            ("CARGO_PKG_NAME", true),
            ("CARGO_CFG_TARGET_ARCH", true),
            ("CARGO_TARGET_DIR", true),
            ("CARGO_BUILD_TARGET", true),
            ("CARGO_ENCODED_RUSTFLAGS", true),
            ("RUSTFLAGS", true),
            ("CARGO_HOME", false),
            ("CARGO_NET_OFFLINE", false),
            ("CARGO_REGISTRIES_MINE_INDEX", false),
            ("PATH", false),
            ("RUSTUP_HOME", false),
        ] {
            assert_eq!(steers_the_outer_build(OsStr::new(name)), expected, "{name}");
        }
    }
}
