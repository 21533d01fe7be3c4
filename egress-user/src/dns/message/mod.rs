//! One message of a client: what it asks, and the replies to it.
//!
//! Clients are hostile. A message is read once, in full and in time linear in its length, and what is not a plain question
//! for one name is not looked at any further.

mod reply;
#[cfg(test)]
mod tests;

use hickory_resolver::proto::{
    op::{Header, MessageType, OpCode, Query, ResponseCode},
    rr::{DNSClass, Name, RecordType as ProtoRecordType},
    serialize::binary::{BinDecodable as _, BinDecoder, DecodeError},
};

use self::reply::{Echo, Edns, Reply};
use super::{name, question::Transport};
use crate::policy::{DomainName, RecordType};

/// Records in the additional section of a question. There are an OPT and a TSIG in use; what has more asks for work, not
/// for a name, and is malformed to us.
const ADDITIONAL_RECORDS_MAX: u16 = 8;

/// A question for the records of one name, as a client asked it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// What of its header goes back.
    echo: Echo,
    /// Its question section, byte for byte: clients check that it comes back with the same case (0x20).
    section: Vec<u8>,
    asked: Name,
    name: Option<DomainName>,
    spelled: String,
    kind: RecordType,
    edns: Option<Edns>,
}

/// A message that asks nothing that could be decided about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// Nothing may be sent back: it is too short to be answered, or it is itself an answer.
    Silent,
    /// The answer that says what is wrong with it.
    Reply(Vec<u8>),
}

/// Reads a message.
pub fn read(message: &[u8]) -> Result<Question, Unreadable> {
    let mut decoder = BinDecoder::new(message);
    let (Ok(header), Some(echo)) = (Header::read(&mut decoder), Echo::of(message)) else {
        return Err(Unreadable::Silent);
    };
    if header.message_type == MessageType::Response {
        return Err(Unreadable::Silent);
    }
    if header.op_code != OpCode::Query {
        return Err(Unreadable::Reply(Reply::bare(echo, ResponseCode::NotImp)));
    }
    let Ok((query, section, edns)) = sections(message, &mut decoder, &header) else {
        return Err(Unreadable::Reply(Reply::bare(echo, ResponseCode::FormErr)));
    };
    if let Some(Opt { version: 1.., edns }) = edns {
        return Err(Unreadable::Reply(Reply::new(echo, section, Some(edns)).code(ResponseCode::BADVERS).finish()));
    }
    let edns = edns.map(|opt| opt.edns);
    if query.query_class() != DNSClass::IN {
        return Err(Unreadable::Reply(Reply::new(echo, section, edns).code(ResponseCode::Refused).finish()));
    }
    Ok(Question {
        echo,
        section: section.to_vec(),
        name: name::read(query.name()),
        spelled: name::spell(query.name()),
        kind: RecordType(query.query_type().into()),
        asked: query.name,
        edns,
    })
}

impl Question {
    /// The name that is asked for; `None` where it has bytes that no policy can name.
    pub fn name(&self) -> Option<&DomainName> {
        self.name.as_ref()
    }

    /// The type that is asked for.
    pub fn kind(&self) -> RecordType {
        self.kind
    }

    /// The name as it was asked for, in printable characters, for records.
    pub fn spelled(&self) -> &str {
        &self.spelled
    }

    /// Bytes of the longest reply.
    pub(super) fn bytes_max(&self, transport: Transport) -> usize {
        match transport {
            Transport::Udp => self.edns.map_or(reply::UDP_BYTES_PLAIN, Edns::bytes_max),
            Transport::Tcp => reply::TCP_BYTES_MAX,
        }
    }
}

/// What the OPT record of a message says (RFC 6891).
struct Opt {
    version: u8,
    edns: Edns,
}

/// Reads all that follows the header: one question, and nothing but additional records behind it.
fn sections<'a>(
    message: &'a [u8],
    decoder: &mut BinDecoder<'a>,
    header: &Header,
) -> Result<(Query, &'a [u8], Option<Opt>), Malformed> {
    let counts = header.counts;
    let is_plain = counts.queries == 1 && counts.answers == 0 && counts.authorities == 0;
    if !is_plain || counts.additionals > ADDITIONAL_RECORDS_MAX {
        return Err(Malformed);
    }
    let start = decoder.index();
    let query = Query::read(decoder)?;
    let section = message.get(start..decoder.index()).ok_or(Malformed)?;
    // The first name of a message has nothing before it but the header. A pointer into that would mean another name in
    // the reply, which has another header.
    if section.len() != encoded_bytes(query.name()) + 4 {
        return Err(Malformed);
    }
    let mut edns = None;
    for _ in 0..counts.additionals {
        let Some(opt) = additional(decoder)? else { continue };
        if edns.replace(opt).is_some() {
            return Err(Malformed);
        }
    }
    if decoder.is_empty() { Ok((query, section, edns)) } else { Err(Malformed) }
}

/// Reads an additional record, and keeps it if it is an OPT. Its options are passed over: nothing that one could ask for
/// is done here, and there are clients that send odd ones.
fn additional(decoder: &mut BinDecoder<'_>) -> Result<Option<Opt>, Malformed> {
    let owner = Name::read(decoder)?;
    let kind = ProtoRecordType::read(decoder)?;
    let class = decoder.read_u16()?.unverified();
    let [_, version, flags, _] = decoder.read_u32()?.unverified().to_be_bytes();
    let length = decoder.read_u16()?.unverified();
    decoder.read_slice(usize::from(length))?;
    if kind != ProtoRecordType::OPT {
        return Ok(None);
    }
    if !owner.is_root() {
        return Err(Malformed);
    }
    Ok(Some(Opt { version, edns: Edns::new(class, flags & 0x80 != 0) }))
}

/// A message that is not put together as RFC 1035 says.
struct Malformed;

impl From<DecodeError> for Malformed {
    fn from(_: DecodeError) -> Self {
        Self
    }
}

/// Bytes of a name in a message, without compression.
pub(super) fn encoded_bytes(name: &Name) -> usize {
    name.iter().map(|label| label.len() + 1).sum::<usize>() + 1
}
