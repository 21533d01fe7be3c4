//! What a person should look at, as a line of JSON.

use jiff::Timestamp;
use serde::Serialize;

use super::record::{self, Head, Source};
use crate::dns::question::Asker;

/// Something that ordinary software does not do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    /// When.
    pub time: Timestamp,
    /// What noticed it.
    pub detector: &'static str,
    /// Which of the things that it looks for.
    pub reason: &'static str,
    /// Whose doing it was when it was noticed.
    pub asker: Asker,
    /// In a sentence.
    pub message: String,
}

#[derive(Serialize)]
struct AlertRecord<'a> {
    #[serde(flatten)]
    head: Head<'a>,
    detector: &'static str,
    reason: &'static str,
    message: &'a str,
}

impl Alert {
    /// A line of `--events`, with its newline.
    pub fn event_line(&self, source: &Source) -> String {
        let Self { time, detector, reason, asker, message } = self;
        record::line(&AlertRecord {
            head: Head::new(*time, "alert", source, asker.pid, &asker.command),
            detector,
            reason,
            message,
        })
    }
}
