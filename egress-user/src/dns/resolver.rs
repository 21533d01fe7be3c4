//! Asks name servers for the addresses of names. Only this process asks, and never from inside a governed cgroup.

use std::{collections::BTreeSet, net::SocketAddr, str::FromStr as _, time::Duration};

use anyhow::Context as _;
use hickory_resolver::{
    Hosts, TokioResolver,
    config::{NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts, ServerOrderingStrategy},
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
    proto::{
        op::{Query, ResponseCode},
        rr::{Name, Record, RecordType},
    },
};

use super::question::{Answer, Asked, Outcome};

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

    /// Asks: the hosts file, if it lists the name, and else the name servers.
    pub async fn ask(&self, asked: &Asked) -> Outcome {
        let started = tokio::time::Instant::now();
        let answer = match tokio::time::timeout(NAME_TIMEOUT, self.answer(asked)).await {
            Ok(answer) => answer,
            Err(_elapsed) => Err("timed out".to_owned()),
        };
        Outcome { answer, took: started.elapsed() }
    }

    async fn answer(&self, asked: &Asked) -> Result<Answer, String> {
        let mut name = Name::from_str(asked.name.as_str()).map_err(|error| error.to_string())?;
        name.set_fqdn(true);
        let kind = RecordType::from(asked.kind.0);
        if let Some(records) = listed_in_hosts(&name, kind) {
            return Ok(Answer { exists: true, records, negative_ttl: HOSTS_TTL_SECONDS });
        }
        match self.dns.lookup(name, kind).await {
            Ok(lookup) => Ok(Answer { exists: true, records: lookup.answers().to_vec(), negative_ttl: 0 }),
            Err(NetError::Dns(DnsError::NoRecordsFound(nothing))) => {
                no_records(nothing.response_code, nothing.negative_ttl.unwrap_or(0))
            }
            Err(NetError::Dns(DnsError::ResponseCode(code))) => no_records(code, 0),
            Err(NetError::Timeout) => Err("timed out".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }
}

fn no_records(code: ResponseCode, negative_ttl: u32) -> Result<Answer, String> {
    if code == ResponseCode::NoError || code == ResponseCode::NXDomain {
        Ok(Answer { exists: code == ResponseCode::NoError, records: Vec::new(), negative_ttl })
    } else {
        Err(format!("the name server answered: {code}"))
    }
}

/// The addresses of this family that the hosts file has for a name, if it lists the name at all. It is small, and read at
/// every question so that a change counts.
fn listed_in_hosts(name: &Name, kind: RecordType) -> Option<Vec<Record>> {
    let hosts = Hosts::from_system().ok()?;
    let look_up = |kind| hosts.lookup_static_host(&Query::query(name.clone(), kind));
    let listed = [RecordType::A, RecordType::AAAA].map(|family| (family, look_up(family)));
    listed.iter().any(|(_, lookup)| lookup.is_some()).then(|| {
        let family = listed.into_iter().filter(|(family, _)| *family == kind);
        let records = family.flat_map(|(_, lookup)| lookup.map(|lookup| lookup.answers().to_vec()).unwrap_or_default());
        records.map(|record| Record::from_rdata(record.name, HOSTS_TTL_SECONDS, record.data)).collect()
    })
}
