//! The world of tests about names: a name server that only `egress` asks, and a client that believes to ask another.

use std::{
    ffi::OsString,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use serde::Deserialize;

use crate::{
    clients,
    egress::{Egress, Outcome},
    network::{DNS_V4, Network, public_v4, public_v6},
    servers::misbehaving::{Misbehaving, Reply},
};

/// The name server in the client's `/etc/resolv.conf`. Nobody has this address: what is sent there is lost.
pub const ASKED: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 53));
/// Another that nobody has.
pub const ASKED_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x53));
/// A name that resolves to one address of each family: [`public_v4`] and [`public_v6`] of 1.
pub const API: &str = "api.example.com";

/// The client, the world and its name server.
#[derive(Debug)]
pub struct Names {
    /// The machines.
    pub network: Network,
    /// The name server, at [`DNS_V4`].
    pub server: Misbehaving,
}

impl Names {
    /// A world in which [`API`] resolves.
    pub fn new() -> Result<Self> {
        let network = Network::new()?;
        let server = Misbehaving::start(&network.world, DNS_V4)?;
        server.reply(API, [Reply::addresses(60, &[public_v4(1), public_v6(1)])])?;
        network.client.ask(&[ASKED])?;
        Ok(Self { network, server })
    }

    /// A run under this policy that asks the world's name server.
    pub fn under(&self, policy: &str) -> Result<Egress<'_>> {
        let server = SocketAddr::new(DNS_V4, 53);
        Ok(Egress::under(&self.network.client, policy)?.option("--resolver").option(server.to_string()))
    }

    /// The same without a file of events.
    pub fn under_without_events(&self, policy: &str) -> Result<Egress<'_>> {
        let path = self.network.client.directory().join("policy.yaml");
        fs::write(&path, policy).with_context(|| format!("write `{}`", path.display()))?;
        let run = Egress::without_events(&self.network.client)?.option("--policy").option(path);
        Ok(run.option("--resolver").option(SocketAddr::new(DNS_V4, 53).to_string()))
    }

    /// What `ask.py` tells under this policy.
    pub fn ask(&self, policy: &str, words: &[impl AsRef<str>]) -> Result<Vec<Told>> {
        told(&self.under(policy)?.run(asking(words))?)
    }

    /// The same, where it tells one thing.
    pub fn ask_once(&self, policy: &str, words: &[impl AsRef<str>]) -> Result<Told> {
        let [told] = self.ask(policy, words)?.try_into().map_err(|told| anyhow!("not one line: {told:?}"))?;
        Ok(told)
    }

    /// Gives the world so many IPv4 addresses, from 198.21.0.0 on, at which every port of the world answers.
    pub fn widen(&self, count: u16) -> Result<Vec<IpAddr>> {
        self.network.world.ip(&["route replace local 198.21.0.0/16 dev lo"])?;
        Ok((0..count).map(|number| Ipv4Addr::from(0xc615_0000 + u32::from(number)).into()).collect())
    }
}

/// The words that start `ask.py` with these arguments.
pub fn asking(words: &[impl AsRef<str>]) -> Vec<OsString> {
    [clients::ask(), words.iter().map(|word| word.as_ref().into()).collect()].concat()
}

/// A shell script in which `"$@"` is `ask.py` with these arguments.
pub fn script(text: &str, words: &[impl AsRef<str>]) -> Vec<OsString> {
    [["sh", "-c", text, "sh"].map(OsString::from).to_vec(), asking(words)].concat()
}

/// Reads what `ask.py` told.
pub fn told(outcome: &Outcome) -> Result<Vec<Told>> {
    outcome.expect_success()?;
    let lines = outcome.finished.stdout.lines();
    lines.map(|line| serde_json::from_str(line).with_context(|| format!("read what was told, `{line}`"))).collect()
}

/// One line of `ask.py`. Each way of asking fills in some of it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Told {
    /// The id of the answer.
    pub id: u16,
    /// Its response code; absent where there was no answer.
    pub code: Option<u8>,
    /// Whether it says that it is cut.
    pub cut: bool,
    /// Its length in bytes.
    pub length: usize,
    /// The addresses in it.
    pub addresses: Vec<IpAddr>,
    /// The records in its answer section: owner, type, bytes in hexadecimal digits.
    pub records: Vec<(String, u16, String)>,
    /// The least TTL among them.
    pub ttl: Option<u32>,
    /// The number of its Extended DNS Error.
    pub ede: Option<u16>,
    /// The text of its Extended DNS Error.
    pub text: Option<String>,
    /// The name in its question, as it is spelled there.
    pub name: Option<String>,
    /// Who it seems to be from.
    pub from: Option<(IpAddr, u16)>,
    /// Who the socket says that it is connected to.
    pub peer: Option<(IpAddr, u16)>,
    /// All answers of one connection.
    pub all: Vec<Told>,
    /// The number of the error in place of an answer, or its name.
    pub error: Option<serde_json::Value>,
    /// How long it took.
    pub seconds: f64,
    /// What was sent.
    pub what: String,
    /// How: `udp` or `tcp`.
    pub over: String,
    /// Which table of sockets it was found in.
    pub protocol: String,
    /// Sockets that were asked.
    pub asked: u64,
    /// Names that were resolved.
    pub resolved: u64,
    /// Connections that were made.
    pub connected: u64,
    /// Addresses that were handed out.
    pub known: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// The first of them.
    pub failures: Vec<String>,
    /// Questions that were answered.
    pub answered: u64,
    /// Seconds that the slowest answer took.
    pub slowest: f64,
    /// Answers by response code.
    pub codes: std::collections::BTreeMap<String, u64>,
    /// Whether there were no answers any more.
    pub dead: bool,
}

impl Told {
    /// An error unless these are the addresses of the answer.
    pub fn expect_addresses(&self, addresses: &[IpAddr]) -> Result<()> {
        let (mut found, mut expected) = (self.addresses.clone(), addresses.to_vec());
        found.sort();
        expected.sort();
        ensure!(self.code == Some(0) && found == expected, "{self:?}: expected {expected:?}");
        Ok(())
    }

    /// An error unless the question was refused at once and with the reason.
    pub fn expect_refusal(&self) -> Result<()> {
        ensure!(self.code == Some(5) && self.addresses.is_empty(), "{self:?}: expected REFUSED");
        ensure!(self.ede == Some(15) && self.text.is_some(), "{self:?}: expected `Blocked` with a text");
        ensure!(self.seconds < 2.0, "{self:?}: it took too long");
        Ok(())
    }
}
