//! Programs that ask for names, each with a resolver of its own. Their sources are in `tests/clients`.

use std::{
    ffi::OsString,
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use crate::{command::Spec, probe};

/// How long a compiler may take on a busy machine; Go compiles its network library too.
const BUILD_MAX: Duration = Duration::from_secs(300);

/// One compiler at a time: tests that want the same program wait for it.
static BUILD: Mutex<()> = Mutex::new(());

/// A program that asks the C library musl, linked into it.
pub fn musl() -> Result<PathBuf> {
    build("resolve.c", |source, program| {
        Spec::new("musl-gcc").args(["-static", "-O1", "-Wall", "-Werror", "-o"]).arg(program).arg(source)
    })
}

/// A program that asks the resolver of the Go library, without any C library.
pub fn go() -> Result<PathBuf> {
    let cache = directory()?.join("go-cache");
    build("resolve.go", |source, program| {
        let spec = Spec::new("go").args(["build", "-o"]).arg(program).arg(source);
        spec.env("CGO_ENABLED", "0").env("GO111MODULE", "off").env("GOFLAGS", "").env("GOCACHE", cache)
    })
}

/// Node, asking through the C library (`lookup`) or through c-ares (`resolve`).
pub fn node(how: &str) -> Vec<OsString> {
    vec!["node".into(), source("resolve.js").into(), how.into()]
}

/// `ask.py`, which asks on sockets of every kind, and badly.
pub fn ask() -> Vec<OsString> {
    vec!["python3".into(), source("ask.py").into()]
}

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(name)
}

/// Where programs are kept from one test run to the next.
fn directory() -> Result<PathBuf> {
    let build = probe::sibling("probe")?;
    let target = build.ancestors().nth(2).context("the build has no directory")?;
    let directory = target.join("tmp/clients");
    fs::create_dir_all(&directory).with_context(|| format!("make `{}`", directory.display()))?;
    Ok(directory)
}

/// The program of a source, built unless that was done before.
fn build(name: &str, compiler: impl FnOnce(&Path, &Path) -> Spec) -> Result<PathBuf> {
    let _one = BUILD.lock().unwrap_or_else(PoisonError::into_inner);
    let source = source(name);
    let text = fs::read(&source).with_context(|| format!("read `{}`", source.display()))?;
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    let directory = directory()?;
    let program = directory.join(format!("{}-{:016x}", name.replace('.', "-"), hasher.finish()));
    if !program.exists() {
        let fresh = TempDir::new_in(&directory).context("make a directory for a build")?;
        let built = fresh.path().join("program");
        compiler(&source, &built)
            .time_max(BUILD_MAX)
            .finish()?
            .expect_success()
            .with_context(|| format!("build `{}`", source.display()))?;
        // All at once, because another test process may look for it now.
        fs::rename(&built, &program).with_context(|| format!("keep `{}`", program.display()))?;
    }
    Ok(program)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        network::{DNS_V4, Network, public_v4, public_v6},
        servers::misbehaving::{Misbehaving, Reply},
    };

    #[test]
    fn every_client_finds_the_addresses_of_a_name() {
        let network = Network::new().unwrap();
        let server = Misbehaving::start(&network.world, DNS_V4).unwrap();
        server.reply("api.example.com", [Reply::addresses(60, &[public_v4(1), public_v6(1)])]).unwrap();
        let to = DNS_V4.to_string();
        let with =
            |program: Vec<OsString>, more: &[&str]| [program, more.iter().map(OsString::from).collect()].concat();
        for words in [
            with(vec![musl().unwrap().into()], &["api.example.com"]),
            with(vec![go().unwrap().into()], &["api.example.com"]),
            with(node("lookup"), &["api.example.com"]),
            with(node("resolve"), &["api.example.com"]),
            with(ask(), &["udp", &to, "api.example.com"]),
            with(ask(), &["connected", &to, "api.example.com"]),
            with(ask(), &["mapped", &to, "api.example.com"]),
            with(ask(), &["tcp", &to, "api.example.com", "api.example.com"]),
        ] {
            let finished = network.client.command("env").args(&words).finish().unwrap();
            finished.expect_success().unwrap();
            assert!(finished.stdout.contains("198.20.1.1"), "{words:?}: {finished:?}");
        }
    }
}
