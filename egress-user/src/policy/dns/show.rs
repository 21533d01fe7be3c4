//! [`Dns`] → the keys of the `dns` section.

use serde::Serialize;
use serde_yaml::FlowSeq;

use super::{AddressLimits, Budget, Dns, duration::Seconds};

/// The section with every default spelled out.
pub(in crate::policy) fn section(dns: &Dns) -> Section {
    let Dns { types, refuse, grace_seconds, ttl_floor_seconds, budget, addresses, servers } = dns;
    let Budget { questions_per_minute, names_per_hour, label_bytes, random_percent } = *budget;
    let AddressLimits { per_name, total } = *addresses;
    Section {
        types: FlowSeq(types.iter().map(ToString::to_string).collect()),
        refuse: refuse.to_string(),
        grace: Seconds(*grace_seconds).to_string(),
        ttl_floor: Seconds(*ttl_floor_seconds).to_string(),
        budget: BudgetKeys { questions_per_minute, names_per_hour, label_bytes, random_percent },
        addresses: AddressKeys { per_name, total },
        servers: FlowSeq(servers.iter().map(ToString::to_string).collect()),
    }
}

/// The keys and their values.
#[derive(Serialize)]
pub(in crate::policy) struct Section {
    types: FlowSeq<Vec<String>>,
    refuse: String,
    grace: String,
    ttl_floor: String,
    budget: BudgetKeys,
    addresses: AddressKeys,
    servers: FlowSeq<Vec<String>>,
}

#[derive(Serialize)]
struct BudgetKeys {
    questions_per_minute: u32,
    names_per_hour: u32,
    label_bytes: u8,
    random_percent: u8,
}

#[derive(Serialize)]
struct AddressKeys {
    per_name: u32,
    total: u32,
}
