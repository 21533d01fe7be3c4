//! How long a cached answer takes through `egress`, beside other forwarders and the name server itself.
//!
//! All are asked by the same program at the same rate in turns, in an order that changes from round to round, so that
//! what else the machine does falls on all of them alike.

use std::{
    env,
    io::{self, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, Result};
use egress_tests::{
    names::{ASKED, Names},
    network::{DNS_V4, public_v4},
    policy,
    servers::{
        dnsmasq::Dnsmasq,
        misbehaving::Reply,
        unbound::{self, Unbound},
    },
};
use serde::Serialize;

use crate::{
    load::{DOMAIN, Load, Measured},
    report::{self, Round},
};

/// Questions in a second.
const RATE: u32 = 1000;
/// Different names: more than a workload uses at a time, and all of them cached.
const NAMES: u32 = 100;
/// Where the other forwarders listen.
const DNSMASQ: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2)), 53);
const UNBOUND: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3)), 53);

/// Who is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Subject {
    /// The name server itself, across the cable.
    Upstream,
    /// The proxy, by a governed workload.
    Egress,
    Dnsmasq,
    Unbound,
}

impl Subject {
    pub(crate) const ALL: [Self; 4] = [Self::Upstream, Self::Egress, Self::Dnsmasq, Self::Unbound];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Upstream => "upstream",
            Self::Egress => "egress",
            Self::Dnsmasq => "dnsmasq",
            Self::Unbound => "unbound",
        }
    }

    /// Whom the client believes to ask.
    fn server(self) -> SocketAddr {
        match self {
            Self::Upstream => SocketAddr::new(DNS_V4, 53),
            Self::Egress => SocketAddr::new(ASKED, 53),
            Self::Dnsmasq => DNSMASQ,
            Self::Unbound => UNBOUND,
        }
    }
}

/// How much to measure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    rounds: usize,
    questions: u32,
}

impl Extent {
    /// Within a minute.
    pub(crate) const FULL: Self = Self { rounds: 6, questions: 1500 };
    /// Within a quarter of one.
    pub(crate) const QUICK: Self = Self { rounds: 2, questions: 1000 };
}

/// Measures, prints a table, and returns all of it as JSON.
pub(crate) fn run(extent: Extent) -> Result<serde_json::Value> {
    let names = Names::new()?;
    names.server.reply_below(DOMAIN, [Reply::addresses(600, &[public_v4(1)])])?;
    let client = &names.network.client.network;
    let upstream = SocketAddr::new(DNS_V4, 53);
    let _dnsmasq = Dnsmasq::forward(client, DNSMASQ.ip(), upstream)?;
    let configuration = unbound::Configuration { listen: UNBOUND, names: &[], forward: Some(upstream), tls: None };
    let _unbound = Unbound::configured(client, &configuration)?;

    let mut rounds = Vec::new();
    for number in 0..extent.rounds {
        writeln!(io::stderr(), "round {} of {}", number + 1, extent.rounds)?;
        let mut order = Subject::ALL;
        order.rotate_left(number % Subject::ALL.len());
        if number % 2 == 1 {
            order.reverse();
        }
        let mut round = Round::default();
        for subject in order {
            let measured =
                measure(&names, subject, extent.questions).with_context(|| format!("ask {}", subject.name()))?;
            round.add(subject, measured);
        }
        rounds.push(round);
    }
    let report = report::Report::of(&rounds).context("nothing was measured")?;
    report::print(&mut io::stdout().lock(), &report, RATE)?;
    serde_json::to_value(&report).context("write the report")
}

fn measure(names: &Names, subject: Subject, questions: u32) -> Result<Measured> {
    let load = Load { server: subject.server(), rate: RATE, questions, names: NAMES };
    let own = env::current_exe().context("ask for the path of this program")?.into_os_string();
    let numbers = [load.rate, load.questions, load.names].map(|number| number.to_string());
    let words = ["load".to_owned(), load.server.to_string()].into_iter().chain(numbers);
    let finished = if subject == Subject::Egress {
        let budget = "dns: {budget: {questions_per_minute: 10000}}\n";
        let policy = policy::allowing(&[format!("*.{DOMAIN}")], budget);
        let command: Vec<_> = [own].into_iter().chain(words.map(Into::into)).collect();
        let run = names.under_without_events(&policy)?.option("--quiet").time_max(Duration::from_secs(60));
        run.run(command)?.finished
    } else {
        names.network.client.command(own).args(words).finish()?
    };
    finished.expect_success()?;
    serde_json::from_str(&finished.stdout).with_context(|| format!("read `{}`", finished.stdout))
}
