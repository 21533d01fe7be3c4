//! The lines of `--events`.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result};
use serde::Deserialize;

/// One line.
#[derive(Clone, Debug)]
pub enum Record {
    /// About a flow, or about what was refused before it was one.
    Flow(Event),
    /// About a question for a name.
    Question(Question),
    /// An alert, whatever its detector says in it.
    Alert(serde_json::Value),
}

/// A line about a flow.
#[derive(Clone, Debug, Deserialize)]
pub struct Event {
    /// RFC 3339.
    pub time: String,
    /// `refusal`, `flow_start`, `flow_report` or `flow_end`.
    pub kind: String,
    /// The workload's cgroup.
    pub cgroup: String,
    /// Process.
    pub pid: u32,
    /// Its command name.
    pub command: String,
    /// `tcp`, `udp` or `icmp`.
    pub protocol: String,
    /// This end, where the hook knew it.
    pub local_address: Option<IpAddr>,
    /// See [`Self::local_address`].
    pub local_port: Option<u16>,
    /// The far end, where there is one.
    pub remote_address: Option<IpAddr>,
    /// See [`Self::remote_address`].
    pub remote_port: Option<u16>,
    /// Who opened the flow: `outbound` or `inbound`.
    pub direction: String,
    /// The names whose address the far end is, with commas between them.
    pub domain: Option<String>,
    /// `allow` or `deny`.
    pub verdict: String,
    /// Why.
    pub reason: String,
    /// Which hook saw it.
    pub hook: String,
    /// Bytes out.
    pub tx_bytes: u64,
    /// Bytes in.
    pub rx_bytes: u64,
    /// Packets out.
    pub tx_packets: u64,
    /// Packets in.
    pub rx_packets: u64,
}

impl Event {
    /// The far end, where there is one.
    pub fn remote(&self) -> Option<SocketAddr> {
        Some(SocketAddr::new(self.remote_address?, self.remote_port?))
    }
}

/// A line about a question for a name.
#[derive(Clone, Debug, Deserialize)]
pub struct Question {
    /// RFC 3339.
    pub time: String,
    /// The workload's cgroup.
    pub cgroup: String,
    /// Process.
    pub pid: u32,
    /// Its command name.
    pub command: String,
    /// The name server that it believes to ask.
    pub server: SocketAddr,
    /// `udp` or `tcp`.
    pub transport: String,
    /// The name, as it was asked for.
    pub name: String,
    /// The type of the records.
    #[serde(rename = "type")]
    pub record_type: String,
    /// `allow` or `deny`.
    pub verdict: String,
    /// Why.
    pub reason: String,
    /// The response code by its name.
    pub code: String,
    /// `cache`, `upstream` or `policy`.
    pub source: String,
    /// How long the name servers took.
    pub upstream_ms: Option<f64>,
    /// The addresses that were handed out.
    pub addresses: Vec<IpAddr>,
    /// The names that the asked one led to.
    pub cnames: Vec<String>,
}

impl Record {
    pub(crate) fn flow(self) -> Option<Event> {
        match self {
            Self::Flow(event) => Some(event),
            Self::Question(_) | Self::Alert(_) => None,
        }
    }

    pub(crate) fn question(self) -> Option<Question> {
        match self {
            Self::Question(question) => Some(question),
            Self::Flow(_) | Self::Alert(_) => None,
        }
    }

    pub(crate) fn alert(self) -> Option<serde_json::Value> {
        match self {
            Self::Alert(alert) => Some(alert),
            Self::Flow(_) | Self::Question(_) => None,
        }
    }
}

/// Reads the text of a file of events.
pub(crate) fn read(text: &str) -> Result<Vec<Record>> {
    // A line without its end is one that is being written.
    let complete = text.rfind('\n').map_or("", |end| text.get(..end).unwrap_or_default());
    complete.lines().map(|line| read_line(line).with_context(|| format!("read the event `{line}`"))).collect()
}

fn read_line(line: &str) -> Result<Record> {
    let value: serde_json::Value = serde_json::from_str(line)?;
    Ok(match value.get("kind").and_then(serde_json::Value::as_str) {
        Some("dns_query") => Record::Question(serde_json::from_value(value)?),
        Some("alert") => Record::Alert(value),
        _ => Record::Flow(serde_json::from_value(value)?),
    })
}
