//! Types of records and how they are written.

use std::fmt;

use crate::policy::problem::Shown;

/// The type of a record: its number in DNS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RecordType(pub u16);

/// The types that have a name here, from the IANA registry of DNS parameters; the others are written `TYPE123` (RFC 3597).
const NAMES: &[(&str, u16)] = &[
    ("A", 1),
    ("NS", 2),
    ("CNAME", 5),
    ("SOA", 6),
    ("NULL", 10),
    ("PTR", 12),
    ("HINFO", 13),
    ("MX", 15),
    ("TXT", 16),
    ("RP", 17),
    ("AFSDB", 18),
    ("SIG", 24),
    ("KEY", 25),
    ("AAAA", 28),
    ("LOC", 29),
    ("SRV", 33),
    ("NAPTR", 35),
    ("KX", 36),
    ("CERT", 37),
    ("DNAME", 39),
    ("OPT", 41),
    ("APL", 42),
    ("DS", 43),
    ("SSHFP", 44),
    ("IPSECKEY", 45),
    ("RRSIG", 46),
    ("NSEC", 47),
    ("DNSKEY", 48),
    ("DHCID", 49),
    ("NSEC3", 50),
    ("NSEC3PARAM", 51),
    ("TLSA", 52),
    ("SMIMEA", 53),
    ("HIP", 55),
    ("CDS", 59),
    ("CDNSKEY", 60),
    ("OPENPGPKEY", 61),
    ("CSYNC", 62),
    ("ZONEMD", 63),
    ("SVCB", 64),
    ("HTTPS", 65),
    ("SPF", 99),
    ("EUI48", 108),
    ("EUI64", 109),
    ("NXNAME", 128),
    ("TKEY", 249),
    ("TSIG", 250),
    ("IXFR", 251),
    ("AXFR", 252),
    ("MAILB", 253),
    ("MAILA", 254),
    ("ANY", 255),
    ("URI", 256),
    ("CAA", 257),
];

impl RecordType {
    /// An IPv4 address.
    pub const A: Self = Self(1);
    /// Another name for the name.
    pub const CNAME: Self = Self(5);
    /// The name of an address.
    pub const PTR: Self = Self(12);
    /// An IPv6 address.
    pub const AAAA: Self = Self(28);
    /// How a service is reached (RFC 9460).
    pub const SVCB: Self = Self(64);
    /// How a web server is reached (RFC 9460).
    pub const HTTPS: Self = Self(65);

    /// What may be asked where a policy does not say.
    pub const DEFAULT: [Self; 5] = [Self::A, Self::CNAME, Self::AAAA, Self::SVCB, Self::HTTPS];

    /// Reads `AAAA` or `TYPE28`, if it is a type that a policy may list.
    pub fn parse(text: &str) -> Result<Self, InvalidRecordType> {
        let invalid = |what| InvalidRecordType { text: text.to_owned(), what };
        let kind = named(text).or_else(|| numbered(text)).ok_or_else(|| {
            let upper = text.to_ascii_uppercase();
            invalid(if named(&upper).is_some() { Wrong::Case(upper) } else { Wrong::Unknown })
        })?;
        if kind.is_meta() { Err(invalid(Wrong::Meta)) } else { Ok(kind) }
    }

    /// Whether it is no type of data: what only messages and transfers have (RFC 6895 section 3.1), and reserved numbers.
    pub fn is_meta(self) -> bool {
        matches!(self.0, 0 | 41 | 128..=255 | 65_535)
    }
}

fn named(text: &str) -> Option<RecordType> {
    NAMES.iter().find(|(name, _)| *name == text).map(|(_, number)| RecordType(*number))
}

/// A number has one spelling, so that a list of types is easy to search for one.
fn numbered(text: &str) -> Option<RecordType> {
    let digits = text.strip_prefix("TYPE")?;
    let is_plain = digits == "0" || digits.starts_with(|first: char| matches!(first, '1'..='9'));
    digits.parse().ok().filter(|_| is_plain).map(RecordType)
}

impl fmt::Display for RecordType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.iter().find(|(_, number)| *number == self.0) {
            Some((name, _)) => f.write_str(name),
            None => write!(f, "TYPE{}", self.0),
        }
    }
}

/// Text that is not a type of records that a policy may list, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidRecordType {
    text: String,
    what: Wrong,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Wrong {
    Unknown,
    Case(String),
    Meta,
}

impl std::error::Error for InvalidRecordType {}

impl fmt::Display for InvalidRecordType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { text, what } = self;
        write!(f, "{}: ", Shown(text))?;
        match what {
            Wrong::Unknown => f.write_str("expected a type of records such as `AAAA`, `TXT` or `TYPE65280`"),
            Wrong::Case(upper) => write!(f, "types are written in capitals; expected `{upper}`"),
            Wrong::Meta => f.write_str(
                "is no type of data that a name can have, and is always refused; expected one such as `AAAA` or `TXT`",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_a_name_or_a_number_and_has_one_spelling() {
        for (text, number, expected) in [
            ("A", 1, "A"),
            ("TYPE1", 1, "A"),
            ("HTTPS", 65, "HTTPS"),
            ("TYPE65", 65, "HTTPS"),
            ("TYPE65280", 65_280, "TYPE65280"),
            ("TYPE3", 3, "TYPE3"),
            ("CAA", 257, "CAA"),
        ] {
            let kind = RecordType::parse(text).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!((kind.0, kind.to_string().as_str()), (number, expected), "{text}");
        }
    }

    #[test]
    fn what_no_name_has_and_what_is_misspelled_is_refused_with_what_would_be_right() {
        for (text, expected) in [
            ("ANY", "no type of data"),
            ("TYPE255", "no type of data"),
            ("AXFR", "no type of data"),
            ("IXFR", "no type of data"),
            ("OPT", "no type of data"),
            ("TYPE0", "no type of data"),
            ("TYPE128", "no type of data"),
            ("TYPE65535", "no type of data"),
            ("aaaa", "expected `AAAA`"),
            ("Any", "expected `ANY`"),
            ("TYPE65536", "expected a type"),
            ("TYPE", "expected a type"),
            ("TYPE01", "expected a type"),
            ("TYPE+1", "expected a type"),
            ("type1", "expected a type"),
            ("28", "expected a type"),
            ("IPV4", "expected a type"),
            ("", "expected a type"),
        ] {
            let message = RecordType::parse(text).unwrap_err().to_string();
            assert!(message.contains(expected), "{text}: {message}");
        }
    }

    #[test]
    fn names_and_numbers_are_listed_once_in_their_order() {
        assert!(NAMES.is_sorted_by(|(_, number), (_, next)| number < next));
        for (name, number) in NAMES {
            assert_eq!(named(name), Some(RecordType(*number)), "{name}");
            assert_eq!(RecordType(*number).to_string(), *name);
        }
    }
}
