//! Questions, who asks them, and what name servers answer: what the parts of this module hand to each other.

use std::{net::SocketAddr, time::Duration};

use hickory_resolver::proto::rr::Record;

use crate::policy::{DomainName, RecordType};

/// What is asked: a name in its one spelling, and the type of its records.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Asked {
    /// The name.
    pub name: DomainName,
    /// The type.
    pub kind: RecordType,
}

/// Who asks, as the kernel knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asker {
    /// The workload's number.
    pub workload: u32,
    /// The process that made the socket, or that last called `connect` or `sendto` on it.
    pub pid: u32,
    /// Its command name.
    pub command: String,
    /// The name server that it believes to ask.
    pub server: SocketAddr,
}

/// How a question came, which is how its answer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Transport {
    /// In a datagram; an answer that does not fit is cut short and marked so.
    Udp,
    /// Over a connection.
    Tcp,
}

/// Names one question on its way through, so that its answer finds back. Never used twice by one proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// What came of asking the name servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The answer, or in words why there is none.
    pub answer: Result<Answer, String>,
    /// From the first packet to the last.
    pub took: Duration,
}

/// What a name server answered. Nothing in it has been looked at yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Whether the name exists.
    pub exists: bool,
    /// The answer section.
    pub records: Vec<Record>,
    /// Seconds for which "there is nothing" may be kept, where there is nothing.
    pub negative_ttl: u32,
}
