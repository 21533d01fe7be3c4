//! Messages of well-meaning and of hostile clients, and the replies to them.

use std::net::{IpAddr, Ipv4Addr};

use hickory_resolver::proto::{
    op::{Edns as ProtoEdns, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{
        Name, RData, Record, RecordType as ProtoType,
        rdata::{CNAME, opt::EdnsCode},
    },
};

use super::*;
use crate::{dns::release::Release, policy::RefusalCode};

#[test]
fn a_question_is_read_as_it_was_asked() {
    for (labels, name, spelled) in [
        (&[&b"www"[..], b"example", b"com"][..], Some("www.example.com"), "www.example.com"),
        (&[b"wWw", b"eXample", b"COM"], Some("www.example.com"), "wWw.eXample.COM"),
        (&[b"_sip", b"_tcp", b"example", b"com"], Some("_sip._tcp.example.com"), "_sip._tcp.example.com"),
        (&[b"www.example", b"com"], None, "www\\.example.com"),
        (&[b"exa mple", b"com"], None, "exa\\032mple.com"),
        (&[b"\xff\0", b"com"], None, "\\255\\000.com"),
        (&[b"*", b"example", b"com"], None, "*.example.com"),
        (&[b"xn--a", b"example"], None, "xn--a.example"),
        (&[b"10", b"0", b"0", b"1"], None, "10.0.0.1"),
        (&[], None, "."),
    ] {
        let mut section: Vec<u8> = Vec::new();
        for label in labels {
            section.push(u8::try_from(label.len()).unwrap());
            section.extend(*label);
        }
        section.extend([0, 0, 28, 0, 1]);
        let question = read(&raw(1, &section)).unwrap();
        assert_eq!(question.name().map(DomainName::as_str), name, "{spelled}");
        assert_eq!((question.spelled(), question.kind()), (spelled, RecordType::AAAA));
    }
}

#[test]
fn what_cannot_be_answered_is_not_answered() {
    let whole = query("example.com.").to_vec().unwrap();
    for length in 0..12 {
        assert_eq!(read(&whole[..length]), Err(Unreadable::Silent), "{length} bytes");
    }
    let response = query("example.com.").into_response().to_vec().unwrap();
    assert_eq!(read(&response), Err(Unreadable::Silent));
}

#[test]
fn what_is_no_question_is_answered_with_what_is_wrong() {
    let plain = || query("example.com.");
    let other_opcode = || {
        let mut message = plain();
        message.metadata.op_code = OpCode::Status;
        message
    };
    let two_questions = || {
        let mut message = plain();
        message.add_query(Query::query(name("example.org."), ProtoType::A));
        message
    };
    let no_question = || Message::new(7, MessageType::Query, OpCode::Query);
    let with_answer = || {
        let mut message = plain();
        message.add_answer(address("example.com.", "192.0.2.1"));
        message
    };
    let with_authority = || {
        let mut message = plain();
        message.add_authority(address("example.com.", "192.0.2.1"));
        message
    };
    let many_additional = || {
        let mut message = plain();
        message.add_additionals((0..9).map(|_| address("example.com.", "192.0.2.1")));
        message
    };
    let mut trailing = plain().to_vec().unwrap();
    trailing.push(0);
    let mut short = plain().to_vec().unwrap();
    short.truncate(short.len() - 1);
    for (what, bytes, code) in [
        ("opcode", other_opcode().to_vec().unwrap(), ResponseCode::NotImp),
        ("two questions", two_questions().to_vec().unwrap(), ResponseCode::FormErr),
        ("no question", no_question().to_vec().unwrap(), ResponseCode::FormErr),
        ("an answer", with_answer().to_vec().unwrap(), ResponseCode::FormErr),
        ("an authority", with_authority().to_vec().unwrap(), ResponseCode::FormErr),
        ("many additional records", many_additional().to_vec().unwrap(), ResponseCode::FormErr),
        ("trailing garbage", trailing, ResponseCode::FormErr),
        ("cut short", short, ResponseCode::FormErr),
        ("a name that points to itself", raw(1, &[0xc0, 12, 0, 1, 0, 1]), ResponseCode::FormErr),
        ("a name that points into the header", raw(1, &[0xc0, 4, 0, 1, 0, 1]), ResponseCode::FormErr),
        ("a label that ends in the header", raw(1, &[1, b'a', 0xc0, 5, 0, 1, 0, 1]), ResponseCode::FormErr),
        ("a reserved label", raw(1, &[0x41, b'a', 0, 0, 1, 0, 1]), ResponseCode::FormErr),
        ("65,535 questions", raw(0xffff, &[0, 0, 1, 0, 1]), ResponseCode::FormErr),
    ] {
        let Err(Unreadable::Reply(reply)) = read(&bytes) else { panic!("{what}: {:?}", read(&bytes)) };
        let reply = Message::from_vec(&reply).unwrap();
        assert_eq!((reply.metadata.id, reply.metadata.response_code), (7, code), "{what}");
        assert_eq!(reply.metadata.message_type, MessageType::Response, "{what}");
        assert_eq!((reply.queries.len(), reply.answers.len()), (0, 0), "{what}");
    }
}

#[test]
fn questions_of_other_classes_are_refused() {
    let mut message = query("version.bind.");
    message.queries[0].query_class = DNSClass::CH;
    let Err(Unreadable::Reply(reply)) = read(&message.to_vec().unwrap()) else { panic!() };
    let reply = Message::from_vec(&reply).unwrap();
    assert_eq!(reply.metadata.response_code, ResponseCode::Refused);
    assert_eq!(reply.queries, message.queries);
}

#[test]
fn edns_of_another_version_is_answered_with_ours() {
    let mut message = query("example.com.");
    message.set_edns(ProtoEdns::new().set_version(1).set_max_payload(4096).clone());
    let Err(Unreadable::Reply(reply)) = read(&message.to_vec().unwrap()) else { panic!() };
    insta::assert_snapshot!(hexadecimal(&reply));
    let reply = Message::from_vec(&reply).unwrap();
    // The parser calls 16 by its other name.
    assert_eq!(u16::from(reply.metadata.response_code), u16::from(ResponseCode::BADVERS));
    assert_eq!(reply.edns.map(|edns| (edns.version(), edns.max_payload())), Some((0, 1232)));
}

#[test]
fn odd_options_are_passed_over_and_two_opt_records_are_malformed() {
    let opt = |options: &[u8]| {
        let mut record = vec![0, 0, 41, 16, 0, 0, 0, 0x80, 0, 0, u8::try_from(options.len()).unwrap()];
        record.extend(options);
        record
    };
    // A client subnet of an unknown family, an option whose length is wrong, and half of one.
    for options in [&[0, 8, 0, 4, 0, 9, 0, 0][..], &[0, 10, 0, 200, 1], &[0, 10, 0], &[]] {
        let bytes = with_additional(&[opt(options)]);
        assert!(read(&bytes).is_ok(), "{options:?}");
    }
    assert!(read(&with_additional(&[opt(&[]), opt(&[])])).is_err());
    let mut named = opt(&[]);
    named.splice(0..1, [1, b'a', 0]);
    assert!(read(&with_additional(&[named])).is_err());
}

#[test]
fn a_refusal_says_why_to_those_who_can_read_it() {
    let text = "policy `agents` has no rule for `example.com`";
    for (code, expected) in
        [(RefusalCode::Refused, ResponseCode::Refused), (RefusalCode::NxDomain, ResponseCode::NXDomain)]
    {
        let question = read(&with_edns("eXample.com.", 4096).to_vec().unwrap()).unwrap();
        let bytes = question.refuse(code, text);
        insta::assert_snapshot!(format!("refused_as_{}", expected.low()), hexadecimal(&bytes));
        let reply = Message::from_vec(&bytes).unwrap();
        assert_eq!(reply.metadata.response_code, expected);
        assert_eq!(extended_error(&reply), Some((15, text.to_owned())));
        let question = read(&query("eXample.com.").to_vec().unwrap()).unwrap();
        let reply = Message::from_vec(&question.refuse(code, text)).unwrap();
        assert_eq!((reply.metadata.response_code, reply.edns), (expected, None));
    }
}

#[test]
fn a_failure_is_a_servfail_with_its_reason() {
    let question = read(&with_edns("example.com.", 512).to_vec().unwrap()).unwrap();
    let reply = Message::from_vec(&question.fail("timed out")).unwrap();
    assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(extended_error(&reply), Some((23, "timed out".to_owned())));
}

#[test]
fn the_longest_refusal_fits_in_the_smallest_datagram() {
    let label = "a".repeat(63);
    let longest = format!("{label}.{label}.{label}.{}.", "b".repeat(61));
    let question = read(&with_edns(&longest, 512).to_vec().unwrap()).unwrap();
    let reply = question.refuse(RefusalCode::Refused, &"ü".repeat(400));
    assert!(reply.len() <= 512, "{} bytes", reply.len());
    let (_, text) = extended_error(&Message::from_vec(&reply).unwrap()).unwrap();
    assert!(text.len() <= 200 && text.ends_with("ü…"), "{text}");
}

#[test]
fn replies_go_back_with_what_the_client_sent() {
    let mut message = with_edns("wWw.Example.com.", 1400);
    message.metadata.checking_disabled = true;
    message.metadata.authentic_data = true;
    message.metadata.recursion_desired = true;
    message.edns.as_mut().unwrap().set_dnssec_ok(true);
    let sent = message.to_vec().unwrap();
    let question = read(&sent).unwrap();
    let bytes = question.answer(Transport::Udp, &released(1), 0);
    let reply = Message::from_vec(&bytes).unwrap();
    assert_eq!(reply.metadata.id, 7);
    assert!(reply.metadata.recursion_desired && reply.metadata.recursion_available);
    assert!(reply.metadata.checking_disabled && !reply.metadata.authentic_data && !reply.metadata.authoritative);
    assert!(reply.edns.unwrap().flags().dnssec_ok);
    let section = 12..12 + 17 + 4;
    assert_eq!(bytes[section.clone()], sent[section]);
    assert_eq!(reply.answers[0].name.to_string(), "wWw.Example.com.");
}

#[test]
fn an_answer_has_its_chain_and_what_is_left_of_its_ttls() {
    let release = Release {
        records: vec![
            Record::from_rdata(name("www.example.com."), 60, RData::CNAME(CNAME(name("a.cdn.example.")))),
            Record::from_rdata(name("a.cdn.example."), 60, RData::CNAME(CNAME(name("b.cdn.example.")))),
            address("b.cdn.example.", "192.0.2.1"),
            address("b.cdn.example.", "192.0.2.2"),
        ],
        ..released(0)
    };
    let question = read(&query("www.example.com.").to_vec().unwrap()).unwrap();
    let bytes = question.answer(Transport::Udp, &release, 20);
    insta::assert_snapshot!(hexadecimal(&bytes));
    let reply = Message::from_vec(&bytes).unwrap();
    let mut expected = release.records.clone();
    for record in &mut expected {
        record.ttl -= 20;
    }
    assert_eq!(reply.answers, expected);
    let old = Message::from_vec(&question.answer(Transport::Udp, &release, 61)).unwrap();
    assert!(old.answers.iter().all(|record| record.ttl == 0));
}

#[test]
fn what_is_not_there_is_said_so() {
    let question = read(&query("www.example.com.").to_vec().unwrap()).unwrap();
    for (exists, code) in [(true, ResponseCode::NoError), (false, ResponseCode::NXDomain)] {
        let release = Release { exists, ..released(0) };
        let reply = Message::from_vec(&question.answer(Transport::Udp, &release, 0)).unwrap();
        assert_eq!((reply.metadata.response_code, reply.answers.len(), reply.authorities.len()), (code, 0, 0));
        assert!(!reply.metadata.truncation);
    }
}

#[test]
fn an_answer_that_is_too_long_for_its_datagram_is_marked_as_cut() {
    for (message, bytes_max) in [
        (query("www.example.com."), 512),
        (with_edns("www.example.com.", 0), 512),
        (with_edns("www.example.com.", 900), 900),
        (with_edns("www.example.com.", 65_535), 1232),
    ] {
        let question = read(&message.to_vec().unwrap()).unwrap();
        for count in [1, 10, 29, 30, 31, 54, 55, 56, 73, 74, 75, 1000] {
            let bytes = question.answer(Transport::Udp, &released(count), 0);
            let reply = Message::from_vec(&bytes).unwrap();
            assert!(bytes.len() <= bytes_max, "{count} records in {} bytes", bytes.len());
            assert_eq!(reply.metadata.truncation, reply.answers.len() < count.into(), "{count} records");
            assert!(!reply.metadata.truncation || bytes.len() + 16 > bytes_max, "{count} records");
        }
        let reply = Message::from_vec(&question.answer(Transport::Tcp, &released(1000), 0)).unwrap();
        assert_eq!((reply.answers.len(), reply.metadata.truncation), (1000, false));
    }
}

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn query(asked: &str) -> Message {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(Name::from_ascii(asked).unwrap(), ProtoType::A));
    message
}

fn with_edns(asked: &str, payload: u16) -> Message {
    let mut message = query(asked);
    message.set_edns(ProtoEdns::new().set_max_payload(payload).clone());
    message
}

fn with_additional(records: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = query("example.com.").to_vec().unwrap();
    bytes[11] = u8::try_from(records.len()).unwrap();
    bytes.extend(records.concat());
    bytes
}

/// A query with so many questions and these bytes after its header.
fn raw(questions: u16, rest: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 7, 1, 0];
    bytes.extend(questions.to_be_bytes());
    bytes.extend([0; 6]);
    bytes.extend(rest);
    bytes
}

fn address(owner: &str, address: &str) -> Record {
    Record::from_rdata(name(owner), 60, RData::from(address.parse::<IpAddr>().unwrap()))
}

/// So many addresses of `www.example.com`.
fn released(count: u16) -> Release {
    let addresses = (0..count).map(|index| Ipv4Addr::from(0xc633_6400 + u32::from(index)));
    Release {
        exists: true,
        records: addresses.map(|ip| address("www.example.com.", &ip.to_string())).collect(),
        addresses: Vec::new(),
        aliases: Vec::new(),
        ttl: 60,
        withheld: Vec::new(),
    }
}

fn extended_error(reply: &Message) -> Option<(u16, String)> {
    let option = reply.edns.as_ref()?.option(EdnsCode::Unknown(15))?;
    let bytes: Vec<u8> = option.try_into().unwrap();
    Some((u16::from_be_bytes([bytes[0], bytes[1]]), String::from_utf8(bytes[2..].to_vec()).unwrap()))
}

fn hexadecimal(bytes: &[u8]) -> String {
    let lines =
        bytes.chunks(16).map(|line| line.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" "));
    lines.collect::<Vec<_>>().join("\n")
}
