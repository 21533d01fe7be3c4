//! Messages and answers for tests.

use std::{net::IpAddr, time::Duration};

use hickory_resolver::proto::{
    op::{Edns, Message, MessageType, OpCode, Query},
    rr::{Name, RData, Record, rdata::CNAME, rdata::opt::EdnsCode},
};

use super::question::{Answer, Asked, Asker, Outcome};
use crate::policy::{DomainName, RecordType};

/// A client's question, with EDNS.
pub(crate) fn query(id: u16, name: &str, kind: RecordType) -> Vec<u8> {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(absolute(name), kind.0.into()));
    message.set_edns(Edns::new().set_max_payload(1232).clone());
    message.to_vec().unwrap()
}

/// What a client reads in a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) id: u16,
    pub(crate) code: String,
    /// The name in its question section.
    pub(crate) name: String,
    /// The data of each record.
    pub(crate) answers: Vec<String>,
    pub(crate) ttls: Vec<u32>,
    /// The text of its Extended DNS Error.
    pub(crate) text: String,
}

/// Reads a reply.
pub(crate) fn read(message: &[u8]) -> Reply {
    let message = Message::from_vec(message).unwrap();
    let option = message.edns.as_ref().and_then(|edns| edns.option(EdnsCode::Unknown(15)));
    let text: Vec<u8> = option.map(|option| option.try_into().unwrap()).unwrap_or_default();
    Reply {
        id: message.metadata.id,
        code: format!("{:?}", message.metadata.response_code),
        name: message.queries[0].name().to_ascii(),
        answers: message.answers.iter().map(|record| record.data.to_string()).collect(),
        ttls: message.answers.iter().map(|record| record.ttl).collect(),
        text: String::from_utf8(text.get(2..).unwrap_or_default().to_vec()).unwrap(),
    }
}

/// A record with an address.
pub(crate) fn address(owner: &str, ttl: u32, address: &str) -> Record {
    Record::from_rdata(absolute(owner), ttl, RData::from(address.parse::<IpAddr>().unwrap()))
}

/// A record with another name.
pub(crate) fn alias(owner: &str, ttl: u32, target: &str) -> Record {
    Record::from_rdata(absolute(owner), ttl, RData::CNAME(CNAME(absolute(target))))
}

/// The answer that has these records.
pub(crate) fn answered(records: Vec<Record>) -> Outcome {
    let answer = Answer { exists: true, records, negative_ttl: 0 };
    Outcome { answer: Ok(answer), took: Duration::from_millis(20) }
}

/// The answer that there is nothing.
pub(crate) fn nothing(exists: bool, negative_ttl: u32) -> Outcome {
    Outcome { answer: Ok(Answer { exists, records: Vec::new(), negative_ttl }), took: Duration::from_millis(20) }
}

/// No answer.
pub(crate) fn failed(reason: &str) -> Outcome {
    Outcome { answer: Err(reason.to_owned()), took: Duration::from_secs(5) }
}

/// What is asked.
pub(crate) fn asked(name: &str, kind: RecordType) -> Asked {
    Asked { name: DomainName::parse(name).unwrap(), kind }
}

/// A process of a workload.
pub(crate) fn asker(workload: u32) -> Asker {
    Asker { workload, pid: 7, command: "curl".to_owned(), server: "9.9.9.9:53".parse().unwrap() }
}

fn absolute(text: &str) -> Name {
    let mut name = Name::from_ascii(text).unwrap();
    name.set_fqdn(true);
    name
}
