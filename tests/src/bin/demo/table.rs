//! The table that a person reads.

use std::{
    env,
    io::{self, IsTerminal as _, Write},
    net::SocketAddr,
};

use nix::errno::Errno;

/// One thing that `curl` is asked to fetch.
pub(crate) struct Attempt {
    pub(crate) url: &'static str,
    pub(crate) options: &'static str,
    pub(crate) to: To,
    /// What the policy says.
    pub(crate) allowed: bool,
}

/// What decides whether something can be fetched.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum To {
    /// The connection to this address.
    Address(SocketAddr),
    /// The question for this name, to which there is no answer.
    Name(&'static str),
}

impl Attempt {
    /// Where its server is, if it comes so far.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        match self.to {
            To::Address(address) => Some(address),
            To::Name(_) => None,
        }
    }
}

/// What came of it.
pub(crate) struct Row<'attempt> {
    pub(crate) attempt: &'attempt Attempt,
    pub(crate) curl: String,
    pub(crate) errno: i32,
    pub(crate) microseconds: u64,
    pub(crate) verdict: String,
    pub(crate) reason: String,
}

impl Row<'_> {
    /// Whether `curl`, `connect` and the record agree with the policy.
    pub(crate) fn is_as_expected(&self) -> bool {
        if self.attempt.allowed {
            self.curl == "HTTP 200" && self.errno == 0 && self.verdict == "allow"
        } else {
            let is_refused = match self.attempt.to {
                To::Address(_) => self.curl == "exit 7" && self.errno == Errno::EPERM as i32,
                // What `curl` says of a name that does not resolve.
                To::Name(_) => self.curl == "exit 6" && self.errno != 0,
            };
            is_refused && self.verdict == "deny"
        }
    }

    fn cells(&self) -> [String; 6] {
        let verdict = if self.errno == 0 { "allowed" } else { "refused" };
        let host = self.attempt.url.trim_start_matches("https://").trim_end_matches('/');
        [
            host.to_owned(),
            match self.attempt.to {
                To::Address(address) => address.to_string(),
                To::Name(_) => "(no answer)".to_owned(),
            },
            verdict.to_owned(),
            self.reason.replace('_', " "),
            self.curl.clone(),
            self.microseconds.to_string(),
        ]
    }
}

const HEADINGS: [&str; 6] = ["destination", "address", "verdict", "why", "curl", "µs"];

/// Prints the rows; in colour on a terminal unless `NO_COLOR` says otherwise.
pub(crate) fn print(out: &mut impl Write, rows: &[Row<'_>]) -> io::Result<()> {
    let colour = io::stdout().is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let cells: Vec<[String; 6]> = rows.iter().map(Row::cells).collect();
    let mut widths = HEADINGS.map(|heading| heading.chars().count());
    for row in &cells {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let rule = widths.map(|width| "─".repeat(width));
    line(out, &HEADINGS.map(str::to_owned), &widths, None)?;
    line(out, &rule, &widths, None)?;
    for (row, cells) in rows.iter().zip(&cells) {
        let code = match (colour, row.is_as_expected(), row.errno) {
            (false, _, _) => None,
            (true, false, _) => Some("1;33"),
            (true, true, 0) => Some("32"),
            (true, true, _) => Some("31"),
        };
        line(out, cells, &widths, code)?;
    }
    Ok(())
}

/// One line; the verdict in colour, the number to the right.
fn line(out: &mut impl Write, cells: &[String; 6], widths: &[usize; 6], colour: Option<&str>) -> io::Result<()> {
    let mut words = vec!["  ".to_owned()];
    for (column, (cell, width)) in cells.iter().zip(widths).enumerate() {
        let space = " ".repeat(width.saturating_sub(cell.chars().count()));
        words.push(match (column, colour) {
            (2, Some(code)) => format!("\x1b[{code}m{cell}\x1b[0m{space}"),
            (5, _) => format!("{space}{cell}"),
            _ => format!("{cell}{space}"),
        });
    }
    writeln!(out, "{}", words.join("  ").trim_end())
}
