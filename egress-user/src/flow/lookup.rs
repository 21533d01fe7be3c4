//! A question about a name that has been answered, and its records.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use egress_common::Verdict;
use jiff::Timestamp;
use serde::Serialize;

use super::record::{self, Head, Source};
use crate::{
    dns::question::{Asker, Transport},
    policy::RecordType,
};

/// A question and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lookup {
    /// When it came.
    pub time: Timestamp,
    /// Who asked.
    pub asker: Asker,
    /// How.
    pub transport: Transport,
    /// The name as it was asked for, in printable characters.
    pub name: String,
    /// The type that was asked for.
    pub kind: RecordType,
    /// What was decided; in audit mode a refusal that was let through is `Allow`.
    pub verdict: Verdict,
    /// Why, in one word.
    pub reason: &'static str,
    /// What the answer says.
    pub code: ResponseCode,
    /// Where the answer is from.
    pub source: Origin,
    /// What was answered.
    pub told: Told,
    /// Why the answer is no better, in a sentence.
    pub message: Option<String>,
    /// What a person would add to the policy to allow it.
    pub allow: Option<String>,
}

/// What an answer has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// The names that the chain of CNAMEs leads over.
    pub aliases: Vec<String>,
    /// Addresses that were taken out of it.
    pub withheld: Vec<IpAddr>,
}

/// What an answer says about the question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseCode {
    /// The name exists.
    NoError,
    /// It does not.
    NxDomain,
    /// The answer is refused.
    Refused,
    /// There is no answer.
    ServFail,
}

impl ResponseCode {
    /// As the registry spells it.
    fn name(self) -> &'static str {
        match self {
            Self::NoError => "NOERROR",
            Self::NxDomain => "NXDOMAIN",
            Self::Refused => "REFUSED",
            Self::ServFail => "SERVFAIL",
        }
    }
}

/// Where an answer is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It was known.
    Cache,
    /// Name servers were asked, and took this long.
    Upstream(Duration),
    /// Nobody was asked.
    Policy,
}

/// One line of `--events`.
#[derive(Serialize)]
struct LookupRecord<'a> {
    #[serde(flatten)]
    head: Head<'a>,
    server: SocketAddr,
    transport: &'static str,
    name: &'a str,
    #[serde(rename = "type")]
    record_type: String,
    verdict: &'static str,
    reason: &'static str,
    code: &'static str,
    source: &'static str,
    upstream_ms: Option<f64>,
    addresses: &'a [IpAddr],
    cnames: &'a [String],
    withheld: &'a [IpAddr],
    message: Option<&'a str>,
}

/// One line of the file of refusals; its keys are those of other refusals.
#[derive(Serialize)]
struct RefusalRecord<'a> {
    time: String,
    verdict: &'static str,
    destination: Option<SocketAddr>,
    name: &'a str,
    protocol: &'static str,
    reason: &'static str,
    message: &'a str,
    allow: Option<&'a str>,
    policy: &'a str,
    pid: u32,
    command: &'a str,
}

impl Lookup {
    /// Whether the policy had something against it.
    pub fn is_refusal(&self) -> bool {
        self.reason != ALLOWED
    }

    /// A line of `--events`, with its newline.
    pub fn event_line(&self, source: &Source) -> String {
        let Self { time, asker, transport, name, kind, verdict, reason, code, source: origin, told, message, allow: _ } =
            self;
        let (origin, took) = match origin {
            Origin::Cache => ("cache", None),
            Origin::Upstream(took) => ("upstream", Some(*took)),
            Origin::Policy => ("policy", None),
        };
        record::line(&LookupRecord {
            head: Head::new(*time, "dns_query", source, asker.pid, &asker.command),
            server: asker.server,
            transport: match transport {
                Transport::Udp => "udp",
                Transport::Tcp => "tcp",
            },
            name,
            record_type: kind.to_string(),
            verdict: record::verdict_name(*verdict),
            reason,
            code: code.name(),
            source: origin,
            upstream_ms: took.map(milliseconds),
            addresses: &told.addresses,
            cnames: &told.aliases,
            withheld: &told.withheld,
            message: message.as_deref(),
        })
    }

    /// A line of the file of refusals, with its newline.
    pub fn refusal_line(&self, source: &Source) -> String {
        record::line(&RefusalRecord {
            time: record::rfc3339(self.time),
            verdict: record::verdict_name(self.verdict),
            destination: None,
            name: &self.name,
            protocol: "dns",
            reason: self.reason,
            message: self.message.as_deref().unwrap_or_default(),
            allow: self.allow.as_deref(),
            policy: &source.policy,
            pid: self.asker.pid,
            command: &self.asker.command,
        })
    }
}

/// The reason of a question that a rule allows.
pub const ALLOWED: &str = "rule";

/// Microseconds are as fine as it gets.
fn milliseconds(took: Duration) -> f64 {
    f64::from(u32::try_from(took.as_micros()).unwrap_or(u32::MAX)) / 1000.0
}
