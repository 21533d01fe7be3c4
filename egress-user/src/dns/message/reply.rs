//! Replies to a client.

use hickory_resolver::proto::{
    op::{DEFAULT_MAX_PAYLOAD_LEN, ResponseCode},
    rr::{Name, RData, Record, RecordType},
    serialize::binary::{BinEncodable as _, BinEncoder, NameEncoding},
};

use super::Question;
use crate::{
    dns::{question::Transport, release::Release},
    policy::RefusalCode,
};

/// Bytes of the header (RFC 1035 section 4.1.1).
const HEADER_BYTES: usize = 12;

/// Bytes of a datagram for a client without EDNS (RFC 1035 section 4.2.1).
pub(super) const UDP_BYTES_PLAIN: usize = 512;

/// Bytes of a datagram for any client: what every path carries in one piece (DNS flag day 2020). Loopback carries more, but
/// then a client would see answers that it never sees outside.
const UDP_BYTES_MAX: u16 = DEFAULT_MAX_PAYLOAD_LEN;

/// Bytes of a message over a connection, whose length has two bytes.
pub(super) const TCP_BYTES_MAX: usize = 65_535;

/// Bytes of the text of an Extended DNS Error; a longer one is cut.
const TEXT_BYTES_MAX: usize = 200;

/// Bytes of the longest question section: a name, its type and its class.
const QUESTION_BYTES_MAX: usize = 255 + 4;

// A reply without records fits in the smallest datagram, so it need not know how it goes back.
const _: () = assert!(HEADER_BYTES + QUESTION_BYTES_MAX + OPT_BYTES + OPTION_BYTES + TEXT_BYTES_MAX <= UDP_BYTES_PLAIN);

/// Bytes of an OPT record without options.
const OPT_BYTES: usize = 11;

/// Bytes of an Extended DNS Error without its text: code and length of the option, and the code of the error.
const OPTION_BYTES: usize = 6;

/// The option that holds an Extended DNS Error (RFC 8914 section 2).
const EXTENDED_ERROR: u16 = 15;

/// Bytes of a record between its owner and its data: type, class, TTL and length.
const FIXED_BYTES: usize = 10;

/// Where the name in the question section begins.
const QUESTION_NAME_AT: u16 = 12;

/// Offsets above it do not fit in a compression pointer.
const POINTER_MAX: u16 = 0x3fff;

impl Question {
    /// The reply that refuses. A client with EDNS is told why (RFC 8914, "Blocked"); a long text is cut.
    pub fn refuse(&self, code: RefusalCode, text: &str) -> Vec<u8> {
        let code = match code {
            RefusalCode::Refused => ResponseCode::Refused,
            RefusalCode::NxDomain => ResponseCode::NXDomain,
        };
        self.reply().code(code).error(ExtendedError::Blocked, text).finish()
    }

    /// The reply that there is nothing, and why: for a name that is there, of which what was asked for is refused.
    pub fn withhold(&self, text: &str) -> Vec<u8> {
        self.reply().error(ExtendedError::Blocked, text).finish()
    }

    /// The reply that says that no name server gave an answer.
    pub fn fail(&self, text: &str) -> Vec<u8> {
        self.reply().code(ResponseCode::ServFail).error(ExtendedError::NetworkError, text).finish()
    }

    /// The reply with what is released of the name servers' answer, which is so many seconds old.
    ///
    /// Where it does not fit, it has as many whole records as do, and the mark that tells the client to ask over TCP. RFC
    /// 2181 section 9 lets them stand, and some clients (musl before 1.2.4) know nothing but datagrams.
    pub fn answer(&self, transport: Transport, release: &Release, age_seconds: u32) -> Vec<u8> {
        let code = if release.exists { ResponseCode::NoError } else { ResponseCode::NXDomain };
        let mut reply = self.reply().code(code);
        let mut records = Records::new(self);
        let bytes_max = self.bytes_max(transport).saturating_sub(self.edns.map_or(0, |_| OPT_BYTES));
        for record in &release.records {
            match records.add(record, record.ttl.saturating_sub(age_seconds), bytes_max) {
                Added::Yes => {}
                Added::NoRoom => {
                    reply.is_cut = true;
                    break;
                }
                Added::Unwritable => return self.fail("the answer has a record that cannot be written"),
            }
        }
        (reply.answers, reply.records) = (records.count, records.bytes);
        reply.finish()
    }

    fn reply(&self) -> Reply<'_> {
        Reply::new(self.echo, &self.section, self.edns)
    }
}

/// What of a client's header goes back with every reply: its id, its opcode, whether it wants recursion and whether it
/// checks signatures itself (RFC 6895 section 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Echo {
    id: [u8; 2],
    flags: [u8; 2],
}

impl Echo {
    /// Takes it from a message, if that is long enough.
    pub(super) fn of(message: &[u8]) -> Option<Self> {
        let [id_high, id_low, first, second, ..] = message.first_chunk::<HEADER_BYTES>()?;
        // Opcode and RD; CD.
        Some(Self { id: [*id_high, *id_low], flags: [first & 0x79, second & 0x10] })
    }
}

/// What of a client's OPT record counts for the reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Edns {
    payload: u16,
    /// Whether it wants signatures (RFC 3225), which goes back though it gets none.
    wants_signatures: bool,
}

impl Edns {
    pub(super) fn new(payload: u16, wants_signatures: bool) -> Self {
        Self { payload, wants_signatures }
    }

    /// Bytes of a datagram. RFC 6891 section 6.2.3 has the least.
    pub(super) fn bytes_max(self) -> usize {
        usize::from(self.payload.min(UDP_BYTES_MAX)).max(UDP_BYTES_PLAIN)
    }
}

/// Why there is no answer, in the numbers of RFC 8914 section 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ExtendedError {
    Blocked = 15,
    NetworkError = 23,
}

/// A reply in the making.
pub(super) struct Reply<'a> {
    echo: Echo,
    question: &'a [u8],
    edns: Option<Edns>,
    code: ResponseCode,
    is_cut: bool,
    answers: u16,
    records: Vec<u8>,
    error: Option<(ExtendedError, &'a str)>,
}

impl<'a> Reply<'a> {
    /// A reply to a question section.
    pub(super) fn new(echo: Echo, question: &'a [u8], edns: Option<Edns>) -> Self {
        Self {
            echo,
            question,
            edns,
            code: ResponseCode::NoError,
            is_cut: false,
            answers: 0,
            records: Vec::new(),
            error: None,
        }
    }

    /// The reply to a message whose question could not be read, or is none.
    pub(super) fn bare(echo: Echo, code: ResponseCode) -> Vec<u8> {
        Self::new(echo, &[], None).code(code).finish()
    }

    pub(super) fn code(mut self, code: ResponseCode) -> Self {
        self.code = code;
        self
    }

    fn error(mut self, error: ExtendedError, text: &'a str) -> Self {
        self.error = Some((error, text));
        self
    }

    /// The message.
    ///
    /// It is never authoritative and never claims that signatures were checked. It never has an SOA record either, so
    /// that nobody keeps it when it is negative (RFC 2308 section 5): the policy may change.
    pub(super) fn finish(self) -> Vec<u8> {
        let Self { echo, question, edns, code, is_cut, answers, records, error } = self;
        let [first, second] = echo.flags;
        let truncated = if is_cut { 0x02 } else { 0 };
        let questions = u16::from(!question.is_empty());
        let mut message = Vec::with_capacity(UDP_BYTES_PLAIN.max(records.len() + UDP_BYTES_PLAIN));
        message.extend(echo.id);
        // The first bits say that it is a response and that recursion is available.
        message.extend([0x80 | first | truncated, 0x80 | second | code.low()]);
        for count in [questions, answers, 0, u16::from(edns.is_some())] {
            message.extend(count.to_be_bytes());
        }
        message.extend(question);
        message.extend(records);
        if let Some(edns) = edns {
            message.extend(opt(edns, code, error));
        }
        message
    }
}

/// The OPT record of a reply.
fn opt(edns: Edns, code: ResponseCode, error: Option<(ExtendedError, &str)>) -> Vec<u8> {
    let Edns { payload: _, wants_signatures } = edns;
    let mut option = Vec::new();
    if let Some((error, text)) = error {
        let text = cut(text);
        let length = u16::try_from(text.len() + 2).unwrap_or(0);
        option.extend(EXTENDED_ERROR.to_be_bytes());
        option.extend(length.to_be_bytes());
        option.extend((error as u16).to_be_bytes());
        option.extend(text.as_bytes());
    }
    let mut record = vec![0];
    record.extend(u16::from(RecordType::OPT).to_be_bytes());
    record.extend(UDP_BYTES_MAX.to_be_bytes());
    record.extend([code.high(), 0, if wants_signatures { 0x80 } else { 0 }, 0]);
    record.extend(u16::try_from(option.len()).unwrap_or(0).to_be_bytes());
    record.extend(option);
    record
}

/// As much of a text as a reply may have.
fn cut(text: &str) -> String {
    if text.len() <= TEXT_BYTES_MAX {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(TEXT_BYTES_MAX - '…'.len_utf8());
    format!("{}…", text.get(..end).unwrap_or_default())
}

/// The records of an answer section.
struct Records {
    bytes: Vec<u8>,
    count: u16,
    /// Where the section begins in the message.
    start: usize,
    /// Names that were written, and where, so that owners can point there: the one that was asked, which keeps the
    /// client's case, and what CNAMEs lead to.
    names: Vec<(Name, u16)>,
}

/// What became of a record.
enum Added {
    Yes,
    NoRoom,
    Unwritable,
}

impl Records {
    fn new(question: &Question) -> Self {
        Self {
            bytes: Vec::new(),
            count: 0,
            start: HEADER_BYTES + question.section.len(),
            names: vec![(question.asked.clone(), QUESTION_NAME_AT)],
        }
    }

    /// Writes a record, if the message stays within so many bytes.
    fn add(&mut self, record: &Record, ttl: u32, bytes_max: usize) -> Added {
        let (Some(owner), Some(data)) = (self.owner(&record.name), rdata(&record.data)) else {
            return Added::Unwritable;
        };
        let Ok(length) = u16::try_from(data.len()) else { return Added::Unwritable };
        let data_at = self.start + self.bytes.len() + owner.len() + FIXED_BYTES;
        if data_at + data.len() > bytes_max {
            return Added::NoRoom;
        }
        let Some(count) = self.count.checked_add(1) else { return Added::NoRoom };
        self.count = count;
        self.bytes.extend(owner);
        self.bytes.extend(u16::from(record.record_type()).to_be_bytes());
        self.bytes.extend(u16::from(record.dns_class).to_be_bytes());
        self.bytes.extend(ttl.to_be_bytes());
        self.bytes.extend(length.to_be_bytes());
        self.bytes.extend(data);
        if let (RData::CNAME(target), Ok(at @ 0..=POINTER_MAX)) = (&record.data, u16::try_from(data_at)) {
            self.names.push((target.0.clone(), at));
        }
        Added::Yes
    }

    fn owner(&self, name: &Name) -> Option<Vec<u8>> {
        match self.names.iter().find(|(written, _)| written == name) {
            Some((_, at)) => Some((0xc000 | at).to_be_bytes().to_vec()),
            None => name.to_bytes().ok(),
        }
    }
}

/// The data of a record, without compression, which is not allowed in most types (RFC 3597 section 4).
fn rdata(data: &RData) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut encoder = BinEncoder::new(&mut bytes);
    encoder.set_name_encoding(NameEncoding::Uncompressed);
    data.emit(&mut encoder).ok()?;
    Some(bytes)
}
