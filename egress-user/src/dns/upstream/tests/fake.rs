//! Name servers that do as a test tells them, and what they say.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use hickory_resolver::proto::{
    op::{Message, OpCode},
    rr::{
        Name, RData, Record,
        rdata::{CNAME, SOA, TXT},
    },
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, UdpSocket},
    task::JoinSet,
};

use crate::policy::NameServer;

/// What a server does with a question: the messages that it sends, in this order.
type Script = Arc<dyn Fn(&Message) -> Vec<Message> + Send + Sync>;

/// A name server that stops when it is dropped.
pub(super) struct Fake {
    pub(super) address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Fake {
    pub(super) async fn udp(script: impl Fn(&Message) -> Vec<Message> + Send + Sync + 'static) -> Self {
        let socket = UdpSocket::bind(("127.0.0.1", 0)).await.unwrap();
        let address = socket.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(answer_datagrams(socket, Arc::new(script)));
        Self { address, _tasks: tasks }
    }

    pub(super) async fn udp_and_tcp(
        datagrams: impl Fn(&Message) -> Vec<Message> + Send + Sync + 'static,
        connections: impl Fn(&Message) -> Vec<Message> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let socket = UdpSocket::bind(address).await.unwrap();
        let connections: Script = Arc::new(connections);
        let mut tasks = JoinSet::new();
        tasks.spawn(answer_datagrams(socket, Arc::new(datagrams)));
        tasks.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                answer_stream(stream, &connections).await;
            }
        });
        Self { address, _tasks: tasks }
    }

    pub(super) async fn tls(script: impl Fn(&Message) -> Vec<Message> + Send + Sync + 'static) -> Self {
        let key = PrivateKeyDer::from_pem_file(file("server.key")).unwrap();
        let versions =
            rustls::ServerConfig::builder_with_provider(Arc::new(hickory_resolver::net::tls::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap();
        let config = versions.with_no_client_auth().with_single_cert(vec![certificate("server")], key).unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let script: Script = Arc::new(script);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if let Ok(stream) = acceptor.accept(stream).await {
                    answer_stream(stream, &script).await;
                }
            }
        });
        Self { address, _tasks: tasks }
    }

    pub(super) fn plain(&self) -> NameServer {
        NameServer::Plain(self.address)
    }
}

async fn answer_datagrams(socket: UdpSocket, script: Script) {
    let mut buffer = [0; 2048];
    while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
        let query = Message::from_vec(&buffer[..length]).unwrap();
        for message in script(&query) {
            socket.send_to(&message.to_vec().unwrap(), client).await.unwrap();
        }
    }
}

async fn answer_stream(mut stream: impl AsyncRead + AsyncWrite + Unpin, script: &Script) {
    while let Ok(length) = stream.read_u16().await {
        let mut buffer = vec![0; usize::from(length)];
        stream.read_exact(&mut buffer).await.unwrap();
        for message in script(&Message::from_vec(&buffer).unwrap()) {
            let message = message.to_vec().unwrap();
            stream.write_u16(u16::try_from(message.len()).unwrap()).await.unwrap();
            stream.write_all(&message).await.unwrap();
            stream.flush().await.unwrap();
        }
    }
}

pub(super) fn reply_to(query: &Message) -> Message {
    let mut reply = Message::response(query.id, OpCode::Query);
    reply.queries.clone_from(&query.queries);
    reply
}

pub(super) fn with_address(query: &Message, text: &str) -> Message {
    let mut reply = reply_to(query);
    let mut record = address("any.example.", text);
    record.name.clone_from(query.queries[0].name());
    reply.add_answer(record);
    reply
}

pub(super) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub(super) fn address(owner: &str, text: &str) -> Record {
    Record::from_rdata(name(owner), 60, RData::from(text.parse::<IpAddr>().unwrap()))
}

pub(super) fn alias(owner: &str, target: &str) -> Record {
    Record::from_rdata(name(owner), 60, RData::CNAME(CNAME(name(target))))
}

pub(super) fn text(owner: &str, text: &str) -> Record {
    Record::from_rdata(name(owner), 60, RData::TXT(TXT::new(vec![text.to_owned()])))
}

pub(super) fn authority(minimum: u32) -> Record {
    let soa = SOA::new(name("ns.example."), name("admin.example."), 1, 60, 60, 60, minimum);
    Record::from_rdata(name("example."), 3600, RData::SOA(soa))
}

pub(super) fn certificate(name: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(file(&format!("{name}.pem"))).unwrap()
}

pub(super) fn file(name: &str) -> String {
    format!("{}/tests/certificates/{name}", env!("CARGO_MANIFEST_DIR"))
}
