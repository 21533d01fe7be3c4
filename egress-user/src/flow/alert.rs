//! What a person should look at, as a line of JSON.

use jiff::Timestamp;
use serde::Serialize;

use super::record::{self, Source};
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
    time: String,
    kind: &'static str,
    cgroup: &'a str,
    policy: &'a str,
    pid: u32,
    command: &'a str,
    detector: &'static str,
    reason: &'static str,
    message: &'a str,
}

impl Alert {
    /// A line of `--events`, with its newline.
    pub fn event_line(&self, source: &Source) -> String {
        let Self { time, detector, reason, asker, message } = self;
        record::line(&AlertRecord {
            time: record::rfc3339(*time),
            kind: "alert",
            cgroup: &source.cgroup,
            policy: &source.policy,
            pid: asker.pid,
            command: &asker.command,
            detector,
            reason,
            message,
        })
    }
}
