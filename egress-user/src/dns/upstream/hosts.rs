//! The hosts file, which says before any name server which addresses a name has (hosts(5)).

use std::{
    collections::BTreeMap,
    fs::{self, Metadata},
    io,
    net::IpAddr,
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use crate::policy::DomainName;

/// The hosts file. It is looked at for each question, so that a change counts at once, and read only after one: those that
/// block advertisements have a hundred thousand names.
#[derive(Debug)]
pub(super) struct HostsFile {
    path: PathBuf,
    /// What was read last, behind a lock because the tasks that ask share it. Nobody waits while holding it.
    last: Mutex<Listed>,
}

#[derive(Debug, Default)]
struct Listed {
    version: Option<Version>,
    names: BTreeMap<String, Vec<IpAddr>>,
}

/// What tells one content of the file from the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Version {
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

impl HostsFile {
    pub(super) fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), last: Mutex::default() }
    }

    /// The addresses of a name, in the order of the file; none if it is not there.
    pub(super) fn addresses(&self, name: &DomainName) -> Vec<IpAddr> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = self.refresh(&mut last) {
            tracing::debug!(%error, path = %self.path.display(), "read the hosts file");
            *last = Listed::default();
        }
        last.names.get(name.as_str()).cloned().unwrap_or_default()
    }

    fn refresh(&self, last: &mut Listed) -> io::Result<()> {
        let version = Version::of(&fs::metadata(&self.path)?);
        if last.version != Some(version) {
            let text = fs::read(&self.path)?;
            *last = Listed { version: Some(version), names: listed(&String::from_utf8_lossy(&text)) };
        }
        Ok(())
    }
}

impl Version {
    fn of(metadata: &Metadata) -> Self {
        let modified = (metadata.mtime(), metadata.mtime_nsec());
        Self { inode: metadata.ino(), bytes: metadata.size(), modified }
    }
}

fn listed(text: &str) -> BTreeMap<String, Vec<IpAddr>> {
    let mut names: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
    for line in text.lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let Some(address) = words.next().and_then(|word| word.parse::<IpAddr>().ok()) else { continue };
        for name in words {
            names.entry(name.trim_end_matches('.').to_ascii_lowercase()).or_default().push(address);
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_the_addresses_of_all_their_lines() {
        let text =
            "# all\n127.0.0.1\tlocalhost Here.Example. # here.org\n\n::1 localhost\nfe80::1%lo0 localhost\n10.0.0.1";
        for (name, expected) in [
            ("localhost", &["127.0.0.1", "::1"][..]),
            ("here.example", &["127.0.0.1"]),
            ("here.org", &[]),
            ("there.example", &[]),
        ] {
            let expected: Vec<IpAddr> = expected.iter().map(|address| address.parse().unwrap()).collect();
            assert_eq!(listed(text).remove(name).unwrap_or_default(), expected, "{name}");
        }
    }

    #[test]
    fn the_file_is_read_again_only_when_it_changes() {
        let path = std::env::temp_dir().join(format!("egress-hosts-{}", std::process::id()));
        let (file, name) = (HostsFile::at(&path), DomainName::parse("api.example").unwrap());
        assert_eq!(file.addresses(&name).len(), 0, "there is no file");
        fs::write(&path, "192.0.2.1 api.example\n").unwrap();
        assert_eq!(file.addresses(&name).len(), 1);
        file.last.lock().unwrap().names.clear();
        assert_eq!(file.addresses(&name).len(), 0, "it was read for nothing");
        fs::write(&path, "192.0.2.1 api.example\n192.0.2.2 api.example\n").unwrap();
        assert_eq!(file.addresses(&name).len(), 2);
        fs::remove_file(&path).unwrap();
        assert_eq!(file.addresses(&name).len(), 0);
    }
}
