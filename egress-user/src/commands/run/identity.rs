//! Whom the command runs as.

use std::ffi::{CString, OsString};

use anyhow::{Context as _, bail};
use nix::unistd::{Gid, Uid, User, getgrouplist};

/// A user with everything that a process of theirs has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) uid: Uid,
    pub(super) gid: Gid,
    pub(super) groups: Vec<Gid>,
    /// `HOME`, `USER` and `LOGNAME`.
    pub(super) environment: Vec<(&'static str, OsString)>,
}

/// What was asked for, and what is so.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish<'a> {
    /// `--user`.
    pub(super) user: Option<&'a str>,
    /// Whether this process is root.
    pub(super) is_root: bool,
    /// `SUDO_UID` and `SUDO_GID`.
    pub(super) sudo: Option<(&'a str, &'a str)>,
}

/// Who was chosen, before the user database is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Choice {
    /// Whoever this process is.
    Same,
    Name(String),
    Id(Uid, Option<Gid>),
}

/// The user to run as; `None` for the one that this process runs as.
pub(super) fn choose(wish: Wish<'_>) -> anyhow::Result<Option<Identity>> {
    match choice(wish)? {
        Choice::Same => Ok(None),
        Choice::Name(name) => {
            let user = User::from_name(&name).with_context(|| format!("look up user `{name}`"))?;
            known(user.with_context(|| format!("there is no user `{}`", name.escape_debug()))?, None).map(Some)
        }
        Choice::Id(uid, gid) => {
            let user = User::from_uid(uid).with_context(|| format!("look up user {uid}"))?;
            user.map_or_else(|| Ok(nameless(uid, gid)), |user| known(user, gid)).map(Some)
        }
    }
}

fn choice(wish: Wish<'_>) -> anyhow::Result<Choice> {
    let Wish { user, is_root, sudo } = wish;
    if let Some(user) = user {
        return Ok(user
            .parse()
            .map_or_else(|_| Choice::Name(user.to_owned()), |uid| Choice::Id(Uid::from_raw(uid), None)));
    }
    let Some((uid, gid)) = sudo.filter(|_| is_root) else {
        return Ok(Choice::Same);
    };
    match (uid.parse(), gid.parse()) {
        (Ok(uid), Ok(gid)) => Ok(Choice::Id(Uid::from_raw(uid), Some(Gid::from_raw(gid)))),
        (Ok(_) | Err(_), Ok(_) | Err(_)) => {
            bail!("`SUDO_UID` and `SUDO_GID` are not numbers; say who runs the command with `--user`")
        }
    }
}

/// A user that no database knows, as containers have them.
fn nameless(uid: Uid, gid: Option<Gid>) -> Identity {
    let gid = gid.unwrap_or(Gid::from_raw(uid.as_raw()));
    Identity { uid, gid, groups: vec![gid], environment: vec![("HOME", OsString::from("/"))] }
}

fn known(user: User, gid: Option<Gid>) -> anyhow::Result<Identity> {
    let gid = gid.unwrap_or(user.gid);
    let name = CString::new(user.name.as_str()).context("the user's name has a zero byte")?;
    let groups = getgrouplist(&name, gid).with_context(|| format!("list the groups of `{}`", user.name))?;
    let environment = vec![
        ("HOME", user.dir.into_os_string()),
        ("USER", OsString::from(&user.name)),
        ("LOGNAME", OsString::from(&user.name)),
    ];
    Ok(Identity { uid: user.uid, gid, groups, environment })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn under_sudo_the_command_runs_as_the_caller_unless_told_otherwise() {
        let caller = Choice::Id(Uid::from_raw(1000), Some(Gid::from_raw(100)));
        for (user, is_root, sudo, expected) in [
            (None, true, Some(("1000", "100")), caller),
            (None, true, None, Choice::Same),
            (None, false, Some(("1000", "100")), Choice::Same),
            (Some("nobody"), true, Some(("1000", "100")), Choice::Name("nobody".to_owned())),
            (Some("65534"), true, None, Choice::Id(Uid::from_raw(65534), None)),
        ] {
            let wish = Wish { user, is_root, sudo };
            assert_eq!(choice(wish).unwrap(), expected, "{wish:?}");
        }
    }

    #[test]
    fn a_caller_that_sudo_did_not_spell_as_a_number_is_an_error() {
        assert!(choice(Wish { user: None, is_root: true, sudo: Some(("me", "100")) }).is_err());
    }

    #[test]
    fn a_user_that_is_not_there_is_an_error_and_a_number_is_not() {
        let wish = |user| Wish { user: Some(user), is_root: true, sudo: None };
        assert!(choose(wish("no-such-user-here")).is_err());
        let identity = choose(wish("4000000")).unwrap().unwrap();
        assert_eq!((identity.uid.as_raw(), identity.groups), (4_000_000, vec![Gid::from_raw(4_000_000)]));
    }
}
