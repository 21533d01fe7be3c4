//! Spans of time as policy files have them: `90s`, `5m`, `1h`, `1d`.

use std::fmt;

use crate::policy::problem::Shown;

/// Each unit and its seconds, the longest first.
const UNITS: [(char, u32); 4] = [('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];

/// A whole number of seconds, written with the longest unit that leaves no fraction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Seconds(pub(super) u32);

impl Seconds {
    /// Reads a span of at most `longest`.
    pub(super) fn parse(text: &str, longest: Self) -> Result<Self, InvalidDuration> {
        let invalid = |what| InvalidDuration { text: text.to_owned(), what };
        let unit = UNITS.iter().find_map(|(unit, seconds)| text.strip_suffix(*unit).map(|digits| (digits, *seconds)));
        let (digits, seconds) = unit.unwrap_or((text, 1));
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        match (unit, is_number) {
            (None, true) => return Err(invalid(Wrong::NoUnit)),
            (_, false) => return Err(invalid(Wrong::Unknown)),
            (Some(_), true) => {}
        }
        // Digits that are too many for the type are too many for the limit as well.
        match digits.parse::<u32>().ok().and_then(|count| count.checked_mul(seconds)).map(Self) {
            Some(span) if span <= longest => Ok(span),
            Some(_) | None => Err(invalid(Wrong::Long(longest))),
        }
    }
}

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = UNITS.iter().find(|(_, seconds)| self.0 != 0 && self.0.is_multiple_of(*seconds));
        let (unit, seconds) = unit.unwrap_or(&('s', 1));
        write!(f, "{}{unit}", self.0.checked_div(*seconds).unwrap_or(0))
    }
}

/// Text that is not a span of time, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct InvalidDuration {
    text: String,
    what: Wrong,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Wrong {
    Unknown,
    NoUnit,
    Long(Seconds),
}

impl fmt::Display for InvalidDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { text, what } = self;
        write!(f, "{}: ", Shown(text))?;
        match what {
            Wrong::Unknown => f.write_str("expected a time such as `90s`, `5m`, `1h` or `1d`"),
            Wrong::NoUnit => write!(f, "has no unit; expected a time such as `{text}s`"),
            Wrong::Long(longest) => write!(f, "is too long; expected at most `{longest}`"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Seconds = Seconds(86_400);

    #[test]
    fn a_time_is_shown_with_its_longest_unit() {
        for (text, seconds, expected) in [
            ("0s", 0, "0s"),
            ("0d", 0, "0s"),
            ("90s", 90, "90s"),
            ("60s", 60, "1m"),
            ("05m", 300, "5m"),
            ("24h", 86_400, "1d"),
            ("1d", 86_400, "1d"),
        ] {
            let span = Seconds::parse(text, DAY).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!((span.0, span.to_string().as_str()), (seconds, expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused_with_what_would_be_right() {
        for (text, expected) in [
            ("", "expected a time such as"),
            ("s", "expected a time such as"),
            ("-1s", "expected a time such as"),
            ("+1s", "expected a time such as"),
            ("1.5h", "expected a time such as"),
            ("1h30m", "expected a time such as"),
            ("5 m", "expected a time such as"),
            ("5min", "expected a time such as"),
            ("300", "`300s`"),
            ("2d", "at most `1d`"),
            ("86401s", "at most `1d`"),
            ("99999999999999999999s", "at most `1d`"),
            ("4294967295d", "at most `1d`"),
        ] {
            let message = Seconds::parse(text, DAY).unwrap_err().to_string();
            assert!(message.contains(expected), "{text}: {message}");
        }
    }
}
