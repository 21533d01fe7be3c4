//! What was measured, as a table and as JSON.

use std::io::{self, Write};

use serde::Serialize;

use crate::{
    dns::Subject,
    load::Measured,
    statistics::{Spread, percentile},
};

/// What a cached answer may take longer than the name server itself, in microseconds.
const GOAL_MEDIAN_US: f64 = 100.0;
const GOAL_P99_US: f64 = 1000.0;
/// Above this the greatest median of the name server itself, which nothing changed, over the least says that the machine
/// did something else meanwhile.
const NOISE_RATIO_MAX: f64 = 1.5;
/// A question that leaves later than this had no processor to itself.
const DELAY_US_MAX: f64 = 2000.0;

/// One turn of each subject.
#[derive(Debug, Default)]
pub(crate) struct Round {
    measured: Vec<(Subject, Measured)>,
}

impl Round {
    pub(crate) fn add(&mut self, subject: Subject, measured: Measured) {
        self.measured.push((subject, measured));
    }

    fn of(&self, subject: Subject) -> Option<&Measured> {
        self.measured.iter().find(|(found, _)| *found == subject).map(|(_, measured)| measured)
    }

    fn answer_us(&self, subject: Subject, percent: usize) -> Option<f64> {
        percentile(&self.of(subject)?.answers_us, percent)
    }

    fn added_us(&self, subject: Subject, percent: usize) -> Option<f64> {
        Some(self.answer_us(subject, percent)? - self.answer_us(Subject::Upstream, percent)?)
    }

    fn ratio(&self, subject: Subject, percent: usize) -> Option<f64> {
        Some(self.answer_us(subject, percent)? / self.answer_us(Subject::Upstream, percent)?)
    }
}

/// All rounds together.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    rows: Vec<Row>,
    rounds: usize,
    goal: Goal,
    noise: Option<String>,
}

#[derive(Debug, Serialize)]
struct Row {
    subject: Subject,
    median_us: Spread,
    p99_us: Spread,
    added_median_us: Spread,
    added_p99_us: Spread,
    median_over_upstream: Spread,
    answers: usize,
    lost: u32,
}

#[derive(Debug, Serialize)]
struct Goal {
    added_median_us_max: f64,
    added_p99_us_max: f64,
    is_met: bool,
}

impl Report {
    /// Nothing where a subject was never answered.
    pub(crate) fn of(rounds: &[Round]) -> Option<Self> {
        let rows: Vec<Row> = Subject::ALL.into_iter().map(|subject| Row::of(rounds, subject)).collect::<Option<_>>()?;
        let egress = rows.iter().find(|row| row.subject == Subject::Egress)?;
        let is_met = egress.added_median_us.median <= GOAL_MEDIAN_US && egress.added_p99_us.median <= GOAL_P99_US;
        let goal = Goal { added_median_us_max: GOAL_MEDIAN_US, added_p99_us_max: GOAL_P99_US, is_met };
        Some(Self { noise: noise(rounds, &rows), rows, rounds: rounds.len(), goal })
    }
}

impl Row {
    fn of(rounds: &[Round], subject: Subject) -> Option<Self> {
        let spread = |value: &dyn Fn(&Round) -> Option<f64>| Spread::of(rounds.iter().filter_map(value));
        let measured = || rounds.iter().filter_map(|round| round.of(subject));
        Some(Self {
            subject,
            median_us: spread(&|round| round.answer_us(subject, 50))?,
            p99_us: spread(&|round| round.answer_us(subject, 99))?,
            added_median_us: spread(&|round| round.added_us(subject, 50))?,
            added_p99_us: spread(&|round| round.added_us(subject, 99))?,
            median_over_upstream: spread(&|round| round.ratio(subject, 50))?,
            answers: measured().map(|measured| measured.answers_us.len()).sum(),
            lost: measured().map(|measured| measured.lost).sum(),
        })
    }
}

/// Why the numbers say little, where they do.
fn noise(rounds: &[Round], rows: &[Row]) -> Option<String> {
    let upstream = rows.iter().find(|row| row.subject == Subject::Upstream)?.median_us;
    let delays = rounds.iter().flat_map(|round| &round.measured);
    let delay = Spread::of(delays.filter_map(|(_, measured)| percentile(&measured.delays_us, 99)))?;
    let lost: u32 = rows.iter().map(|row| row.lost).sum();
    if upstream.max / upstream.min > NOISE_RATIO_MAX {
        let Spread { median: _, min, max } = upstream;
        return Some(format!("the name server itself took from {min:.0} to {max:.0} µs"));
    }
    if delay.median > DELAY_US_MAX {
        return Some(format!("one question in a hundred left {:.0} µs too late", delay.median));
    }
    (lost > 0).then(|| format!("{lost} questions had no answer"))
}

pub(crate) fn print(out: &mut impl Write, report: &Report, rate: u32) -> io::Result<()> {
    let Report { rows, rounds, goal, noise } = report;
    writeln!(
        out,
        "Cached answers at {rate} questions in a second, in µs: the median of {rounds} rounds, and their ends.\n"
    )?;
    writeln!(
        out,
        "{:<9} {:>6} {:>15} {:>7} {:>15} {:>8} {:>8} {:>7} {:>6}",
        "", "median", "", "p99", "", "+median", "+p99", "ratio", "lost"
    )?;
    for row in rows {
        let Row { subject, median_us, p99_us, added_median_us, added_p99_us, median_over_upstream, answers: _, lost } =
            row;
        writeln!(
            out,
            "{:<9} {:>6.0} {:>15} {:>7.0} {:>15} {:>+8.0} {:>+8.0} {:>6.2}x {lost:>6}",
            subject.name(),
            median_us.median,
            ends(median_us),
            p99_us.median,
            ends(p99_us),
            added_median_us.median,
            added_p99_us.median,
            median_over_upstream.median,
        )?;
    }
    let Goal { added_median_us_max, added_p99_us_max, is_met } = goal;
    let verdict = if *is_met { "met" } else { "missed" };
    writeln!(
        out,
        "\nGoal: `egress` adds at most {added_median_us_max:.0} µs at the median and {added_p99_us_max:.0} µs at the 99th \
         percentile: {verdict}."
    )?;
    if let Some(noise) = noise {
        writeln!(out, "The machine was too noisy to tell: {noise}. Try again when it has less to do.")?;
    }
    Ok(())
}

fn ends(spread: &Spread) -> String {
    format!("({:.0}..{:.0})", spread.min, spread.max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(from: f64) -> Measured {
        let answers_us = (0..100).map(|number| from + f64::from(number)).collect();
        Measured { answers_us, delays_us: vec![1.0; 100], lost: 0 }
    }

    fn rounds(upstream: [f64; 2], egress: f64) -> Vec<Round> {
        let round = |upstream| {
            let mut round = Round::default();
            for subject in Subject::ALL {
                round.add(subject, measured(if subject == Subject::Egress { egress } else { upstream }));
            }
            round
        };
        upstream.map(round).into()
    }

    #[test]
    fn the_goal_is_judged_by_what_is_added() {
        for (egress, expected) in [(50.0, true), (180.0, true), (320.0, false)] {
            let report = Report::of(&rounds([100.0, 102.0], egress)).unwrap();
            assert_eq!(report.goal.is_met, expected, "{report:?}");
            assert_eq!(report.noise, None);
        }
    }

    #[test]
    fn a_machine_that_does_something_else_is_told_of() {
        let report = Report::of(&rounds([100.0, 400.0], 100.0)).unwrap();
        assert!(report.noise.is_some());
        let mut text = Vec::new();
        print(&mut text, &report, 1000).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains("from 149 to 449 µs"), "{text}");
    }
}
