//! Domain names and the patterns that rules match them with.

use std::fmt;

use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};
use psl::Psl as _;

use super::problem::Shown;

/// A domain name: ASCII, lower case, without the trailing dot, with labels of 1 to 63 bytes, 253 bytes in all.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DomainName(Box<str>);

/// Bytes of a name: RFC 1035 section 2.3.4 has 255 with the length bytes, of which the root and the first take two.
const DOMAIN_BYTES_MAX: usize = 253;

/// Bytes of a label: RFC 1035 section 2.3.4.
pub(super) const LABEL_BYTES_MAX: usize = 63;

impl DomainName {
    /// Reads a name as people write it: any case, with or without the trailing dot, international names in either form.
    pub fn parse(text: &str) -> Result<Self, InvalidDomain> {
        let invalid = |what| InvalidDomain { text: text.to_owned(), what };
        let name = text.strip_suffix('.').unwrap_or(text);
        if name.is_empty() {
            return Err(invalid(Wrong::Empty));
        }
        let ascii = if name.is_ascii() { name.to_ascii_lowercase() } else { to_ascii(name).map_err(invalid)? };
        // Names that are in their ASCII form already may hide what their international form would be refused for.
        if name.is_ascii() && ascii.split('.').any(|label| label.starts_with("xn--")) {
            to_ascii(&ascii).map_err(invalid)?;
        }
        check(&ascii).map_err(invalid)?;
        Ok(Self(ascii.into_boxed_str()))
    }

    /// The name as DNS questions hold it, without the trailing dot.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name without its first label, if more than one label is left or one is.
    pub(crate) fn parents(&self) -> impl Iterator<Item = &str> {
        std::iter::successors(self.0.split_once('.').map(|(_, parent)| parent), |name| {
            name.split_once('.').map(|(_, parent)| parent)
        })
    }

    fn is_public_suffix(&self) -> bool {
        psl::List
            .suffix(self.0.as_bytes())
            .is_some_and(|suffix| suffix.is_known() && suffix.as_bytes().len() == self.0.len())
    }
}

impl fmt::Display for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn to_ascii(name: &str) -> Result<String, Wrong> {
    let uts46 = Uts46::new();
    let ascii = match uts46.to_ascii(name.as_bytes(), AsciiDenyList::EMPTY, Hyphens::Allow, DnsLength::Ignore) {
        Ok(ascii) => ascii.into_owned(),
        Err(_) => return Err(Wrong::Idna),
    };
    let (unicode, _) = uts46.to_unicode(ascii.as_bytes(), AsciiDenyList::EMPTY, Hyphens::Allow);
    if unicode.chars().any(is_symbol) { Err(Wrong::Symbol) } else { Ok(ascii) }
}

/// IDNA 2008 (RFC 5892 section 2) has no symbols, emoji among them; UTS 46, which the `idna` crate follows, lets them
/// pass, and a name that looks like another is how people are led astray.
fn is_symbol(character: char) -> bool {
    match character {
        // The joiners have a use in some scripts, and UTS 46 checks it.
        '\u{200c}' | '\u{200d}' => false,
        '\u{2000}'..='\u{2bff}' | '\u{fe00}'..='\u{fe0f}' | '\u{1f000}'..='\u{1fbff}' | '\u{e0000}'.. => true,
        _ => false,
    }
}

fn check(ascii: &str) -> Result<(), Wrong> {
    if ascii.parse::<std::net::IpAddr>().is_ok() {
        return Err(Wrong::Address);
    }
    for label in ascii.split('.') {
        if label.is_empty() {
            return Err(Wrong::EmptyLabel);
        }
        if label.len() > LABEL_BYTES_MAX {
            return Err(Wrong::LongLabel { bytes: label.len() });
        }
        if let Some(byte) = label.bytes().find(|byte| !matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_')) {
            return Err(Wrong::Character { character: char::from(byte) });
        }
    }
    if ascii.len() > DOMAIN_BYTES_MAX {
        return Err(Wrong::Long { bytes: ascii.len() });
    }
    // Programs read `10.1` and `0x7f.1` as addresses, so they never come to the resolver.
    let last = ascii.rsplit('.').next().unwrap_or(ascii);
    let hexadecimal = last.strip_prefix("0x").is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    if hexadecimal || last.bytes().all(|byte| byte.is_ascii_digit()) { Err(Wrong::Number) } else { Ok(()) }
}

/// Text that is not a domain name, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidDomain {
    text: String,
    what: Wrong,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Wrong {
    Empty,
    EmptyLabel,
    LongLabel { bytes: usize },
    Long { bytes: usize },
    Character { character: char },
    Idna,
    Symbol,
    Address,
    Number,
    Wildcard,
    PublicSuffix,
}

impl std::error::Error for InvalidDomain {}

impl fmt::Display for InvalidDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { text, what } = self;
        write!(f, "{}: ", Shown(text))?;
        match what {
            Wrong::Empty => f.write_str("expected a domain such as `example.com` or `*.example.com`"),
            Wrong::EmptyLabel => f.write_str("a label is empty; expected a domain such as `example.com`"),
            Wrong::LongLabel { bytes } => {
                write!(f, "a label has {bytes} bytes; a domain's labels have at most {LABEL_BYTES_MAX}")
            }
            Wrong::Long { bytes } => write!(f, "has {bytes} bytes; a domain has at most {DOMAIN_BYTES_MAX}"),
            Wrong::Character { character: ':' } => {
                f.write_str("`:` cannot be in a domain; expected a domain such as `example.com`, and ports under `ports`")
            }
            Wrong::Character { character } => write!(
                f,
                "{} cannot be in a domain; expected letters, digits, `-`, `_` and dots, as in `example.com`",
                Shown(&character.to_string())
            ),
            Wrong::Idna => {
                f.write_str("is not a valid international domain; expected a domain such as `bücher.example`")
            }
            Wrong::Symbol => f.write_str(
                "symbols and emoji cannot be in a domain (IDNA 2008); expected a domain such as `example.com`",
            ),
            Wrong::Address => write!(f, "is an address, not a domain; expected `network: {text}`"),
            Wrong::Number => {
                f.write_str("ends in a number, so it is no domain; expected one such as `example.com`, or an address")
            }
            Wrong::Wildcard => f.write_str("`*` can only be the whole first label, as in `*.example.com`"),
            Wrong::PublicSuffix => f.write_str(
                "is a public suffix, below which anyone may have a name; expected a name below it, or each name that is \
                 meant",
            ),
        }
    }
}

/// The names that a rule is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DomainPattern {
    /// This name and no other.
    Exact(DomainName),
    /// Every name below this one, at any depth, and not the name itself.
    Below(DomainName),
}

impl DomainPattern {
    /// Reads `example.com` or `*.example.com`.
    pub fn parse(text: &str) -> Result<Self, InvalidDomain> {
        let invalid = |what| InvalidDomain { text: text.to_owned(), what };
        let Some(parent) = text.strip_prefix("*.") else {
            return if text.contains('*') {
                Err(invalid(Wrong::Wildcard))
            } else {
                DomainName::parse(text).map(Self::Exact)
            };
        };
        if parent.contains('*') {
            return Err(invalid(Wrong::Wildcard));
        }
        let parent = DomainName::parse(parent).map_err(|InvalidDomain { text: _, what }| invalid(what))?;
        if parent.is_public_suffix() { Err(invalid(Wrong::PublicSuffix)) } else { Ok(Self::Below(parent)) }
    }

    /// Whether the rule is about this name.
    pub fn matches(&self, name: &DomainName) -> bool {
        match self {
            Self::Exact(exact) => exact == name,
            Self::Below(parent) => name
                .as_str()
                .strip_suffix(parent.as_str())
                .is_some_and(|before| before.len() > 1 && before.ends_with('.')),
        }
    }
}

impl fmt::Display for DomainPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => write!(f, "{name}"),
            Self::Below(parent) => write!(f, "*.{parent}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> DomainName {
        DomainName::parse(text).unwrap()
    }

    #[test]
    fn a_name_has_one_spelling() {
        for (text, expected) in [
            ("example.com", "example.com"),
            ("Example.COM.", "example.com"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("BÜCHER.example", "xn--bcher-kva.example"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("例え.jp", "xn--r8jz45g.jp"),
            ("_sip._tcp.example.com", "_sip._tcp.example.com"),
            ("r3---sn-4g5e6nsz.googlevideo.com", "r3---sn-4g5e6nsz.googlevideo.com"),
            ("localhost", "localhost"),
        ] {
            assert_eq!(name(text).as_str(), expected, "{text}");
        }
    }

    #[test]
    fn the_longest_names_are_read_and_one_byte_more_is_refused() {
        let label = "a".repeat(63);
        let longest = format!("{label}.{label}.{label}.{}", "b".repeat(61));
        assert_eq!(name(&longest).as_str().len(), DOMAIN_BYTES_MAX);
        assert!(DomainName::parse(&format!("{longest}b")).is_err());
        assert!(DomainName::parse(&format!("{label}a.com")).is_err());
    }

    #[test]
    fn what_is_no_domain_is_refused() {
        for text in [
            "",
            ".",
            "..",
            "a..b",
            ".example.com",
            "example.com..",
            "exa mple.com",
            "a\0b.com",
            "💩.la",
            "i❤.ws",
            "xn--i-7iq.ws",
            "10.0.0.1",
            "::1",
            "10.0.0.256",
            "127.1",
            "host.0x7f",
            "http://example.com",
            "example.com/x",
            "user@example.com",
            "xn--a",
            "a\u{202e}b.com",
            "*",
        ] {
            assert!(DomainName::parse(text).is_err(), "{text:?} was read as {:?}", DomainName::parse(text));
        }
    }

    #[test]
    fn wildcards_stop_at_label_boundaries() {
        let pattern = DomainPattern::parse("*.example.com").unwrap();
        for (text, expected) in [
            ("www.example.com", true),
            ("a.b.example.com", true),
            ("WWW.Example.com.", true),
            ("example.com", false),
            ("badexample.com", false),
            ("example.com.evil.org", false),
            ("www.example.org", false),
        ] {
            assert_eq!(pattern.matches(&name(text)), expected, "{text}");
        }
        assert!(!DomainPattern::parse("example.com").unwrap().matches(&name("www.example.com")));
    }

    #[test]
    fn a_wildcard_on_a_public_suffix_is_refused() {
        for (text, expected) in [
            ("*.com", false),
            ("*.COM.", false),
            ("*.co.uk", false),
            ("*.github.io", false),
            ("*.s3.amazonaws.com", false),
            ("*.foo.ck", false),
            ("*.example.com", true),
            ("*.example.co.uk", true),
            ("*.someone.github.io", true),
            ("*.internal", true),
            ("*.cluster.local", true),
            ("*", false),
            ("*.", false),
            ("*.*.example.com", false),
            ("a*.example.com", false),
            ("www.*.example.com", false),
        ] {
            assert_eq!(DomainPattern::parse(text).is_ok(), expected, "{text}");
        }
    }

    #[test]
    fn parents_are_named_from_the_nearest_up() {
        assert_eq!(name("a.b.example.com").parents().collect::<Vec<_>>(), ["b.example.com", "example.com", "com"]);
    }
}
