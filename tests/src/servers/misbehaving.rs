//! A name server that answers as a test says, wrongly too, and remembers every question.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    thread,
};

use anyhow::{Context as _, Result, ensure};
use hickory_proto::{
    op::{Message, Query},
    rr::{Name, RecordType},
};
use socket2::Type;

pub use super::reply::{Reply, Source, https_data};
use super::{
    Service, Shared, bind,
    dns::{CONNECTION_IDLE_MAX, Size, parse, read_framed, write_framed},
};
use crate::{
    deadline::{SOON, until},
    netns::Namespace,
    network::{HOSTS, public_v4, public_v6},
};

/// A name server over UDP and TCP. A name that it was told nothing about does not exist. When it is dropped it is dead,
/// and another one can be started in its place.
#[derive(Debug)]
pub struct Misbehaving {
    script: Shared<Script>,
    _services: [Service; 2],
}

/// A question that arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The name, in the spelling of the question, without the dot at its end.
    pub name: String,
    /// The number of the type.
    pub kind: u16,
    /// Whether it came over TCP.
    pub over_tcp: bool,
}

#[derive(Debug, Default)]
struct Script {
    at: BTreeMap<Name, Behaviour>,
    below: BTreeMap<Name, Behaviour>,
    seen: Vec<Seen>,
}

#[derive(Debug)]
enum Behaviour {
    Replies(Vec<Reply>),
    /// Each question gets the next addresses of the pool.
    Rotation {
        pool: Vec<IpAddr>,
        at_a_time: usize,
        ttl: u32,
        next: usize,
    },
}

impl Misbehaving {
    /// A server on port 53 of the address.
    pub fn start(world: &Namespace, address: IpAddr) -> Result<Self> {
        let listen = SocketAddr::new(address, 53);
        let script: Shared<Script> = Shared::default();
        let other_host = if address.is_ipv4() { public_v4(HOSTS - 1) } else { public_v6(HOSTS - 1) };
        let others: [UdpSocket; 2] = [
            bind(world, Type::DGRAM, SocketAddr::new(address, 0))?.into(),
            bind(world, Type::DGRAM, SocketAddr::new(other_host, 53))?.into(),
        ];
        let (udp_script, tcp_script) = (script.clone(), script.clone());
        let udp = Service::start(bind(world, Type::DGRAM, listen)?, move |socket| {
            let socket = UdpSocket::from(socket.try_clone()?);
            let mut buffer = [0; 4096];
            let (length, from) = socket.recv_from(&mut buffer)?;
            let question = buffer.get(..length).unwrap_or_default();
            for (reply, bytes) in replies(&udp_script, question, Size::Datagram).map_err(io::Error::other)? {
                let [other_port, other_address] = &others;
                let socket = match reply.source {
                    Source::Asked => &socket,
                    Source::OtherPort => other_port,
                    Source::OtherAddress => other_address,
                };
                if reply.after.is_zero() {
                    socket.send_to(&bytes, from)?;
                } else {
                    let socket = socket.try_clone()?;
                    thread::spawn(move || {
                        thread::sleep(reply.after);
                        // Whoever asked may be gone.
                        drop(socket.send_to(&bytes, from));
                    });
                }
            }
            Ok(())
        })?;
        let tcp = Service::start(bind(world, Type::STREAM, listen)?, move |socket| {
            let (connection, script) = (TcpStream::from(socket.accept()?.0), tcp_script.clone());
            // Ends with its connection, or when that is idle.
            thread::spawn(move || drop(serve_connection(connection, &script)));
            Ok(())
        })?;
        Ok(Self { script, _services: [udp, tcp] })
    }

    /// From now on a question for the name gets these replies, in their order; none is silence.
    pub fn reply(&self, name: &str, replies: impl Into<Vec<Reply>>) -> Result<()> {
        self.script.lock().at.insert(parse(name)?, Behaviour::Replies(replies.into()));
        Ok(())
    }

    /// From now on a question for any name below gets these replies, unless there are others for that name.
    pub fn reply_below(&self, name: &str, replies: impl Into<Vec<Reply>>) -> Result<()> {
        self.script.lock().below.insert(parse(name)?, Behaviour::Replies(replies.into()));
        Ok(())
    }

    /// From now on each question for the name gets the next addresses of a pool.
    pub fn rotate(&self, name: &str, ttl: u32, at_a_time: usize, pool: Vec<IpAddr>) -> Result<()> {
        ensure!(!pool.is_empty(), "a pool without addresses");
        self.script.lock().at.insert(parse(name)?, Behaviour::Rotation { pool, at_a_time, ttl, next: 0 });
        Ok(())
    }

    /// From now on each question for any name below gets the next addresses of a pool.
    pub fn rotate_below(&self, name: &str, ttl: u32, at_a_time: usize, pool: Vec<IpAddr>) -> Result<()> {
        ensure!(!pool.is_empty(), "a pool without addresses");
        self.script.lock().below.insert(parse(name)?, Behaviour::Rotation { pool, at_a_time, ttl, next: 0 });
        Ok(())
    }

    /// Every question so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.script.lock().seen.clone()
    }

    /// How often the name was asked for so far, in any spelling and of any type.
    pub fn questions(&self, name: &str) -> usize {
        self.seen().iter().filter(|seen| seen.name.eq_ignore_ascii_case(name)).count()
    }

    /// Waits until the name has been asked for.
    pub fn until_asked(&self, name: &str) -> Result<()> {
        until(&format!("a question for `{name}`"), SOON, || Ok((self.questions(name) > 0).then_some(())))
    }

    /// An error if a name that ends so was ever asked for.
    pub fn expect_no_question(&self, end: &str) -> Result<()> {
        let end = end.to_lowercase();
        let seen: Vec<Seen> = self.seen().into_iter().filter(|seen| seen.name.to_lowercase().ends_with(&end)).collect();
        ensure!(seen.is_empty(), "questions went out: {seen:?}");
        Ok(())
    }
}

fn serve_connection(mut connection: TcpStream, script: &Shared<Script>) -> io::Result<()> {
    connection.set_read_timeout(Some(CONNECTION_IDLE_MAX))?;
    loop {
        let question = read_framed(&mut connection)?;
        for (reply, bytes) in replies(script, &question, Size::Stream).map_err(io::Error::other)? {
            thread::sleep(reply.after);
            write_framed(&mut connection, &bytes)?;
        }
    }
}

fn replies(script: &Shared<Script>, question: &[u8], size: Size) -> Result<Vec<(Reply, Vec<u8>)>> {
    let question = Message::from_vec(question).context("read a question")?;
    let query = question.queries.first().context("a message without a question")?;
    let replies = script.lock().replies(query, size);
    replies
        .into_iter()
        .map(|reply| {
            let bytes = reply.message(&question, query, size)?;
            Ok((reply, bytes))
        })
        .collect()
}

impl Script {
    fn replies(&mut self, query: &Query, size: Size) -> Vec<Reply> {
        let name = query.name.to_string();
        self.seen.push(Seen {
            name: name.strip_suffix('.').unwrap_or(&name).to_owned(),
            kind: query.query_type.into(),
            over_tcp: size == Size::Stream,
        });
        let mut name = query.name.to_lowercase();
        name.set_fqdn(true);
        let below = self.below.iter_mut().filter(|(apex, _)| apex.zone_of(&name) && **apex != name);
        let behaviour = self.at.get_mut(&name).or_else(|| below.map(|(_, behaviour)| behaviour).last());
        match behaviour {
            Some(Behaviour::Replies(replies)) => replies.clone(),
            Some(Behaviour::Rotation { pool, at_a_time, ttl, next }) => {
                let is_v4 = query.query_type == RecordType::A;
                let of_family = pool.iter().cycle().skip(*next).take(*at_a_time);
                let addresses: Vec<IpAddr> = of_family.copied().filter(|address| address.is_ipv4() == is_v4).collect();
                if !addresses.is_empty() {
                    *next = (*next + *at_a_time) % pool.len();
                }
                vec![Reply::addresses(*ttl, &addresses)]
            }
            None => vec![Reply::code(3)],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        names::asking,
        network::{DNS_V4, Network},
    };

    fn dig(network: &Network, arguments: &[&str]) -> String {
        let dig = network.client.command("dig").args(["+tries=1", "+timeout=2", "+nocookie"]).args(arguments);
        dig.finish().unwrap().stdout
    }

    #[test]
    fn each_question_gets_the_next_addresses_of_the_pool() {
        let network = Network::new().unwrap();
        let server = Misbehaving::start(&network.world, DNS_V4).unwrap();
        server.rotate_below("cdn.example.com", 1, 2, (1..6).map(public_v4).collect()).unwrap();
        for expected in ["198.20.1.1\n198.20.1.2\n", "198.20.1.3\n198.20.1.4\n", "198.20.1.5\n198.20.1.1\n"] {
            assert_eq!(dig(&network, &["+short", "One.cdn.example.com"]), expected);
        }
        assert!(dig(&network, &["cdn.example.com"]).contains("NXDOMAIN"));
        assert_eq!(server.questions("one.cdn.example.com"), 3);
        assert_eq!(server.seen()[0], Seen { name: "One.cdn.example.com".to_owned(), kind: 1, over_tcp: false });
    }

    #[test]
    fn wrong_replies_come_before_the_right_one() {
        let network = Network::new().unwrap();
        let server = Misbehaving::start(&network.world, DNS_V4).unwrap();
        let (wrong, right) = (Reply::addresses(60, &[public_v4(9)]), Reply::addresses(60, &[public_v4(1)]));
        for (wrong, sign) in [
            (wrong.clone().with_wrong_id(), "\"id\": 2,"),
            (wrong.clone().about("other.example.com"), "\"name\": \"other.example.com\""),
            (wrong.clone().from(Source::OtherAddress), "\"from\": [\"198.20.1.15\", 53]"),
        ] {
            server.reply("api.example.com", [wrong, right.clone()]).unwrap();
            assert_eq!(dig(&network, &["+short", "+tries=2", "api.example.com"]).lines().last(), Some("198.20.1.1"));
            // Takes the first answer, whatever it is.
            let ask = network.client.command("env").args(asking(&["udp", "198.20.0.53", "api.example.com"]));
            let found = ask.finish().unwrap().stdout;
            assert!(found.contains(sign) && found.contains("198.20.1.9"), "no `{sign}` in {found}");
        }
        server.reply("cut.example.com", [right.cut()]).unwrap();
        assert!(dig(&network, &["+short", "cut.example.com"]).contains("198.20.1.1"));
        assert_eq!(server.seen().iter().filter(|seen| seen.over_tcp).count(), 1);
        server.reply("never.example.com", []).unwrap();
        assert!(dig(&network, &["+timeout=1", "never.example.com"]).contains("timed out"));
    }

    #[test]
    fn a_record_of_any_type_can_be_served() {
        let network = Network::new().unwrap();
        let server = Misbehaving::start(&network.world, DNS_V4).unwrap();
        let data = https_data([198, 20, 1, 1].into(), "2c0f:fff0::1:1".parse().unwrap(), b"key");
        server.reply("web.example.com", [Reply::bytes(60, 65, &data)]).unwrap();
        let found = dig(&network, &["+short", "web.example.com", "HTTPS"]);
        assert!(found.contains("ipv4hint=198.20.1.1 ech=a2V5 ipv6hint=2c0f:fff0::1:1"), "{found}");
        server.reply("web.example.com", [Reply::bytes(60, 16, b"\x05hello")]).unwrap();
        assert_eq!(dig(&network, &["+short", "web.example.com", "TXT"]), "\"hello\"\n");
    }
}
