//! What of a name server's answer a workload gets to see, and which addresses it opens.

use std::net::IpAddr;

use hickory_resolver::proto::rr::Record;

/// What is released of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// Whether the name exists.
    pub exists: bool,
    /// The records, first the chain of CNAMEs from the name that was asked for, in its order.
    pub records: Vec<Record>,
    /// The addresses among them, each once and none IPv4-mapped, with the seconds for which they may be used.
    pub addresses: Vec<(IpAddr, u32)>,
    /// The names that the chain leads over, in its order, without the one that was asked for.
    pub aliases: Vec<String>,
    /// Seconds for which all of it may be kept.
    pub ttl: u32,
}
