//! Asks name servers for the addresses of names. Only this process asks, and never from inside a governed cgroup.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    str::FromStr as _,
    time::Duration,
};

use anyhow::Context as _;
use hickory_resolver::{
    Hosts, TokioResolver,
    config::{NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts, ServerOrderingStrategy},
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
    proto::{
        op::{Query, ResponseCode},
        rr::{Name, RData, Record, RecordType},
    },
};

use super::cache::Answer;
use crate::policy::DomainName;

/// Time for one question to one name server. A healthy one answers within a second even when it has to ask others.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(2);

/// Times that all name servers are asked before a question counts as unanswered.
const ATTEMPTS: usize = 2;

/// Time for all questions about one name, chains of CNAMEs and all name servers included.
const NAME_TIMEOUT: Duration = Duration::from_secs(10);

/// Seconds after which the hosts file is read again for a name that it lists.
const HOSTS_TTL_SECONDS: u32 = 60;

/// The port of DNS.
pub const DNS_PORT: u16 = 53;

/// Asks the hosts file and then the name servers.
#[derive(Clone, Debug)]
pub struct Resolver {
    dns: TokioResolver,
}

/// What one family of addresses came to.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Family {
    Addresses(Vec<(IpAddr, u32)>),
    /// There are none, and it is certain: the reason in words.
    Nothing(String),
    Fail(String),
}

/// The name servers of `/etc/resolv.conf`.
pub fn system_name_servers() -> anyhow::Result<BTreeSet<SocketAddr>> {
    let (config, _) = hickory_resolver::system_conf::read_system_conf().context("read `/etc/resolv.conf`")?;
    Ok(config.name_servers().iter().map(|server| SocketAddr::new(server.ip, DNS_PORT)).collect())
}

impl Resolver {
    /// A resolver that asks these name servers.
    pub fn new(name_servers: &BTreeSet<SocketAddr>) -> anyhow::Result<Self> {
        let servers = name_servers.iter().map(|address| {
            let mut server = NameServerConfig::udp_and_tcp(address.ip());
            for connection in &mut server.connections {
                connection.port = address.port();
            }
            server
        });
        // Names in policies are absolute, so there is no search list.
        let config = ResolverConfig::from_parts(None, Vec::new(), servers.collect());
        let mut options = ResolverOpts::default();
        options.timeout = QUESTION_TIMEOUT;
        options.attempts = ATTEMPTS;
        // Answers are kept by `dns::cache`, which asks when it wants to know.
        options.cache_size = 0;
        // Asked below, because a name in the hosts file is not asked of DNS at all, in neither family.
        options.use_hosts_file = ResolveHosts::Never;
        // As in libc, so that both ask the same server when servers differ.
        options.server_ordering_strategy = ServerOrderingStrategy::UserProvidedOrder;
        options.num_concurrent_reqs = 1;
        options.preserve_intermediates = true;
        let dns = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
            .with_options(options)
            .build()
            .context("set up the resolver")?;
        Ok(Self { dns })
    }

    /// The addresses of a name: those of the hosts file if it lists the name, else those that DNS answers.
    pub async fn resolve(&self, domain: &DomainName) -> Answer {
        let name = match Name::from_str(domain.as_str()) {
            Ok(mut name) => {
                name.set_fqdn(true);
                name
            }
            Err(error) => return Answer { addresses: Vec::new(), failure: Some(error.to_string()) },
        };
        let addresses = listed_in_hosts(&name);
        if !addresses.is_empty() {
            return Answer { addresses, failure: None };
        }
        let both = async { tokio::join!(self.family(&name, RecordType::A), self.family(&name, RecordType::AAAA)) };
        match tokio::time::timeout(NAME_TIMEOUT, both).await {
            Ok((v4, v6)) => merge(v4, v6),
            Err(_elapsed) => Answer { addresses: Vec::new(), failure: Some("timed out".to_owned()) },
        }
    }

    async fn family(&self, name: &Name, kind: RecordType) -> Family {
        match self.dns.lookup(name.clone(), kind).await {
            Ok(lookup) => match addresses(name, lookup.answers()) {
                none if none.is_empty() => Family::Nothing("it has no addresses".to_owned()),
                some => Family::Addresses(some),
            },
            Err(NetError::Dns(DnsError::NoRecordsFound(nothing))) => no_records(nothing.response_code),
            Err(NetError::Dns(DnsError::ResponseCode(code))) => no_records(code),
            Err(NetError::Timeout) => Family::Fail("timed out".to_owned()),
            Err(error) => Family::Fail(error.to_string()),
        }
    }
}

fn no_records(code: ResponseCode) -> Family {
    if code == ResponseCode::NoError {
        Family::Nothing("it has no addresses".to_owned())
    } else if code == ResponseCode::NXDomain {
        Family::Nothing("no such name".to_owned())
    } else {
        Family::Fail(format!("the name server answered: {code}"))
    }
}

/// The hosts file is small, and read at every question so that a change counts.
fn listed_in_hosts(name: &Name) -> Vec<(IpAddr, u32)> {
    let Ok(hosts) = Hosts::from_system() else {
        return Vec::new();
    };
    let lookups = [RecordType::A, RecordType::AAAA]
        .into_iter()
        .filter_map(|kind| hosts.lookup_static_host(&Query::query(name.clone(), kind)));
    let records = lookups.flat_map(|lookup| lookup.answers().to_vec());
    records.filter_map(|record| Some((record.data.ip_addr()?, HOSTS_TTL_SECONDS))).collect()
}

fn merge(v4: Family, v6: Family) -> Answer {
    let mut addresses = Vec::new();
    let (mut failure, mut nothing) = (None, None);
    for family in [v4, v6] {
        match family {
            Family::Addresses(some) => addresses.extend(some),
            Family::Nothing(reason) => nothing = nothing.or(Some(reason)),
            Family::Fail(reason) => failure = failure.or(Some(reason)),
        }
    }
    if addresses.is_empty() {
        failure = failure.or(nothing);
    }
    Answer { addresses, failure }
}

/// The addresses among the records that belong to the name: its own and those at the end of its chain of CNAMEs. Each
/// has the shortest TTL on the way to it.
fn addresses(name: &Name, records: &[Record]) -> Vec<(IpAddr, u32)> {
    let mut reached = BTreeMap::from([(name.clone(), u32::MAX)]);
    // A chain is at most as long as there are records, in whichever order they come.
    for _ in records {
        for record in records {
            if let (RData::CNAME(target), Some(ttl)) = (&record.data, reached.get(&record.name).copied()) {
                reached.entry(target.0.clone()).or_insert(ttl.min(record.ttl));
            }
        }
    }
    let addresses = records.iter().filter_map(|record| {
        let ttl = reached.get(&record.name)?;
        Some((record.data.ip_addr()?, record.ttl.min(*ttl)))
    });
    addresses.collect()
}

#[cfg(test)]
mod tests {
    use hickory_resolver::proto::rr::rdata::CNAME;

    use super::*;

    #[test]
    fn addresses_are_those_at_the_end_of_the_chain_with_the_shortest_ttl_on_the_way() {
        let records = [
            address("edge.cdn.example.", 300, "192.0.2.1"),
            alias("www.example.", 600, "www.cdn.example."),
            alias("www.cdn.example.", 20, "edge.cdn.example."),
            address("edge.cdn.example.", 10, "192.0.2.2"),
            address("other.example.", 300, "192.0.2.66"),
            address("cdn.example.", 300, "192.0.2.67"),
        ];
        let expected = [("192.0.2.1".parse().unwrap(), 20), ("192.0.2.2".parse().unwrap(), 10)];
        assert_eq!(addresses(&name("www.example."), &records), expected);
    }

    #[test]
    fn a_chain_that_bites_its_tail_ends() {
        let records = [alias("a.example.", 60, "b.example."), alias("b.example.", 60, "a.example.")];
        assert_eq!(addresses(&name("a.example."), &records), []);
    }

    #[test]
    fn names_are_compared_without_regard_to_case() {
        let records = [address("WWW.Example.", 60, "2001:db8::1")];
        assert_eq!(addresses(&name("www.example."), &records), [("2001:db8::1".parse().unwrap(), 60)]);
    }

    #[test]
    fn one_family_is_enough_and_a_failure_of_the_other_is_kept() {
        let some = || Family::Addresses(vec![("192.0.2.1".parse().unwrap(), 60)]);
        let nothing = || Family::Nothing("no such name".to_owned());
        let fail = || Family::Fail("timed out".to_owned());
        for (v4, v6, count, failure) in [
            (some(), some(), 2, None),
            (some(), nothing(), 1, None),
            (nothing(), some(), 1, None),
            (some(), fail(), 1, Some("timed out")),
            (nothing(), nothing(), 0, Some("no such name")),
            (nothing(), fail(), 0, Some("timed out")),
            (fail(), nothing(), 0, Some("timed out")),
        ] {
            let what = format!("{v4:?} {v6:?}");
            let answer = merge(v4, v6);
            assert_eq!((answer.addresses.len(), answer.failure.as_deref()), (count, failure), "{what}");
        }
    }

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn address(owner: &str, ttl: u32, address: &str) -> Record {
        Record::from_rdata(name(owner), ttl, RData::from(address.parse::<IpAddr>().unwrap()))
    }

    fn alias(owner: &str, ttl: u32, target: &str) -> Record {
        Record::from_rdata(name(owner), ttl, RData::CNAME(CNAME(name(target))))
    }
}
