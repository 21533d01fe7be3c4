//! Asks name servers. Only this process asks, and never from inside a governed cgroup.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, ensure};
use hickory_resolver::proto::{
    op::Query,
    rr::{self, Name, RData, Record},
};
use rustls::RootCertStore;
use tokio::{
    task::JoinSet,
    time::{Instant, timeout_at},
};

use self::{
    hosts::HostsFile,
    server::{Given, Server},
};
use super::{
    name,
    question::{Answer, Asked, Outcome},
};
use crate::policy::{NameServer, RecordType};

mod chain;
mod health;
mod hosts;
mod server;
#[cfg(test)]
mod tests;

/// Time for one question, chains of CNAMEs and all name servers included. The C library waits five seconds: what comes
/// later would find nobody.
const QUESTION_TIME: Duration = Duration::from_millis(4500);

/// Time after which the next name server is asked too. A healthy one answers within a second even when it has to ask
/// others, and gets two repetitions of the question before that.
const NEXT_SERVER_AFTER: Duration = Duration::from_secs(1);

/// Questions for the rest of a chain of CNAMEs of which the name server gives only a part. A recursive server gives the
/// whole, so more than one is rare; beyond it the chain is passed on as far as it is known.
const CHAIN_QUESTIONS_MAX: usize = 8;

/// Seconds after which the hosts file is looked at again for a name that it lists.
const HOSTS_TTL_SECONDS: u32 = 60;

/// The port of DNS.
pub const DNS_PORT: u16 = 53;

/// The hosts file of this machine.
const HOSTS: &str = "/etc/hosts";

/// Asks the hosts file and then the name servers. Its clones share what is known about the servers.
#[derive(Clone, Debug)]
pub struct Upstream {
    hosts: Arc<HostsFile>,
    servers: Arc<[Server]>,
}

/// The name servers of `/etc/resolv.conf`, in its order.
pub fn system_name_servers() -> anyhow::Result<Vec<NameServer>> {
    let (config, _) = hickory_resolver::system_conf::read_system_conf().context("read `/etc/resolv.conf`")?;
    let servers = config.name_servers().iter();
    Ok(servers.map(|server| NameServer::Plain(SocketAddr::new(server.ip, DNS_PORT))).collect())
}

impl Upstream {
    /// Asks these name servers: the first, and the others where those before them are slow or fail.
    pub fn new(servers: &[NameServer]) -> anyhow::Result<Self> {
        let is_tls = |server: &NameServer| matches!(server, NameServer::Tls(..));
        // A machine without certificates can ask name servers without TLS.
        let roots = if servers.iter().any(is_tls) { system_roots()? } else { RootCertStore::empty() };
        Self::trusting(servers, roots)
    }

    /// Trusts these certificate authorities instead of the system's.
    fn trusting(servers: &[NameServer], roots: RootCertStore) -> anyhow::Result<Self> {
        let tls = server::tls(roots)?;
        let servers = servers.iter().map(|server| Server::new(server, &tls)).collect();
        Ok(Self { hosts: Arc::new(HostsFile::at(HOSTS)), servers })
    }

    /// What the hosts file says if it lists the name, else what the name servers answer.
    pub async fn ask(&self, asked: &Asked) -> Outcome {
        let begun = Instant::now();
        let answer = match name::write(&asked.name) {
            Some(name) => match self.listed_in_hosts(&name, asked) {
                Some(answer) => Ok(answer),
                None => self.ask_servers(&name, asked.kind, begun + QUESTION_TIME).await,
            },
            None => Err("the name cannot be written in a question".to_owned()),
        };
        Outcome { answer, took: begun.elapsed() }
    }

    /// What the hosts file says of the name, if it lists it in either family.
    fn listed_in_hosts(&self, name: &Name, asked: &Asked) -> Option<Answer> {
        if asked.kind != RecordType::A && asked.kind != RecordType::AAAA {
            return None;
        }
        let listed = self.hosts.addresses(&asked.name);
        if listed.is_empty() {
            return None;
        }
        let wanted = listed.into_iter().filter(|address| address.is_ipv4() == (asked.kind == RecordType::A));
        let records = wanted.map(|address| Record::from_rdata(name.clone(), HOSTS_TTL_SECONDS, RData::from(address)));
        Some(Answer { exists: true, records: records.collect(), negative_ttl: HOSTS_TTL_SECONDS })
    }

    /// Asks until the chain of CNAMEs is whole.
    async fn ask_servers(&self, name: &Name, kind: RecordType, deadline: Instant) -> Result<Answer, String> {
        let kind = rr::RecordType::from(kind.0);
        let mut answer = self.ask_once(Query::query(name.clone(), kind), deadline).await?;
        for _ in 0..CHAIN_QUESTIONS_MAX {
            let Some(end) = answer.open_end(name, kind) else { break };
            let rest = self.ask_once(Query::query(end, kind), deadline).await?;
            answer.append(rest);
        }
        Ok(answer.into())
    }

    /// The answer of the first name server that has one, asked in their order: the next one as soon as one fails, or is
    /// slow.
    async fn ask_once(&self, query: Query, deadline: Instant) -> Result<server::Raw, String> {
        let mut waiting = health::order(self.servers.iter().map(Server::health), Instant::now()).into_iter();
        let mut running = JoinSet::new();
        let mut reason = "no name server is known".to_owned();
        while Instant::now() < deadline {
            let next = waiting.next().and_then(|number| self.servers.get(number));
            if let Some(server) = next {
                let (server, query) = (server.clone(), query.clone());
                running.spawn(async move { server.ask(query).await });
            }
            let patience = if waiting.len() == 0 { deadline } else { deadline.min(Instant::now() + NEXT_SERVER_AFTER) };
            match timeout_at(patience, running.join_next()).await {
                Ok(Some(Ok(Given::Answer(answer)))) => return Ok(answer),
                Ok(Some(Ok(Given::Nothing(why)))) => reason = why,
                Ok(Some(Err(error))) => reason = error.to_string(),
                Ok(None) => return Err(reason),
                // It may still answer, and is healthy again then.
                Err(_elapsed) => {
                    if let Some(server) = next {
                        server.health().note(true, Instant::now());
                    }
                }
            }
        }
        Err("timed out".to_owned())
    }
}

/// The certificate authorities that this machine trusts, or those of `SSL_CERT_FILE` and `SSL_CERT_DIR`.
fn system_roots() -> anyhow::Result<RootCertStore> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (usable, _unusable) = roots.add_parsable_certificates(found.certs);
    let problem = found.errors.first().map(|error| format!(": {error}")).unwrap_or_default();
    ensure!(
        usable > 0,
        "no certificate authority was found for name servers over TLS{problem}; install the system's certificates, or \
         name a file of them in `SSL_CERT_FILE`"
    );
    Ok(roots)
}
