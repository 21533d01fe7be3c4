mod fake;

use std::sync::atomic::{AtomicUsize, Ordering};

use hickory_resolver::proto::op::{Message, ResponseCode};
use tokio::net::UdpSocket;

use self::fake::{Fake, address, alias, authority, certificate, name, reply_to, text, with_address};
use super::*;
use crate::policy::DomainName;

/// Time for everything that a test waits for.
const DEADLINE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn the_whole_answer_section_is_passed_on_whatever_was_asked_for() {
    let fake = Fake::udp(|query| {
        let mut reply = reply_to(query);
        reply.add_answer(alias("www.example.", "edge.example."));
        reply.add_answer(text("edge.example.", "hello"));
        reply.add_answer(text("other.example.", "stray"));
        vec![reply]
    })
    .await;
    let answer = ask(&[fake.plain()], "www.example", RecordType(16)).await.unwrap();
    let expected =
        vec![alias("www.example.", "edge.example."), text("edge.example.", "hello"), text("other.example.", "stray")];
    assert_eq!(answer, Answer { exists: true, records: expected, negative_ttl: 0 });
}

#[tokio::test]
async fn a_name_that_begins_with_a_dash_is_asked_for() {
    let fake = Fake::udp(|query| vec![with_address(query, "192.0.2.1")]).await;
    let answer = ask(&[fake.plain()], "-r4.video.example", RecordType::A).await.unwrap();
    assert_eq!(answer.records.len(), 1);
}

#[tokio::test]
async fn that_there_is_nothing_is_an_answer_with_the_time_that_its_zone_gives() {
    for (code, exists) in [(ResponseCode::NXDomain, false), (ResponseCode::NoError, true)] {
        let fake = Fake::udp(move |query| {
            let mut reply = reply_to(query);
            reply.metadata.response_code = code;
            reply.add_authority(authority(30));
            vec![reply]
        })
        .await;
        let answer = ask(&[fake.plain()], "none.example", RecordType::AAAA).await;
        assert_eq!(answer, Ok(Answer { exists, records: vec![], negative_ttl: 30 }), "{code}");
    }
}

#[tokio::test]
async fn what_was_cut_short_in_a_datagram_is_asked_for_over_tcp() {
    let fake = Fake::udp_and_tcp(
        |query| {
            let mut reply = reply_to(query);
            reply.metadata.truncation = true;
            vec![reply]
        },
        |query| vec![with_address(query, "192.0.2.1")],
    )
    .await;
    let answer = ask(&[fake.plain()], "big.example", RecordType::A).await.unwrap();
    assert_eq!(answer.records, [address("big.example.", "192.0.2.1")]);
}

#[tokio::test]
async fn an_answer_with_a_wrong_id_or_question_is_ignored_and_the_right_one_taken() {
    let fake = Fake::udp(|query| {
        let mut wrong_id = with_address(query, "192.0.2.66");
        wrong_id.metadata.id = query.id.wrapping_add(1);
        let mut wrong_question = with_address(query, "192.0.2.67");
        wrong_question.queries = vec![Query::query(name("other.example."), rr::RecordType::A)];
        let mut no_question = with_address(query, "192.0.2.68");
        no_question.queries.clear();
        vec![wrong_id, wrong_question, no_question, with_address(query, "192.0.2.1")]
    })
    .await;
    let answer = ask(&[fake.plain()], "a.example", RecordType::A).await.unwrap();
    assert_eq!(answer.records, [address("a.example.", "192.0.2.1")]);
}

#[tokio::test]
async fn an_answer_from_another_address_is_ignored() {
    let liar = Arc::new(UdpSocket::bind(("127.0.0.1", 0)).await.unwrap());
    let honest = UdpSocket::bind(("127.0.0.1", 0)).await.unwrap();
    let server = NameServer::Plain(honest.local_addr().unwrap());
    let serve = async {
        let mut buffer = [0; 2048];
        let (length, client) = honest.recv_from(&mut buffer).await.unwrap();
        let query = Message::from_vec(&buffer[..length]).unwrap();
        liar.send_to(&with_address(&query, "192.0.2.66").to_vec().unwrap(), client).await.unwrap();
        honest.send_to(&with_address(&query, "192.0.2.1").to_vec().unwrap(), client).await.unwrap();
        std::future::pending::<()>().await;
    };
    let servers = [server];
    tokio::select! {
        answer = ask(&servers, "a.example", RecordType::A) => {
            assert_eq!(answer.unwrap().records, [address("a.example.", "192.0.2.1")]);
        }
        () = serve => {}
    }
}

#[tokio::test]
async fn over_a_connection_the_answer_to_another_question_is_no_answer() {
    let fake = Fake::udp_and_tcp(
        |query| {
            let mut reply = reply_to(query);
            reply.metadata.truncation = true;
            vec![reply]
        },
        |query| {
            let mut reply = with_address(query, "192.0.2.66");
            reply.queries = vec![Query::query(name("other.example."), rr::RecordType::A)];
            vec![reply]
        },
    )
    .await;
    let why = ask(&[fake.plain()], "a.example", RecordType::A).await.unwrap_err();
    assert!(why.ends_with("answered another question"), "{why}");
}

#[tokio::test]
async fn a_dead_server_delays_the_first_questions_and_then_none() {
    let dead = Fake::udp(|_| vec![]).await;
    let good = Fake::udp(|query| vec![with_address(query, "192.0.2.1")]).await;
    let upstream = Upstream::trusting(&[dead.plain(), good.plain()], RootCertStore::empty()).unwrap();
    for (number, slow) in [(1, true), (2, true), (3, false), (4, false)] {
        let outcome = ask_of(&upstream, &format!("a{number}.example"), RecordType::A).await;
        assert!(outcome.answer.is_ok(), "{outcome:?}");
        assert_eq!(outcome.took >= NEXT_SERVER_AFTER, slow, "question {number} took {:?}", outcome.took);
        assert!(outcome.took < QUESTION_TIME, "question {number} took {:?}", outcome.took);
    }
}

#[tokio::test]
async fn a_server_that_refuses_or_fails_is_passed_over_at_once() {
    for code in [ResponseCode::ServFail, ResponseCode::Refused, ResponseCode::NotImp] {
        let bad = Fake::udp(move |query| {
            let mut reply = reply_to(query);
            reply.metadata.response_code = code;
            vec![reply]
        })
        .await;
        let good = Fake::udp(|query| vec![with_address(query, "192.0.2.1")]).await;
        let upstream = Upstream::trusting(&[bad.plain(), good.plain()], RootCertStore::empty()).unwrap();
        let outcome = ask_of(&upstream, "a.example", RecordType::A).await;
        assert!(outcome.answer.is_ok() && outcome.took < NEXT_SERVER_AFTER, "{code}: {outcome:?}");
        let why = ask(&[bad.plain()], "a.example", RecordType::A).await.unwrap_err();
        assert_eq!(why, format!("name server {}: answered {code}", bad.address));
    }
}

#[tokio::test]
async fn a_server_that_never_answers_costs_the_time_of_one_question() {
    let dead = Fake::udp(|_| vec![]).await;
    let upstream = Upstream::trusting(&[dead.plain()], RootCertStore::empty()).unwrap();
    let outcome = ask_of(&upstream, "a.example", RecordType::A).await;
    assert_eq!(outcome.answer.unwrap_err().rsplit(' ').take(2).collect::<Vec<_>>(), ["out", "timed"]);
    assert!(outcome.took < QUESTION_TIME + Duration::from_secs(2), "{:?}", outcome.took);
}

#[tokio::test]
async fn a_chain_of_which_the_server_gives_a_part_is_followed_to_its_end() {
    let fake = Fake::udp(|query| {
        let mut reply = reply_to(query);
        let asked = query.queries[0].name().to_string();
        let number: u32 = asked.trim_start_matches('a').trim_end_matches(".example.").parse().unwrap();
        if number == 4 {
            reply.add_answer(address(&asked, "192.0.2.1"));
        } else {
            reply.add_answer(alias(&asked, &format!("a{}.example.", number + 1)));
        }
        vec![reply]
    })
    .await;
    let answer = ask(&[fake.plain()], "a1.example", RecordType::A).await.unwrap();
    assert_eq!(answer.records.len(), 4, "{answer:?}");
    assert_eq!(answer.records[3], address("a4.example.", "192.0.2.1"));
}

#[tokio::test]
async fn a_chain_without_end_ends() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let fake = Fake::udp(move |query| {
        let number = count.fetch_add(1, Ordering::Relaxed);
        let mut reply = reply_to(query);
        reply.add_answer(alias(&query.queries[0].name().to_string(), &format!("x{number}.example.")));
        vec![reply]
    })
    .await;
    let answer = ask(&[fake.plain()], "a.example", RecordType::A).await.unwrap();
    assert_eq!(answer.records.len(), CHAIN_QUESTIONS_MAX + 1);
    assert_eq!(asked.load(Ordering::Relaxed), CHAIN_QUESTIONS_MAX + 1);
}

#[tokio::test]
async fn a_chain_that_the_server_says_ends_in_nothing_is_not_asked_for_again() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let fake = Fake::udp(move |query| {
        count.fetch_add(1, Ordering::Relaxed);
        let mut reply = reply_to(query);
        reply.add_answer(alias("a.example.", "b.example."));
        reply.add_authority(authority(30));
        vec![reply]
    })
    .await;
    let answer = ask(&[fake.plain()], "a.example", RecordType::AAAA).await.unwrap();
    assert_eq!(answer.records, [alias("a.example.", "b.example.")]);
    assert_eq!((answer.negative_ttl, asked.load(Ordering::Relaxed)), (30, 1));
}

#[tokio::test]
async fn questions_to_one_server_do_not_wait_for_each_other() {
    const AT_ONCE: usize = 50;
    let socket = UdpSocket::bind(("127.0.0.1", 0)).await.unwrap();
    let upstream =
        Upstream::trusting(&[NameServer::Plain(socket.local_addr().unwrap())], RootCertStore::empty()).unwrap();
    let mut questions = JoinSet::new();
    for number in 0..AT_ONCE {
        let upstream = upstream.clone();
        questions.spawn(async move { ask_of(&upstream, &format!("a{number}.example"), RecordType::A).await });
    }
    // Nothing is answered before everything was asked.
    let mut received = std::collections::BTreeMap::new();
    let mut buffer = [0; 2048];
    while received.len() < AT_ONCE {
        let (length, client) = tokio::time::timeout(DEADLINE, socket.recv_from(&mut buffer)).await.unwrap().unwrap();
        let query = Message::from_vec(&buffer[..length]).unwrap();
        received.insert(query.queries[0].name().to_string(), (query, client));
    }
    for (query, client) in received.values() {
        socket.send_to(&with_address(query, "192.0.2.1").to_vec().unwrap(), client).await.unwrap();
    }
    for outcome in questions.join_all().await {
        assert!(outcome.answer.is_ok(), "{outcome:?}");
    }
}

#[tokio::test]
async fn over_tls_the_certificate_has_to_be_the_servers_own() {
    let fake = Fake::tls(|query| vec![with_address(query, "192.0.2.1")]).await;
    for (server_name, trusts, expected) in
        [("dns.example", true, true), ("other.example", true, false), ("dns.example", false, false)]
    {
        let mut roots = RootCertStore::empty();
        if trusts {
            roots.add(certificate("authority")).unwrap();
        }
        let server = NameServer::Tls(fake.address, DomainName::parse(server_name).unwrap());
        let upstream = Upstream::trusting(&[server], roots).unwrap();
        let outcome = ask_of(&upstream, "a.example", RecordType::A).await;
        assert_eq!(outcome.answer.is_ok(), expected, "{server_name} {trusts}: {outcome:?}");
    }
}

#[tokio::test]
async fn without_name_servers_only_the_hosts_file_is_asked() {
    assert_eq!(ask(&[], "a.example", RecordType::A).await.unwrap_err(), "no name server is known");
    let listed = ask(&[], "localhost", RecordType::A).await;
    let loopback = listed.is_ok_and(|answer| answer.records.iter().all(|record| record.data.ip_addr().is_some()));
    assert!(loopback, "every machine has `localhost` in its hosts file");
}

async fn ask(servers: &[NameServer], domain: &str, kind: RecordType) -> Result<Answer, String> {
    let upstream = Upstream::trusting(servers, RootCertStore::empty()).unwrap();
    ask_of(&upstream, domain, kind).await.answer
}

async fn ask_of(upstream: &Upstream, domain: &str, kind: RecordType) -> Outcome {
    let asked = Asked { name: DomainName::parse(domain).unwrap(), kind };
    tokio::time::timeout(DEADLINE, upstream.ask(&asked)).await.expect("it takes too long")
}
