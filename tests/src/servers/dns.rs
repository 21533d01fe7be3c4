//! A name server whose answers a test changes while it runs.

use std::{
    collections::BTreeMap,
    io::{self, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    str::FromStr as _,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use hickory_proto::{
    op::{Message, Metadata, Query, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, AAAA, CNAME, SOA},
    },
};
use socket2::Type;

use super::{Service, Shared, bind};
use crate::netns::Namespace;

/// Names that one answer may lead through.
const CHAIN_MAX: usize = 16;
/// Seconds for which a missing name stays missing.
const NEGATIVE_TTL: u32 = 1;
/// How long a connection may say nothing.
pub(super) const CONNECTION_IDLE_MAX: Duration = Duration::from_secs(10);

/// A name server over UDP and TCP. A name without an answer does not exist.
#[derive(Debug)]
pub struct Dns {
    zone: Shared<Zone>,
    _services: [Service; 2],
}

#[derive(Debug, Default)]
struct Zone {
    answers: BTreeMap<Name, Answer>,
    questions: BTreeMap<(Name, RecordType), u64>,
}

#[derive(Debug)]
enum Answer {
    Addresses { ttl: u32, addresses: Vec<IpAddr> },
    Alias { ttl: u32, target: Name },
    Failure,
}

impl Dns {
    /// A server on port 53 of the address.
    pub fn start(world: &Namespace, address: IpAddr) -> Result<Self> {
        Self::start_at(world, SocketAddr::new(address, 53))
    }

    /// A server on any port.
    pub fn start_at(world: &Namespace, address: SocketAddr) -> Result<Self> {
        let zone: Shared<Zone> = Shared::default();
        let (udp_zone, tcp_zone) = (zone.clone(), zone.clone());
        let udp = Service::start(bind(world, Type::DGRAM, address)?, move |socket| {
            let socket = UdpSocket::from(socket.try_clone()?);
            let mut buffer = [0; 4096];
            let (length, from) = socket.recv_from(&mut buffer)?;
            let question = buffer.get(..length).unwrap_or_default();
            socket.send_to(&reply(&mut udp_zone.lock(), question, Size::Datagram).map_err(io::Error::other)?, from)?;
            Ok(())
        })?;
        let tcp = Service::start(bind(world, Type::STREAM, address)?, move |socket| {
            let (connection, zone) = (TcpStream::from(socket.accept()?.0), tcp_zone.clone());
            // Ends with its connection, or when that is idle.
            thread::spawn(move || drop(serve_connection(connection, &zone)));
            Ok(())
        })?;
        Ok(Self { zone, _services: [udp, tcp] })
    }

    /// From now on the name has exactly these addresses of both families.
    pub fn answer(&self, name: &str, ttl: u32, addresses: &[IpAddr]) -> Result<()> {
        self.set(name, Answer::Addresses { ttl, addresses: addresses.to_vec() })
    }

    /// From now on the name is another name for `target`.
    pub fn alias(&self, name: &str, ttl: u32, target: &str) -> Result<()> {
        self.set(name, Answer::Alias { ttl, target: parse(target)? })
    }

    /// From now on questions for the name end in SERVFAIL.
    pub fn fail(&self, name: &str) -> Result<()> {
        self.set(name, Answer::Failure)
    }

    /// Questions for addresses of the name so far, of both families.
    pub fn questions(&self, name: &str) -> Result<u64> {
        let name = parse(name)?;
        let zone = self.zone.lock();
        Ok(zone.questions.iter().filter(|((asked, _), _)| *asked == name).map(|(_, count)| count).sum())
    }

    fn set(&self, name: &str, answer: Answer) -> Result<()> {
        self.zone.lock().answers.insert(parse(name)?, answer);
        Ok(())
    }
}

pub(super) fn parse(name: &str) -> Result<Name> {
    let mut name = Name::from_str(name).with_context(|| format!("read the name `{name}`"))?.to_lowercase();
    name.set_fqdn(true);
    Ok(name)
}

/// How a reply goes, and so how long it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    Datagram,
    Stream,
}

/// One message of a connection, without its length.
pub(super) fn read_framed(connection: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 2];
    connection.read_exact(&mut length)?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    connection.read_exact(&mut message)?;
    Ok(message)
}

/// Sends one message on a connection.
pub(super) fn write_framed(connection: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    connection.write_all(&[&length.to_be_bytes(), message].concat())
}

/// The reply to a question, with nothing in it yet.
pub(super) fn reply_to(question: &Message) -> Message {
    let mut reply = Message::response(question.metadata.id, question.metadata.op_code);
    reply.metadata = Metadata::response_from_request(&question.metadata);
    reply.metadata.authoritative = true;
    reply.metadata.recursion_available = true;
    reply.add_queries(question.queries.iter().cloned());
    if let Some(edns) = question.edns.clone() {
        reply.set_edns(edns);
    }
    reply
}

/// The reply as bytes, cut short where a datagram cannot carry it.
pub(super) fn write(reply: &Message, question: &Message, size: Size) -> Result<Vec<u8>> {
    let bytes = reply.to_vec().context("write a reply")?;
    match size {
        Size::Datagram if bytes.len() > usize::from(question.max_payload()) => {
            reply.truncate().to_vec().context("write a cut reply")
        }
        Size::Datagram | Size::Stream => Ok(bytes),
    }
}

/// What says for how long there is nothing.
pub(super) fn start_of_authority() -> Result<Record> {
    let host = parse("ns.example.com")?;
    let start = SOA::new(host.clone(), host, 1, 60, 60, 60, NEGATIVE_TTL);
    Ok(Record::from_rdata(Name::root(), NEGATIVE_TTL, RData::SOA(start)))
}

fn serve_connection(mut connection: TcpStream, zone: &Shared<Zone>) -> io::Result<()> {
    connection.set_read_timeout(Some(CONNECTION_IDLE_MAX))?;
    loop {
        let question = read_framed(&mut connection)?;
        let reply = reply(&mut zone.lock(), &question, Size::Stream).map_err(io::Error::other)?;
        write_framed(&mut connection, &reply)?;
    }
}

fn reply(zone: &mut Zone, question: &[u8], size: Size) -> Result<Vec<u8>> {
    let question = Message::from_vec(question).context("read a question")?;
    let mut reply = reply_to(&question);
    for query in &question.queries {
        answer(zone, query, &mut reply)?;
    }
    write(&reply, &question, size)
}

fn answer(zone: &mut Zone, query: &Query, reply: &mut Message) -> Result<()> {
    let mut name = query.name.to_lowercase();
    name.set_fqdn(true);
    *zone.questions.entry((name.clone(), query.query_type)).or_default() += 1;
    for _ in 0..CHAIN_MAX {
        match zone.answers.get(&name) {
            Some(Answer::Alias { ttl, target }) => {
                reply.add_answer(Record::from_rdata(name, *ttl, RData::CNAME(CNAME(target.clone()))));
                name = target.clone();
            }
            Some(Answer::Addresses { ttl, addresses }) => {
                for address in addresses {
                    match (address, query.query_type) {
                        (IpAddr::V4(address), RecordType::A) => {
                            reply.add_answer(Record::from_rdata(name.clone(), *ttl, RData::A(A(*address))));
                        }
                        (IpAddr::V6(address), RecordType::AAAA) => {
                            reply.add_answer(Record::from_rdata(name.clone(), *ttl, RData::AAAA(AAAA(*address))));
                        }
                        _ => {}
                    }
                }
                break;
            }
            Some(Answer::Failure) => {
                reply.metadata.response_code = ResponseCode::ServFail;
                return Ok(());
            }
            None => {
                reply.metadata.response_code = ResponseCode::NXDomain;
                break;
            }
        }
    }
    if !reply.answers.iter().any(|record| record.record_type() == query.query_type) {
        reply.add_authority(start_of_authority()?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{DNS_V4, Network, public_v4, public_v6};

    /// Addresses that the C library of the client finds, sorted.
    fn look_up(network: &Network, name: &str) -> Vec<String> {
        let finished = network.client.command("getent").args(["ahosts", name]).finish().unwrap();
        let mut addresses: Vec<String> =
            finished.stdout.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect();
        addresses.sort();
        addresses.dedup();
        addresses
    }

    #[test]
    fn answers_change_while_the_server_runs() {
        let network = Network::new().unwrap();
        let dns = Dns::start(&network.world, DNS_V4).unwrap();
        assert_eq!(look_up(&network, "api.example.com"), Vec::<String>::new());

        dns.answer("end.example.net", 60, &[public_v4(1), public_v6(2)]).unwrap();
        dns.alias("middle.example.net", 60, "end.example.net").unwrap();
        dns.alias("api.example.com", 60, "middle.example.net").unwrap();
        assert_eq!(look_up(&network, "api.example.com"), ["198.20.1.1", "2c0f:fff0::1:2"]);
        assert!(dns.questions("API.example.com").unwrap() >= 2);

        dns.answer("api.example.com", 60, &[public_v4(4)]).unwrap();
        assert_eq!(look_up(&network, "api.example.com"), ["198.20.1.4"]);
    }

    #[test]
    fn an_answer_too_large_for_udp_comes_over_tcp() {
        let network = Network::new().unwrap();
        let dns = Dns::start(&network.world, DNS_V4).unwrap();
        let many: Vec<IpAddr> = (0..100).map(|host| IpAddr::from([198, 20, 2, host])).collect();
        dns.answer("many.example.com", 60, &many).unwrap();
        assert_eq!(look_up(&network, "many.example.com").len(), 100);
    }
}
