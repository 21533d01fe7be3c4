//! Records that say how a service is reached (RFC 9460).

use hickory_resolver::proto::rr::{
    RData, Record,
    rdata::{
        HTTPS, SVCB,
        svcb::{SvcParamKey, SvcParamValue},
    },
};

use super::super::name;
use crate::policy::Policy;

/// The record without what leads around the policy: addresses that were not looked at, and the keys with which the name
/// that a client goes for is hidden.
///
/// A record that demands one of them (`mandatory`) is dropped, as section 8 has a client do that cannot follow it; so is
/// one that leads to a name that the policy does not admit.
pub(super) fn without_hints(policy: &Policy, record: &Record) -> Option<Record> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the parser knows dozens of types")]
    let data = match &record.data {
        RData::SVCB(service) => RData::SVCB(strip(policy, record, service)?),
        RData::HTTPS(service) => RData::HTTPS(HTTPS(strip(policy, record, &service.0)?)),
        _ => return None,
    };
    Some(Record::from_rdata(record.name.clone(), record.ttl, data))
}

fn strip(policy: &Policy, record: &Record, service: &SVCB) -> Option<SVCB> {
    let target = &service.target_name;
    // The root stands for the record's own name (section 2.5).
    if !target.is_root() && *target != record.name {
        policy.admits(&name::read(target)?)?;
    }
    let (mut params, mut mandatory) = (Vec::new(), Vec::new());
    for (key, value) in &service.svc_params {
        if let SvcParamValue::Mandatory(keys) = value {
            mandatory.clone_from(&keys.0);
        }
        if !leads_around(*key) {
            params.push((*key, value.clone()));
        }
    }
    if mandatory.into_iter().any(leads_around) {
        return None;
    }
    Some(SVCB::new(service.svc_priority, target.clone(), params))
}

fn leads_around(key: SvcParamKey) -> bool {
    match key {
        SvcParamKey::EchConfigList | SvcParamKey::Ipv4Hint | SvcParamKey::Ipv6Hint => true,
        SvcParamKey::Mandatory
        | SvcParamKey::Alpn
        | SvcParamKey::NoDefaultAlpn
        | SvcParamKey::Port
        | SvcParamKey::Key(_)
        | SvcParamKey::Key65535
        | SvcParamKey::Unknown(_) => false,
    }
}
