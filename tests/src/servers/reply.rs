//! What a name server may say, rightly and wrongly.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use anyhow::Result;
use hickory_proto::{
    op::{Message, Query, ResponseCode},
    rr::{
        RData, Record, RecordType,
        rdata::{A, AAAA, CNAME, NULL},
    },
};

use super::dns::{Size, parse, reply_to, start_of_authority, write};

/// Where a datagram comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The address and port that was asked.
    Asked,
    /// Another port of it.
    OtherPort,
    /// Port 53 of the last host of the world.
    OtherAddress,
}

/// One datagram, or one message of a connection, in reply to a question.
#[derive(Clone, Debug)]
pub struct Reply {
    pub(super) after: Duration,
    pub(super) source: Source,
    id_offset: u16,
    about: Option<String>,
    code: ResponseCode,
    is_cut: bool,
    records: Vec<(Option<String>, u32, RData)>,
}

impl Reply {
    /// No record.
    pub fn empty() -> Self {
        Self {
            after: Duration::ZERO,
            source: Source::Asked,
            id_offset: 0,
            about: None,
            code: ResponseCode::NoError,
            is_cut: false,
            records: Vec::new(),
        }
    }

    /// An error with this code: 1 FORMERR, 2 SERVFAIL, 3 NXDOMAIN, 4 NOTIMP, 5 REFUSED.
    pub fn code(code: u8) -> Self {
        Self { code: ResponseCode::from_low(code), ..Self::empty() }
    }

    /// The asked name has these addresses.
    pub fn addresses(ttl: u32, addresses: &[IpAddr]) -> Self {
        addresses.iter().fold(Self::empty(), |reply, address| reply.record(None, ttl, address_data(*address)))
    }

    /// The asked name is an alias of the first of these, that of the second and so on; the last has the addresses.
    pub fn chain(ttl: u32, names: &[impl AsRef<str>], addresses: &[IpAddr]) -> Result<Self> {
        let (mut reply, mut owner) = (Self::empty(), None);
        for name in names.iter().map(AsRef::as_ref) {
            reply = reply.record(owner, ttl, RData::CNAME(CNAME(parse(name)?)));
            owner = Some(name);
        }
        Ok(addresses.iter().fold(reply, |reply, address| reply.record(owner, ttl, address_data(*address))))
    }

    /// The asked name has a record of any type, with these bytes.
    pub fn bytes(ttl: u32, kind: u16, data: &[u8]) -> Self {
        let rdata = NULL::with(data.to_vec());
        Self::empty().record(None, ttl, RData::Unknown { code: RecordType::from(kind), rdata })
    }

    /// A record of another name besides.
    #[must_use]
    pub fn and(self, owner: &str, ttl: u32, address: IpAddr) -> Self {
        self.record(Some(owner), ttl, address_data(address))
    }

    /// Sent this long after the question.
    #[must_use]
    pub fn after(self, after: Duration) -> Self {
        Self { after, ..self }
    }

    /// Sent from elsewhere.
    #[must_use]
    pub fn from(self, source: Source) -> Self {
        Self { source, ..self }
    }

    /// With an id that is not the question's.
    #[must_use]
    pub fn with_wrong_id(self) -> Self {
        Self { id_offset: 1, ..self }
    }

    /// As if this name had been asked.
    #[must_use]
    pub fn about(self, name: &str) -> Self {
        Self { about: Some(name.to_owned()), ..self }
    }

    /// Without its records and marked as cut, where it is a datagram.
    #[must_use]
    pub fn cut(self) -> Self {
        Self { is_cut: true, ..self }
    }

    fn record(mut self, owner: Option<&str>, ttl: u32, data: RData) -> Self {
        self.records.push((owner.map(str::to_owned), ttl, data));
        self
    }

    pub(super) fn message(&self, question: &Message, query: &Query, size: Size) -> Result<Vec<u8>> {
        let mut reply = reply_to(question);
        reply.metadata.id = reply.metadata.id.wrapping_add(self.id_offset);
        reply.metadata.response_code = self.code;
        if let Some(name) = &self.about {
            let name = parse(name)?;
            reply.queries.iter_mut().for_each(|query| query.name = name.clone());
        }
        if self.is_cut && size == Size::Datagram {
            reply.metadata.truncation = true;
        } else {
            for (owner, ttl, data) in &self.records {
                if data.record_type() == query.query_type || data.record_type() == RecordType::CNAME {
                    let owner = owner.as_deref().map_or_else(|| Ok(query.name.clone()), parse)?;
                    reply.add_answer(Record::from_rdata(owner, *ttl, data.clone()));
                }
            }
            if reply.answers.is_empty() {
                reply.add_authority(start_of_authority()?);
            }
        }
        write(&reply, question, size)
    }
}

fn address_data(address: IpAddr) -> RData {
    match address {
        IpAddr::V4(address) => RData::A(A(address)),
        IpAddr::V6(address) => RData::AAAA(AAAA(address)),
    }
}

/// The bytes of an HTTPS record that has everything: ALPN, a port, address hints and the key of Encrypted Client Hello.
pub fn https_data(hint_v4: Ipv4Addr, hint_v6: Ipv6Addr, key: &[u8]) -> Vec<u8> {
    let parameter = |number: u8, value: &[u8]| {
        let length = u8::try_from(value.len()).unwrap_or(u8::MAX);
        [&[0, number, 0, length], value].concat()
    };
    // Priority 1, the target is the owner, then the parameters in the order of their numbers.
    let head = vec![0, 1, 0];
    let parameters = [
        parameter(1, b"\x02h2\x02h3"),
        parameter(3, &443_u16.to_be_bytes()),
        parameter(4, &hint_v4.octets()),
        parameter(5, key),
        parameter(6, &hint_v6.octets()),
    ];
    [head, parameters.concat()].concat()
}
