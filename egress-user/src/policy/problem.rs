//! What is wrong with a policy, and where.

use std::fmt;

/// A place in a policy file. The first line and the first column are 1; columns count characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Line; 0 when the policy does not come from a file.
    pub line: u32,
    /// Column; 0 when the policy does not come from a file.
    pub column: u32,
}

impl Place {
    /// The beginning of a file.
    pub const START: Self = Self { line: 1, column: 1 };
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// Something wrong at one place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// What, and what would be right.
    pub message: String,
}

/// Everything wrong with one policy, at least one problem, in the order of their places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems {
    source: String,
    list: Vec<Problem>,
}

impl Problems {
    /// The problems, or `None` when there are none.
    pub(super) fn new(source: &str, mut list: Vec<Problem>) -> Option<Self> {
        list.sort();
        if list.is_empty() { None } else { Some(Self { source: source.to_owned(), list }) }
    }

    /// A single problem.
    pub(super) fn one(source: &str, place: Place, message: String) -> Self {
        Self { source: source.to_owned(), list: vec![Problem { place, message }] }
    }

    /// Each problem.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.list.iter()
    }
}

impl std::error::Error for Problems {}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Problem { place, message }) in self.list.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            match place.line {
                0 => write!(f, "{}: {message}", self.source)?,
                _ => write!(f, "{}:{place}: {message}", self.source)?,
            }
        }
        Ok(())
    }
}

/// Characters of a value that a message shows: enough for the longest domain.
const SHOWN_CHARACTERS_MAX: usize = 260;

/// A value in backticks, on one line, whatever is in it.
pub(super) struct Shown<'a>(pub(super) &'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`")?;
        for character in self.0.chars().take(SHOWN_CHARACTERS_MAX) {
            if character.is_control() || is_invisible(character) {
                write!(f, "{}", character.escape_default())?;
            } else {
                write!(f, "{character}")?;
            }
        }
        match self.0.chars().nth(SHOWN_CHARACTERS_MAX) {
            Some(_) => f.write_str("…`"),
            None => f.write_str("`"),
        }
    }
}

/// Characters that would change how the rest of a terminal's line looks.
fn is_invisible(character: char) -> bool {
    matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shown_value_stays_on_its_line() {
        for (value, expected) in [
            ("plain", "`plain`"),
            ("a\nb\0c", "`a\\nb\\u{0}c`"),
            ("\u{1b}[31mred", "`\\u{1b}[31mred`"),
            ("a\u{202e}b", "`a\\u{202e}b`"),
            ("bücher", "`bücher`"),
        ] {
            assert_eq!(Shown(value).to_string(), expected, "{value:?}");
        }
        assert!(Shown(&"x".repeat(1000)).to_string().ends_with("x…`"));
    }

    #[test]
    fn problems_are_sorted_by_their_place() {
        let problem = |line, column| Problem { place: Place { line, column }, message: "wrong".to_owned() };
        let problems = Problems::new("p.yaml", vec![problem(10, 1), problem(9, 20), problem(9, 3)]).unwrap();
        assert_eq!(problems.to_string(), "p.yaml:9:3: wrong\np.yaml:9:20: wrong\np.yaml:10:1: wrong");
    }
}
