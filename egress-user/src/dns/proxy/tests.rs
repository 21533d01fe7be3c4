use std::{collections::BTreeSet, future::Future, net::IpAddr};

use egress_common::limits::SERVER_SLOTS;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use super::*;

/// Any number will do: only the kernel compares it.
const NAMESPACE: u64 = 7;

/// Time for everything that a test waits for.
const DEADLINE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_datagram_is_answered_from_the_port_that_was_asked_in_each_family() {
    let (mut proxy, ports) = proxy();
    for address in loopback_addresses() {
        for port in ports {
            let client = UdpSocket::bind((address, 0)).await.unwrap();
            let server = SocketAddr::new(address, port);
            let talk = async {
                client.send_to(b"question", server).await.unwrap();
                let mut answer = [0; 64];
                let (length, from) = client.recv_from(&mut answer).await.unwrap();
                assert_eq!((&answer[..length], from), (&b"question"[..], server));
            };
            during(talk, echo(&mut proxy, governed)).await;
        }
    }
    assert_eq!(proxy.unanswered(), Unanswered::default());
    assert!(proxy.open.is_empty());
}

#[tokio::test]
async fn a_question_comes_with_what_the_kernel_knows_it_by() {
    let (mut proxy, ports) = proxy();
    let datagram = UdpSocket::bind(("127.0.0.1", 0)).await.unwrap();
    datagram.send_to(b"1", ("127.0.0.1", ports[2])).await.unwrap();
    let mut stream = TcpStream::connect(("127.0.0.1", ports[0])).await.unwrap();
    stream.write_all(b"\x00\x012").await.unwrap();
    let mut asked = Vec::new();
    for _ in 0..2 {
        let arrival = proxy.next(|source| {
            asked.push(*source);
            governed(source)
        });
        let arrival = timeout(DEADLINE, arrival).await.unwrap();
        assert_eq!(arrival.asker, governed(&asked[0]).unwrap());
    }
    let expected = [
        (Transport::Udp, datagram.local_addr().unwrap(), ports[2]),
        (Transport::Tcp, stream.local_addr().unwrap(), ports[0]),
    ];
    for (transport, client, local_port) in expected {
        assert!(
            asked.contains(&Source { namespace: NAMESPACE, transport, client, local_port }),
            "{transport:?} {asked:?}"
        );
    }
}

#[tokio::test]
async fn questions_on_one_connection_are_answered_in_any_order() {
    let (mut proxy, ports) = proxy();
    for address in loopback_addresses() {
        let talk = async {
            let mut stream = TcpStream::connect((address, ports[0])).await.unwrap();
            stream.write_all(b"\x00\x03one\x00\x03two\x00\x05").await.unwrap();
            stream.write_all(b"three").await.unwrap();
            let mut answers = [0; 17];
            stream.read_exact(&mut answers).await.unwrap();
            assert_eq!(&answers, b"\x00\x05three\x00\x03two\x00\x03one");
        };
        let answer = async {
            let mut arrivals = Vec::new();
            while arrivals.len() < 3 {
                arrivals.push(proxy.next(governed).await);
            }
            for Arrival { ticket, message, .. } in arrivals.into_iter().rev() {
                proxy.reply(ticket, Some(&message));
            }
            echo(&mut proxy, governed).await;
        };
        during(talk, answer).await;
    }
}

#[tokio::test]
async fn a_client_that_closes_its_half_still_gets_its_answers() {
    let (mut proxy, ports) = proxy();
    let talk = async {
        let mut stream = TcpStream::connect(("127.0.0.1", ports[0])).await.unwrap();
        stream.write_all(b"\x00\x03one\x00\x03two").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answers = Vec::new();
        stream.read_to_end(&mut answers).await.unwrap();
        assert_eq!(answers, b"\x00\x03one\x00\x03two");
    };
    during(talk, echo(&mut proxy, governed)).await;
}

#[tokio::test]
async fn what_nobody_governed_sent_gets_no_answer() {
    let (mut proxy, ports) = proxy();
    let stranger = UdpSocket::bind(("127.0.0.1", 0)).await.unwrap();
    let client = UdpSocket::bind(("127.0.0.1", 0)).await.unwrap();
    let strange = stranger.local_addr().unwrap();
    let talk = async {
        stranger.send_to(b"question", ("127.0.0.1", ports[0])).await.unwrap();
        let mut stream = TcpStream::connect(("127.0.0.1", ports[0])).await.unwrap();
        assert_closed(&mut stream).await;
        // By the time of this answer, the stranger would have had its own.
        client.send_to(b"question", ("127.0.0.1", ports[0])).await.unwrap();
        client.recv(&mut [0; 64]).await.unwrap();
        assert!(stranger.try_recv(&mut [0; 64]).is_err());
    };
    let who = |source: &Source| {
        (source.client != strange && source.transport == Transport::Udp).then(|| governed(source)).flatten()
    };
    during(talk, echo(&mut proxy, who)).await;
    assert_eq!(proxy.unanswered(), Unanswered { unattributed: 2, ..Unanswered::default() });
}

#[tokio::test]
async fn no_answer_closes_a_connection_and_leaves_a_datagram_alone() {
    let (mut proxy, ports) = proxy();
    let talk = async {
        let client = UdpSocket::bind(("127.0.0.1", 0)).await.unwrap();
        client.send_to(b"question", ("127.0.0.1", ports[1])).await.unwrap();
        let mut stream = TcpStream::connect(("127.0.0.1", ports[0])).await.unwrap();
        stream.write_all(b"\x00\x03one").await.unwrap();
        assert_closed(&mut stream).await;
        assert!(client.try_recv(&mut [0; 64]).is_err());
    };
    let answer = async {
        loop {
            let Arrival { ticket, .. } = proxy.next(governed).await;
            proxy.reply(ticket, None);
        }
    };
    during(talk, answer).await;
    assert_eq!(proxy.unanswered(), Unanswered::default());
}

#[tokio::test]
async fn garbage_ends_its_connection_and_no_other() {
    let (mut proxy, ports) = proxy();
    let talk = async {
        let mut good = TcpStream::connect(("127.0.0.1", ports[0])).await.unwrap();
        let mut bad = TcpStream::connect(("127.0.0.1", ports[0])).await.unwrap();
        bad.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        assert_closed(&mut bad).await;
        good.write_all(b"\x00\x03one").await.unwrap();
        good.read_exact(&mut [0; 5]).await.unwrap();
    };
    during(talk, echo(&mut proxy, governed)).await;
}

#[tokio::test]
async fn half_a_message_does_not_keep_a_connection_open() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    let (questions, mut received) = mpsc::channel(1);
    let (answers, written) = mpsc::channel(1);
    let mut tasks = JoinSet::new();
    tasks.spawn(tcp::serve(Line { id: 7, stream, idle_time: Duration::from_millis(50) }, questions, written));
    client.write_all(b"\x00\x03on").await.unwrap();
    timeout(DEADLINE, tasks.join_next()).await.unwrap().unwrap().unwrap();
    assert!(received.recv().await.is_none());
    drop(answers);
}

#[tokio::test]
async fn many_connections_close_the_idle_ones_and_do_not_hurt_datagrams() {
    let (mut proxy, ports) = proxy();
    let many = connections::PER_WORKLOAD_MAX + 100;
    let talk = async {
        let client = UdpSocket::bind(("127.0.0.1", 0)).await.unwrap();
        client.connect(("127.0.0.1", ports[3])).await.unwrap();
        let mut streams = Vec::new();
        for _ in 0..many {
            streams.push(TcpStream::connect(("127.0.0.1", ports[0])).await.unwrap());
            client.send(b"question").await.unwrap();
            client.recv(&mut [0; 64]).await.unwrap();
        }
        let (first, last) = (0, streams.len() - 1);
        assert_closed(&mut streams[first]).await;
        streams[last].write_all(b"\x00\x03one").await.unwrap();
        streams[last].read_exact(&mut [0; 5]).await.unwrap();
    };
    during(talk, echo(&mut proxy, governed)).await;
    assert!(proxy.tasks.len() <= connections::PER_WORKLOAD_MAX + 100, "{}", proxy.tasks.len());
}

#[tokio::test]
async fn the_oldest_questions_are_dropped_when_nobody_answers_any() {
    let (mut proxy, ports) = proxy();
    let client = UdpSocket::bind(("127.0.0.1", 0)).await.unwrap();
    let mut tickets = BTreeSet::new();
    for _ in 0..3 {
        client.send_to(b"question", ("127.0.0.1", ports[0])).await.unwrap();
        tickets.insert(timeout(DEADLINE, proxy.next(governed)).await.unwrap().ticket);
    }
    assert_eq!(tickets.len(), 3, "no ticket is given out twice");
    let first = *tickets.first().unwrap();
    proxy.open.get_mut(&first).unwrap().until = Instant::now();
    proxy.forget_late();
    assert_eq!(proxy.open.len(), 2);
    proxy.reply(first, Some(b"answer"));
    assert_eq!(proxy.unanswered(), Unanswered { late: 2, ..Unanswered::default() });
}

#[tokio::test]
async fn leaving_a_namespace_closes_its_sockets_and_connections() {
    let (mut proxy, ports) = proxy();
    let mut stream = TcpStream::connect(("127.0.0.1", ports[0])).await.unwrap();
    stream.write_all(b"\x00\x03one").await.unwrap();
    let Arrival { ticket, .. } = timeout(DEADLINE, proxy.next(governed)).await.unwrap();
    proxy.leave(NAMESPACE);
    proxy.reply(ticket, Some(b"answer"));
    during(assert_closed(&mut stream), echo(&mut proxy, governed)).await;
    assert!(TcpStream::connect(("127.0.0.1", ports[0])).await.is_err());
}

#[tokio::test]
async fn every_socket_can_be_registered() {
    let mut proxy = Proxy::default();
    let listener = proxy.listen(NAMESPACE, Sockets::open().unwrap()).unwrap();
    let families = loopback_addresses().len();
    assert_eq!(listener.sockets().len(), families * (SERVER_SLOTS + 1));
    assert!(listener.ports().iter().all(|port| *port != 0));
}

fn proxy() -> (Proxy, [u16; SERVER_SLOTS]) {
    let mut proxy = Proxy::default();
    let ports = proxy.listen(NAMESPACE, Sockets::open().unwrap()).unwrap().ports();
    (proxy, ports)
}

/// `::1` only where the machine has it.
fn loopback_addresses() -> Vec<IpAddr> {
    let addresses: [IpAddr; 2] = ["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()];
    addresses.into_iter().filter(|address| std::net::UdpSocket::bind((*address, 0)).is_ok()).collect()
}

#[expect(clippy::unnecessary_wraps, reason = "it stands in for the kernel, which does not know everybody")]
fn governed(_: &Source) -> Option<Asker> {
    let server = "192.0.2.53:53".parse().unwrap();
    Some(Asker { workload: 1, pid: 42, command: "dig".to_owned(), server })
}

/// A connection that the proxy closes is reset.
async fn assert_closed(stream: &mut TcpStream) {
    let error = stream.read(&mut [0]).await.expect_err("the connection is open");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

/// Answers every question with itself.
async fn echo(proxy: &mut Proxy, mut who: impl FnMut(&Source) -> Option<Asker>) {
    loop {
        let Arrival { ticket, message, .. } = proxy.next(&mut who).await;
        proxy.reply(ticket, Some(&message));
    }
}

/// Runs `talk` to its end while `background` goes on.
async fn during(talk: impl Future<Output = ()>, background: impl Future<Output = ()>) {
    let both = async {
        tokio::select! {
            () = talk => {}
            () = background => panic!("the background ended first"),
        }
    };
    timeout(DEADLINE, both).await.expect("it takes too long");
}
