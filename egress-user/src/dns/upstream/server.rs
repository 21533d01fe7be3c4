//! One name server and the connections to it.

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::Context as _;
use hickory_resolver::{
    NameServerPool, PoolContext, TlsConfig,
    config::{ConnectionConfig, NameServerConfig, ResolverOpts, ServerOrderingStrategy},
    net::{
        DnsError, NetError,
        runtime::TokioRuntimeProvider,
        tls::default_provider,
        xfer::{DnsHandle as _, FirstAnswer as _},
    },
    proto::{
        op::{DnsRequestOptions, DnsResponse, Query, ResponseCode},
        rr::{Name, RecordType},
    },
};
use rustls::{ClientConfig, RootCertStore};
use tokio::{sync::Mutex, time::Instant};

use super::{QUESTION_TIME, chain, health::Health};
use crate::{dns::question::Answer, policy::NameServer};

/// Questions at once on one connection. More than are asked at once, because one more would close the connection.
const PER_CONNECTION_MAX: usize = 1024;

/// Bytes of the largest datagram that name servers may answer with: the size that is not fragmented on today's networks
/// (RFC 9715). What is longer comes over TCP.
const DATAGRAM_BYTES: u16 = 1232;

/// A name server. Its clones share connections and health.
#[derive(Clone)]
pub(super) struct Server {
    shared: Arc<Shared>,
}

struct Shared {
    address: SocketAddr,
    pool: NameServerPool<TokioRuntimeProvider>,
    health: Health,
    /// Over TLS, whether there is a connection. Until then one question is asked at a time: each would make its own.
    connected: Option<AtomicBool>,
    connecting: Mutex<()>,
}

/// What a name server gives for one question.
#[derive(Debug)]
pub(super) enum Given {
    /// An answer, be it that there is nothing.
    Answer(Raw),
    /// None, for this reason. Another server may do better.
    Nothing(String),
}

/// One answer as it came.
#[derive(Debug)]
pub(super) struct Raw {
    answer: Answer,
    /// The server says that there is no more, so a chain of CNAMEs that ends in nothing does end.
    is_final: bool,
}

/// How connections over TLS are made, and whom they trust.
pub(super) fn tls(roots: RootCertStore) -> anyhow::Result<ClientConfig> {
    let versions =
        ClientConfig::builder_with_provider(Arc::new(default_provider())).with_safe_default_protocol_versions();
    Ok(versions.context("set up TLS")?.with_root_certificates(roots).with_no_client_auth())
}

impl Server {
    pub(super) fn new(server: &NameServer, tls: &ClientConfig) -> Self {
        let (address, connections, connected) = match server {
            NameServer::Plain(address) => (*address, vec![ConnectionConfig::udp(), ConnectionConfig::tcp()], None),
            NameServer::Tls(address, name) => {
                (*address, vec![ConnectionConfig::tls(name.as_str().into())], Some(AtomicBool::new(false)))
            }
        };
        let connections = connections.into_iter().map(|mut connection| {
            connection.port = address.port();
            connection
        });
        let config = NameServerConfig::new(address.ip(), true, connections.collect());
        let context = PoolContext::new(options(), TlsConfig { config: tls.clone() });
        let pool = NameServerPool::from_config([config], Arc::new(context), TokioRuntimeProvider::default());
        let health = Health::new(Instant::now());
        Self { shared: Arc::new(Shared { address, pool, health, connected, connecting: Mutex::new(()) }) }
    }

    pub(super) fn health(&self) -> &Health {
        &self.shared.health
    }

    /// Asks over UDP, and over TCP if the answer did not fit; or over TLS.
    pub(super) async fn ask(&self, query: Query) -> Given {
        let alone = match &self.shared.connected {
            Some(connected) if !connected.load(Ordering::Relaxed) => Some(self.shared.connecting.lock().await),
            Some(_) | None => None,
        };
        // Ids, source addresses and questions of datagrams are compared there, and what does not fit is left lying. A
        // lost datagram is repeated twice. The case of names is not made random: some servers do not keep it.
        let result = self.shared.pool.lookup(query.clone(), request()).first_answer().await;
        let is_lost = matches!(result, Err(NetError::Timeout | NetError::Io(_) | NetError::NoConnections));
        if let Some(connected) = &self.shared.connected {
            connected.store(!is_lost, Ordering::Relaxed);
        }
        drop(alone);
        self.shared.health.note(is_lost, Instant::now());
        given(&query, result)
            .unwrap_or_else(|why| Given::Nothing(format!("name server {}: {why}", self.shared.address)))
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("address", &self.shared.address).finish_non_exhaustive()
    }
}

impl Raw {
    /// The name at which the answer's chain stops, although the server did not say that it ends there.
    pub(super) fn open_end(&self, name: &Name, kind: RecordType) -> Option<Name> {
        if self.is_final { None } else { chain::open_end(name, kind, &self.answer.records) }
    }

    /// Takes what was answered for the rest of the chain.
    pub(super) fn append(&mut self, rest: Self) {
        let Answer { exists, records, negative_ttl } = rest.answer;
        self.answer.exists = exists;
        self.answer.records.extend(records);
        self.answer.negative_ttl = negative_ttl;
        self.is_final = rest.is_final;
    }
}

impl From<Raw> for Answer {
    fn from(raw: Raw) -> Self {
        raw.answer
    }
}

fn options() -> ResolverOpts {
    let mut options = ResolverOpts::default();
    options.timeout = QUESTION_TIME;
    options.num_concurrent_reqs = 1;
    options.server_ordering_strategy = ServerOrderingStrategy::UserProvidedOrder;
    options.max_active_requests = PER_CONNECTION_MAX;
    options.case_randomization = false;
    options
}

fn request() -> DnsRequestOptions {
    let mut request = DnsRequestOptions::default();
    request.use_edns = true;
    request.edns_payload_len = DATAGRAM_BYTES;
    request.recursion_desired = true;
    request
}

fn given(query: &Query, result: Result<DnsResponse, NetError>) -> Result<Given, String> {
    match result {
        Ok(response) if response.queries != [query.clone()] => Err("answered another question".to_owned()),
        Ok(response) => {
            let answer = Answer {
                exists: response.response_code != ResponseCode::NXDomain,
                negative_ttl: response.negative_ttl().unwrap_or(0),
                records: response.answers.clone(),
            };
            let is_final = !answer.exists || response.soa().is_some();
            Ok(Given::Answer(Raw { answer, is_final }))
        }
        Err(NetError::Dns(DnsError::NoRecordsFound(nothing))) => {
            if *nothing.query != *query {
                return Err("answered another question".to_owned());
            }
            let exists = nothing.response_code != ResponseCode::NXDomain;
            let answer = Answer { exists, records: Vec::new(), negative_ttl: nothing.negative_ttl.unwrap_or(0) };
            Ok(Given::Answer(Raw { answer, is_final: true }))
        }
        Err(NetError::Dns(DnsError::ResponseCode(code))) => Err(format!("answered {code}")),
        Err(NetError::Timeout) => Err("timed out".to_owned()),
        // What went wrong with a connection is lost in hickory.
        Err(NetError::NoConnections) => Err("cannot be reached, or its certificate is not valid".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}
