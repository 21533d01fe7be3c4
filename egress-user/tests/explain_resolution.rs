//! `egress explain` with a name server that answers: what a person sees of a name now.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    process::{Command, Output},
    sync::Arc,
    thread,
};

use hickory_resolver::proto::{
    op::{Message, OpCode, ResponseCode},
    rr::{Name, RData, Record, RecordType, rdata::CNAME},
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

#[test]
fn a_name_is_shown_with_its_addresses_and_what_is_withheld() {
    let server = format!("--resolver={}", datagrams());
    for (destination, expected) in [
        (
            "api.example.com",
            "api.example.com resolves now, through edge.cdn.example, to:\n  93.184.216.34, for 60 s and 600 s of grace\n  \
             10.20.0.1, for 60 s and 600 s of grace\n  192.168.0.1 (",
        ),
        ("x.wild.example.com:443/tcp", "x.wild.example.com resolves now to:\n  2606:4700::1111, for 60 s"),
        ("none.wild.example.com", "none.wild.example.com resolves now to:\n  no such name\n"),
        ("bad.wild.example.com", "  A: name server 127.0.0.1:"),
        ("other.example.org", "other.example.org is not asked for: no rule is about it\n"),
    ] {
        let output = explain(&[&server, destination], &[]);
        assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""), "{destination}");
        assert!(text(&output.stdout).contains(expected), "{destination}: {}", text(&output.stdout));
    }
    let output = explain(&["--no-resolve", &server, "api.example.com"], &[]);
    assert!(!text(&output.stdout).contains("resolves"), "{}", text(&output.stdout));
}

#[test]
fn a_name_server_over_tls_is_trusted_by_the_authorities_that_are_named() {
    let address = connections();
    let server = format!("--resolver=tls://{address}#dns.example");
    let authority = file("certificates/authority.pem");
    let output = explain(&[&server, "x.wild.example.com"], &[("SSL_CERT_FILE", authority.as_str())]);
    assert!(text(&output.stdout).contains("  2606:4700::1111, for 60 s"), "{}", text(&output.stdout));

    let server = format!("--resolver=tls://{address}#other.example");
    let output = explain(&[&server, "x.wild.example.com"], &[("SSL_CERT_FILE", authority.as_str())]);
    assert!(text(&output.stdout).contains("certificate"), "{}", text(&output.stdout));

    let output = explain(&[&server, "x.wild.example.com"], &[("SSL_CERT_FILE", &file("resolution.yaml"))]);
    assert!(text(&output.stdout).contains("`SSL_CERT_FILE`"), "{}", text(&output.stdout));
}

fn explain(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_egress"));
    command.args(["explain", "--policy", &file("resolution.yaml")]).env_remove("SSL_CERT_DIR");
    command.args(arguments).envs(environment.iter().copied()).output().unwrap()
}

/// A name server for as long as this process lives.
fn datagrams() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((length, client)) = socket.recv_from(&mut buffer) {
            socket.send_to(&answer(&buffer[..length]), client).unwrap();
        }
    });
    address
}

/// The same over TLS, for `dns.example`.
fn connections() -> SocketAddr {
    let key = PrivateKeyDer::from_pem_file(file("certificates/server.key")).unwrap();
    let certificate = CertificateDer::from_pem_file(file("certificates/server.pem")).unwrap();
    let provider = Arc::new(hickory_resolver::net::tls::default_provider());
    let versions = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = versions.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        runtime.block_on(async {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                // A question on each, at the same time.
                connections.spawn(serve(acceptor.clone(), stream));
            }
        });
    });
    address
}

async fn serve(acceptor: tokio_rustls::TlsAcceptor, stream: tokio::net::TcpStream) {
    let Ok(mut stream) = acceptor.accept(stream).await else { return };
    while let Ok(length) = stream.read_u16().await {
        let mut message = vec![0; usize::from(length)];
        stream.read_exact(&mut message).await.unwrap();
        let answer = answer(&message);
        stream.write_u16(u16::try_from(answer.len()).unwrap()).await.unwrap();
        stream.write_all(&answer).await.unwrap();
        stream.flush().await.unwrap();
    }
}

fn answer(message: &[u8]) -> Vec<u8> {
    let query = Message::from_vec(message).unwrap();
    let mut reply = Message::response(query.id, OpCode::Query);
    reply.queries.clone_from(&query.queries);
    let asked = &query.queries[0];
    let record = |owner: &str, data| Record::from_rdata(owner.parse::<Name>().unwrap(), 60, data);
    let address = |owner: &str, text: &str| record(owner, RData::from(text.parse::<IpAddr>().unwrap()));
    match (asked.name().to_ascii().as_str(), asked.query_type()) {
        ("api.example.com.", RecordType::A) => {
            let target = CNAME("edge.cdn.example.".parse().unwrap());
            reply.add_answer(record("api.example.com.", RData::CNAME(target)));
            for text in ["93.184.216.34", "10.20.0.1", "192.168.0.1"] {
                reply.add_answer(address("edge.cdn.example.", text));
            }
        }
        ("x.wild.example.com.", RecordType::AAAA) => {
            reply.add_answer(address("x.wild.example.com.", "2606:4700::1111"));
        }
        ("none.wild.example.com.", _) => reply.metadata.response_code = ResponseCode::NXDomain,
        ("bad.wild.example.com.", _) => reply.metadata.response_code = ResponseCode::ServFail,
        (_, _) => {}
    }
    reply.to_vec().unwrap()
}

fn file(name: &str) -> String {
    format!("{}/tests/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}
