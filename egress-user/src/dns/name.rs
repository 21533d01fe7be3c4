//! Names as messages hold them, and as policies and people know them.

use std::{fmt::Write as _, str};

use hickory_resolver::proto::rr::Name;

use crate::policy::DomainName;

/// The name as policies know it; `None` where it has bytes that no policy can name.
pub(super) fn read(name: &Name) -> Option<DomainName> {
    let mut text = String::new();
    for label in name {
        // One label `a.b` is not the two labels `a` and `b`.
        let label = str::from_utf8(label).ok().filter(|label| label.is_ascii() && !label.contains('.'))?;
        text.push_str(label);
        text.push('.');
    }
    DomainName::parse(&text).ok()
}

/// The name as messages hold it.
pub(super) fn write(domain: &DomainName) -> Option<Name> {
    // As bytes: the parser's own idea of letters has no label that begins with a dash, and there are such names.
    Name::from_labels(domain.as_str().split('.').map(str::as_bytes)).ok()
}

/// The name as RFC 4343 section 2.1 has people write it, without the dot at its end.
pub(super) fn spell(name: &Name) -> String {
    let mut text = String::new();
    for label in name {
        if !text.is_empty() {
            text.push('.');
        }
        for byte in label {
            match byte {
                b'.' | b'\\' => text.extend(['\\', char::from(*byte)]),
                b'!'..=b'~' => text.push(char::from(*byte)),
                // Writing to a string cannot fail.
                _ => write!(text, "\\{byte:03}").unwrap_or_default(),
            }
        }
    }
    if text.is_empty() { ".".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_that_a_policy_can_have_is_written_and_read_again() {
        for text in [
            "localhost",
            "www.example.com",
            "-dash.example.com",
            "_sip._tcp.example.com",
            "a--b-.example",
            "4.in-addr.arpa",
        ] {
            let domain = DomainName::parse(text).unwrap();
            let name = write(&domain).unwrap();
            assert!(name.is_fqdn(), "{text}");
            assert_eq!((read(&name), spell(&name).as_str()), (Some(domain), text));
        }
        let longest = DomainName::parse(&["a"; 127].join(".")).unwrap();
        assert_eq!(write(&longest).as_ref().and_then(read), Some(longest));
    }
}
