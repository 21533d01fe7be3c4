//! The dependency rules between modules, read from the sources.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Text that may stand only in some places.
struct Rule {
    /// What the text would mean.
    about: &'static str,
    texts: &'static [&'static str],
    /// Folders and files, under `egress-user/src`, in which it may stand.
    only_in: &'static [&'static str],
}

const RULES: &[Rule] = &[
    Rule { about: "aya has one user", texts: &["aya::", "use aya"], only_in: &["kernel/"] },
    Rule {
        about: "tokio is for shells",
        texts: &["tokio::", "use tokio"],
        only_in: &["daemon/", "commands/", "dns/", "audit/"],
    },
    Rule { about: "YAML is read in one place", texts: &["serde_yaml::", "use serde_yaml"], only_in: &["policy/"] },
    Rule {
        about: "names are resolved in one place",
        texts: &["hickory_resolver::", "use hickory_resolver"],
        only_in: &["dns/"],
    },
    Rule { about: "only commands use the daemon", texts: &["crate::daemon"], only_in: &["commands/", "daemon/"] },
];

/// Modules that take values and the time and return values.
const PURE: &[&str] = &[
    "policy/",
    "compile/",
    "flow/",
    "detect/",
    "engine/",
    "respond.rs",
    "dns/admission.rs",
    "dns/budget/",
    "dns/cache/",
    "dns/exchange/",
    "dns/message/",
    "dns/name.rs",
    "dns/release/",
    "dns/upstream/chain.rs",
];

/// What a pure module does not do: clocks, files, sockets, processes, threads, output.
const IMPURE: &[&str] = &[
    "Instant::now",
    "SystemTime::now",
    "Timestamp::now",
    "Zoned::now",
    "clock_gettime",
    "std::fs",
    "std::io",
    "std::process",
    "std::thread",
    "std::env",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "nix::",
    "libc::",
    "tokio::",
    "aya::",
];

/// Lines of a file. A longer one has more than one idea.
const LINES_MAX: usize = 400;

#[test]
fn modules_use_only_what_their_layer_may() {
    let mut found = Vec::new();
    for source in sources("egress-user/src") {
        for rule in RULES.iter().filter(|rule| !source.is_in(rule.only_in)) {
            found.extend(source.finds(rule.texts).map(|place| format!("{place}: {}", rule.about)));
        }
        if source.is_in(PURE) {
            found.extend(source.finds(IMPURE).map(|place| format!("{place}: this module is pure")));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn the_kernel_half_and_the_shared_half_know_nothing_of_the_user_half() {
    let mut found = Vec::new();
    for folder in ["egress-common", "egress-ebpf"] {
        for source in sources(&format!("{folder}/src")) {
            found.extend(source.finds(&["egress_user", "std::"]).collect::<Vec<_>>());
        }
        let manifest = fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
        assert!(!manifest.contains("egress-user"), "{folder} depends on egress-user");
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn a_file_has_one_idea() {
    let folders = ["egress-common/src", "egress-ebpf/src", "egress-user/src", "egress-user/tests"];
    let long: Vec<String> = folders
        .iter()
        .flat_map(|folder| sources(folder))
        .map(|source| (source.text.lines().count(), source))
        .filter(|(lines, _)| *lines > LINES_MAX)
        .map(|(lines, source)| format!("{}: {lines} lines, more than {LINES_MAX}", source.path))
        .collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
}

#[test]
fn the_search_finds_what_it_is_for_and_nothing_in_comments() {
    let source = Source {
        path: "policy/x.rs".to_owned(),
        text: "//! std::fs is not used.\nuse std::fs;\nlet x = 1; // tokio::\nlet t = tokio::spawn(f);\n".to_owned(),
    };
    let found: Vec<String> = source.finds(IMPURE).collect();
    assert_eq!(found, ["policy/x.rs:2: `std::fs`", "policy/x.rs:4: `tokio::`"]);
    assert!(source.is_in(&["policy/"]));
    assert!(!source.is_in(&["polic/", "x.rs"]));
    assert!(sources("egress-user/src").len() > 20, "the sources were not found");
}

/// A source file.
struct Source {
    /// Path under the folder that was asked for.
    path: String,
    text: String,
}

impl Source {
    fn is_in(&self, places: &[&str]) -> bool {
        places.iter().any(|place| self.path == *place || (place.ends_with('/') && self.path.starts_with(place)))
    }

    /// Each line of code that has one of the texts.
    fn finds(&self, texts: &[&str]) -> impl Iterator<Item = String> {
        self.text.lines().zip(1..).flat_map(move |(line, number)| {
            let code = line.split("//").next().unwrap_or(line);
            let found = texts.iter().filter(|text| code.contains(**text));
            found.map(|text| format!("{}:{number}: `{text}`", self.path)).collect::<Vec<_>>()
        })
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn sources(folder: &str) -> Vec<Source> {
    let top = root().join(folder);
    let (mut sources, mut folders) = (Vec::new(), vec![top.clone()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                sources.push(Source { path: path.strip_prefix(&top).unwrap().to_str().unwrap().to_owned(), text });
            }
        }
    }
    sources.sort_by(|one, other| one.path.cmp(&other.path));
    sources
}
