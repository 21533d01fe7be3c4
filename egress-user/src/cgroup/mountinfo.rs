//! Where the cgroup2 hierarchy is mounted and which cgroup a process is in, read from the text of `/proc`.

use std::{
    ffi::OsString,
    os::unix::ffi::OsStringExt as _,
    path::{Component, Path, PathBuf},
};

/// A mount of the cgroup2 hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    /// The cgroup that is seen at the mount point; `/` unless only a part of the hierarchy is mounted.
    pub(super) root: PathBuf,
    /// The mount point.
    pub(super) point: PathBuf,
}

impl Mount {
    /// The directory of a cgroup, if this mount shows it.
    pub(super) fn directory(&self, cgroup: &Path) -> Option<PathBuf> {
        let climbs = |path: &Path| path.components().any(|part| part == Component::ParentDir);
        // Both are relative to the cgroup namespace, and one outside of it is spelled `/..`.
        if climbs(cgroup) || climbs(&self.root) {
            return None;
        }
        let below = cgroup.strip_prefix(&self.root).ok()?;
        // Joining an empty path would add a slash.
        if below.as_os_str().is_empty() { Some(self.point.clone()) } else { Some(self.point.join(below)) }
    }
}

/// Every mount of cgroup2 in the text of `/proc/self/mountinfo`, in its order.
pub(super) fn cgroup2_mounts(mountinfo: &str) -> Vec<Mount> {
    mountinfo.lines().filter_map(cgroup2_mount).collect()
}

/// The cgroup2 cgroup in the text of `/proc/self/cgroup`; hybrid systems list the old hierarchies beside it.
pub(super) fn own_cgroup(text: &str) -> Option<PathBuf> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    // The kernel's word for a cgroup that was removed while the process was in it.
    if path.ends_with(" (deleted)") { None } else { Some(PathBuf::from(path)) }
}

/// One line of mountinfo: `36 35 98:0 ROOT POINT rw,noatime master:1 - cgroup2 SOURCE rw`.
fn cgroup2_mount(line: &str) -> Option<Mount> {
    let (left, right) = line.split_once(" - ")?;
    if right.split(' ').next() != Some("cgroup2") {
        return None;
    }
    let mut fields = left.split(' ').skip(3);
    let (root, point) = (fields.next()?, fields.next()?);
    Some(Mount { root: unescape(root), point: unescape(point) })
}

/// Undoes the kernel's spelling of space, tab, newline and backslash as `\` and three octal digits.
fn unescape(field: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let [first, after @ ..] = rest {
        if let (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) = (first, after) {
            bytes.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
            rest = after;
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroup2_is_found_beside_the_old_hierarchies() {
        let text = "\
25 1 0:22 / /proc rw,nosuid - proc proc rw
30 25 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 30 0:35 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate
";
        let expected = Mount { root: PathBuf::from("/"), point: PathBuf::from("/sys/fs/cgroup/unified") };
        assert_eq!(cgroup2_mounts(text), [expected]);
    }

    #[test]
    fn a_mount_without_optional_fields_and_with_spaces_is_read() {
        let text = r"40 30 0:35 /docker/a\040b /mnt/c\134g rw - cgroup2 none rw";
        let expected = Mount { root: PathBuf::from("/docker/a b"), point: PathBuf::from(r"/mnt/c\g") };
        assert_eq!(cgroup2_mounts(text), [expected]);
    }

    #[test]
    fn text_that_is_no_mount_of_cgroup2_is_passed_over() {
        for text in ["", "nonsense", "40 30 0:35 / /sys - ext4 cgroup2 rw", "40 30 - cgroup2 none rw", " - cgroup2"] {
            assert_eq!(cgroup2_mounts(text), [], "{text:?}");
        }
    }

    #[test]
    fn the_own_cgroup_is_the_line_of_hierarchy_zero() {
        for (text, expected) in [
            ("9:name=systemd:/\n4:memory:/api/9720\n0::/\n", Some("/")),
            ("0::/user.slice/user-1000.slice/session-3.scope\n", Some("/user.slice/user-1000.slice/session-3.scope")),
            ("0::/a:b::c\n", Some("/a:b::c")),
            ("0::/gone (deleted)\n", None),
            ("4:memory:/x\n", None),
            ("", None),
        ] {
            assert_eq!(own_cgroup(text), expected.map(PathBuf::from), "{text:?}");
        }
    }

    #[test]
    fn a_cgroup_is_found_through_a_mount_of_a_part_of_the_hierarchy() {
        for (root, point, cgroup, expected) in [
            ("/", "/sys/fs/cgroup", "/", Some("/sys/fs/cgroup")),
            ("/", "/sys/fs/cgroup", "/a/b", Some("/sys/fs/cgroup/a/b")),
            ("/docker/1", "/sys/fs/cgroup", "/docker/1/x", Some("/sys/fs/cgroup/x")),
            ("/docker/1", "/sys/fs/cgroup", "/docker/1", Some("/sys/fs/cgroup")),
            ("/docker/1", "/sys/fs/cgroup", "/docker/12", None),
            ("/docker/1", "/sys/fs/cgroup", "/", None),
            ("/", "/sys/fs/cgroup", "/../other", None),
            ("/../..", "/sys/fs/cgroup", "/../../x", None),
        ] {
            let mount = Mount { root: PathBuf::from(root), point: PathBuf::from(point) };
            assert_eq!(mount.directory(Path::new(cgroup)), expected.map(PathBuf::from), "{root} {cgroup}");
        }
    }
}
