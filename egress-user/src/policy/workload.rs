//! Which workload a policy governs, and what the policy is called.

use std::fmt;

use super::problem::Shown;

/// Bytes of a policy's name: it becomes part of file names and of metric labels.
const NAME_BYTES_MAX: usize = 64;

/// The name of a policy: letters, digits, `-`, `_` and `.`, the first a letter or digit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PolicyName(Box<str>);

impl PolicyName {
    /// Reads a name.
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        let starts_well = text.starts_with(|first: char| first.is_ascii_alphanumeric());
        let rest = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
        if starts_well && rest && text.len() <= NAME_BYTES_MAX {
            Ok(Self(text.into()))
        } else {
            Err(InvalidName(text.to_owned()))
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Text that is not a policy's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidName(String);

impl std::error::Error for InvalidName {}

impl fmt::Display for InvalidName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: expected a name of 1 to {NAME_BYTES_MAX} letters, digits, `-`, `_` and `.`, such as `ci-build`",
            Shown(&self.0)
        )
    }
}

/// Bytes of a cgroup path: `PATH_MAX` of Linux.
const CGROUP_BYTES_MAX: usize = 4096;

/// The cgroups that a policy governs: a path under the root of cgroup2, in which `*` stands for any part of one name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CgroupPattern(Box<str>);

impl CgroupPattern {
    /// Reads a pattern such as `agents.slice/untrusted-*`.
    pub fn parse(text: &str) -> Result<Self, InvalidCgroup> {
        let named = |part: &str| !matches!(part, "" | "." | "..") && !part.contains(char::is_control);
        if text.split('/').all(named) && text.len() < CGROUP_BYTES_MAX {
            Ok(Self(text.into()))
        } else {
            Err(InvalidCgroup(text.to_owned()))
        }
    }

    /// Whether the path under the root of cgroup2 is one of the cgroups.
    pub fn matches(&self, path: &str) -> bool {
        let (mut patterns, mut parts) = (self.0.split('/'), path.split('/'));
        loop {
            match (patterns.next(), parts.next()) {
                (None, None) => return true,
                (Some(pattern), Some(part)) if part_matches(pattern, part) => {}
                (Some(_) | None, Some(_) | None) => return false,
            }
        }
    }

    /// The pattern as it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether the pieces between the stars stand in the part in their order, the first at its start, the last at its end.
fn part_matches(pattern: &str, part: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else {
        return pattern == part;
    };
    let Some(mut part) = part.strip_prefix(first) else {
        return false;
    };
    let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
    for piece in middle.split('*') {
        let Some((_, after)) = part.split_once(piece) else {
            return false;
        };
        part = if piece.is_empty() { part } else { after };
    }
    part.ends_with(last)
}

impl fmt::Display for CgroupPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Text that is not a cgroup pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidCgroup(String);

impl std::error::Error for InvalidCgroup {}

impl fmt::Display for InvalidCgroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: expected a path under the root of cgroup2, such as `agents.slice/untrusted-*`, without `.` and `..`",
            Shown(&self.0)
        )?;
        if self.0.starts_with('/') { f.write_str(" and without the leading `/`") } else { Ok(()) }
    }
}

/// The processes that a policy governs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Workload {
    /// Their cgroups.
    pub cgroup: CgroupPattern,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_name_can_be_part_of_a_file_name() {
        let longest = "a".repeat(NAME_BYTES_MAX);
        for (text, expected) in [
            ("security-proxy_2.1", true),
            ("7", true),
            (&longest, true),
            (&format!("{longest}a"), false),
            ("", false),
            (".hidden", false),
            ("a/b", false),
            ("a b", false),
            ("a\0b", false),
            ("agent🤖", false),
        ] {
            assert_eq!(PolicyName::parse(text).is_ok(), expected, "{text:?}");
        }
    }

    #[test]
    fn a_star_stays_within_one_part_of_the_path() {
        for (pattern, path, expected) in [
            ("agents.slice/untrusted-*", "agents.slice/untrusted-7", true),
            ("agents.slice/untrusted-*", "agents.slice/untrusted-", true),
            ("agents.slice/untrusted-*", "agents.slice/trusted-7", false),
            ("agents.slice/untrusted-*", "agents.slice/untrusted-7/inner", false),
            ("agents.slice/untrusted-*", "agents.slice", false),
            ("*", "build", true),
            ("*/x", "build/x", true),
            ("a*b*c", "a--b--c", true),
            ("a*b*c", "abc", true),
            ("a*b*c", "ac", false),
            ("a*b*b", "ab", false),
            ("a*a", "a", false),
            ("a**a", "aa", true),
            ("build", "build2", false),
        ] {
            let read = CgroupPattern::parse(pattern).unwrap();
            assert_eq!(read.matches(path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn a_cgroup_pattern_stays_under_the_root() {
        for text in ["", "/", "/system.slice", "a//b", "a/", "../x", "a/./b", "a\0"] {
            assert!(CgroupPattern::parse(text).is_err(), "{text:?}");
        }
    }
}
