//! How a workload's questions about names are answered.

mod document;
mod duration;
mod read;
mod record_type;
mod server;
mod show;

use std::collections::BTreeSet;

pub(super) use self::{
    document::DnsKeys,
    show::{Section, section},
};
pub use self::{
    record_type::{InvalidRecordType, RecordType},
    server::{InvalidServer, NameServer},
};

/// What the `dns` section of a policy says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns {
    /// Types of records that may be asked for allowed names. Addresses that rules cover may be asked for their names
    /// (`PTR`) besides.
    pub types: BTreeSet<RecordType>,
    /// The response code of a refused question.
    pub refuse: RefusalCode,
    /// Seconds that an address stays usable after its last TTL ended.
    pub grace_seconds: u32,
    /// Least TTL, in seconds, that an answer has for the workload and for us.
    pub ttl_floor_seconds: u32,
    /// What a workload may ask below wildcards.
    pub budget: Budget,
    /// How many addresses names may have.
    pub addresses: AddressLimits,
    /// Name servers to ask instead of the system's; the system's when there are none.
    pub servers: Vec<NameServer>,
}

impl Default for Dns {
    fn default() -> Self {
        Self {
            types: RecordType::DEFAULT.into_iter().collect(),
            refuse: RefusalCode::Refused,
            grace_seconds: 300,
            ttl_floor_seconds: 1,
            budget: Budget::default(),
            addresses: AddressLimits::default(),
            servers: Vec::new(),
        }
    }
}

/// The response code of a refused question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RefusalCode {
    /// The server refuses for reasons of policy. The C library musl waits for another answer then.
    Refused,
    /// There is no such name. What musl takes for an answer.
    NxDomain,
}

/// What a workload may ask below wildcards, where a name can carry data out. Only questions that go to a name server
/// count: what is answered from the cache carries nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Questions in any minute.
    pub questions_per_minute: u32,
    /// Different names in any hour.
    pub names_per_hour: u32,
    /// Bytes of the longest label.
    pub label_bytes: u8,
    /// Percent of the different names of an hour that may look random, once there are enough to tell.
    pub random_percent: u8,
}

impl Default for Budget {
    fn default() -> Self {
        Self { questions_per_minute: 300, names_per_hour: 1000, label_bytes: 56, random_percent: 50 }
    }
}

/// How many addresses names may have at a time, those in their grace included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressLimits {
    /// Of one name.
    pub per_name: u32,
    /// Of all names together.
    pub total: u32,
}

impl Default for AddressLimits {
    fn default() -> Self {
        Self { per_name: 8192, total: 65_536 }
    }
}
