//! What must hold for any message of a client and any answer of a name server: for property tests and for fuzzing.

use std::collections::BTreeSet;

use hickory_resolver::proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::RData,
};

use super::{
    admission::{Admission, Refusal, admit},
    budget::{Ledger, OverBudget},
    message::{self, Question, Unreadable, encoded_bytes},
    name,
    question::{Answer, Asked, Transport},
    release::{Release, Withheld, release},
};
use crate::policy::{DomainName, Policy, RecordType, RefusalCode};

/// Bytes of a datagram to a client, at most.
const UDP_BYTES_MAX: usize = 1232;

/// A message of a client gets no reply, or one that fits it, whatever is decided about it.
///
/// # Panics
///
/// When it does not.
pub fn hold_for_client_message(policy: &Policy, bytes: &[u8]) {
    let question = match message::read(bytes) {
        Ok(question) => question,
        Err(Unreadable::Silent) => {
            return assert!(bytes.len() < 12 || bytes.get(2).is_some_and(|flags| flags & 0x80 != 0));
        }
        Err(Unreadable::Reply(reply)) => {
            let reply = replied(bytes, &reply, UDP_BYTES_MAX);
            return assert!(reply.answers.is_empty() && reply.metadata.response_code != ResponseCode::NoError);
        }
    };
    let admission = admit(policy, &question);
    if let (Admission::Forward { .. }, Some(name)) = (admission, question.name()) {
        assert!(policy.admits(name).is_some() && policy.dns.types.contains(&question.kind()));
        assert_eq!(Ledger::default().charge(&policy.dns.budget, name, 0), Ok(()));
    }
    let refusal = match admission {
        Admission::Refuse(refusal) => refusal,
        Admission::NameOf(address) => Refusal::UnknownAddress(address),
        Admission::Forward { below: true } => Refusal::OverBudget(OverBudget::Names),
        Admission::Forward { below: false } => Refusal::NoRule,
    };
    let text = refusal.message(&question, policy);
    for code in [RefusalCode::Refused, RefusalCode::NxDomain] {
        asked_back(bytes, &question, &question.refuse(code, &text), 512);
    }
    asked_back(bytes, &question, &question.fail(&text), 512);
    let nothing =
        Release { exists: true, records: vec![], addresses: vec![], aliases: vec![], ttl: 0, withheld: vec![] };
    asked_back(bytes, &question, &question.answer(Transport::Udp, &nothing, 0), 512);
}

/// Of an answer of a name server to a question, only what is on the chain and may be handed out is released, and the reply
/// to the client can be read. Returns whether there was an answer to look at.
///
/// # Panics
///
/// When it does not hold.
pub fn hold_for_name_server_answer(policy: &Policy, bytes: &[u8]) -> bool {
    let Ok(message) = Message::from_vec(bytes) else { return false };
    let Some(query) = message.queries.first() else { return false };
    let Some(name) = name::read(query.name()) else { return false };
    let asked = Asked { name, kind: RecordType(query.query_type().into()) };
    let exists = message.metadata.response_code != ResponseCode::NXDomain;
    let answer = Answer { exists, records: message.answers, negative_ttl: 60 };
    let release = release(policy, &asked, &answer);
    is_sound(policy, &asked, &answer, &release);

    let Some(sent) = sent(&asked.name, asked.kind) else { return false };
    let Ok(question) = message::read(&sent) else { return false };
    for (transport, bytes_max) in [(Transport::Udp, 512), (Transport::Tcp, 65_535)] {
        let reply = asked_back(&sent, &question, &question.answer(transport, &release, 1), bytes_max);
        let is_whole = reply.answers.len() == release.records.len();
        let is_failed = reply.metadata.response_code == ResponseCode::ServFail;
        assert!(is_whole || reply.metadata.truncation || is_failed, "{release:?} became {reply:?}");
        if let Some(withheld) = release.withheld.first() {
            is_told(policy, &question, *withheld);
        }
    }
    true
}

fn is_sound(policy: &Policy, asked: &Asked, answer: &Answer, release: &Release) {
    let mut owner = name::write(&asked.name);
    for record in &release.records {
        assert_eq!(Some(&record.name), owner.as_ref(), "{release:?}");
        assert_eq!(record.ttl, release.ttl, "{release:?}");
        let is_of_answer = answer.records.iter().any(|other| other.record_type() == record.record_type());
        assert!(is_of_answer, "{release:?}");
        if let RData::CNAME(target) = &record.data {
            owner = Some(target.0.clone());
        } else {
            assert_eq!(u16::from(record.record_type()), asked.kind.0, "{release:?}");
        }
    }
    let handed_out = release.records.iter().filter_map(|record| Some(record.data.ip_addr()?.to_canonical()));
    let opened: BTreeSet<_> = release.addresses.iter().map(|(address, _)| *address).collect();
    assert_eq!(handed_out.collect::<BTreeSet<_>>(), opened, "{release:?}");
    assert!(opened.iter().all(|address| policy.may_hand_out(*address).is_ok()), "{release:?}");
}

fn is_told(policy: &Policy, question: &Question, withheld: Withheld) {
    let text = Refusal::Withheld(withheld).message(question, policy);
    assert!(text.contains(&withheld.address.to_string()), "{text}");
}

/// A question as a client sends it.
fn sent(name: &DomainName, kind: RecordType) -> Option<Vec<u8>> {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(name::write(name)?, kind.0.into()));
    message.to_vec().ok()
}

/// The reply has the question as it was sent.
fn asked_back(sent: &[u8], question: &Question, reply: &[u8], bytes_max: usize) -> Message {
    let parsed = replied(sent, reply, bytes_max.max(question.bytes_max(Transport::Udp)));
    assert_eq!(parsed.queries.len(), 1);
    let section = 12..12 + parsed.queries.iter().map(|query| encoded_bytes(query.name()) + 4).sum::<usize>();
    assert_eq!(reply.get(section.clone()), sent.get(section), "another question came back");
    parsed
}

/// The reply can be read, is for the message that was sent, and fits.
fn replied(sent: &[u8], reply: &[u8], bytes_max: usize) -> Message {
    assert!(reply.len() <= bytes_max, "{} bytes are more than {bytes_max}", reply.len());
    assert_eq!(reply.get(..2), sent.get(..2), "another id came back");
    let parsed = Message::from_vec(reply);
    assert!(parsed.is_ok(), "{parsed:?}: {reply:02x?}");
    let parsed = parsed.unwrap_or_else(|_| Message::new(0, MessageType::Query, OpCode::Query));
    assert_eq!(parsed.metadata.message_type, MessageType::Response);
    assert!(!parsed.metadata.authentic_data && !parsed.metadata.authoritative);
    parsed
}
