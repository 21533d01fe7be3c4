//! The `dns` section → [`Dns`].

use std::{collections::BTreeSet, ops::RangeInclusive};

use super::{
    AddressLimits, Budget, Dns, NameServer, RecordType, RefusalCode,
    document::{AddressKeys, BudgetKeys, DnsKeys},
    duration::Seconds,
};
use crate::policy::{document::Text, domain::LABEL_BYTES_MAX, problem::Shown, read::Reader};

/// A day: whoever keeps an address for longer asks again.
const GRACE_LONGEST: Seconds = Seconds(86_400);

/// An hour: a name that moves is found at its new place within that.
const TTL_FLOOR_LONGEST: Seconds = Seconds(3_600);

/// Questions of a minute: 16,000 each second, more than one workload is served.
pub(super) const QUESTIONS_MAX: u32 = 1_000_000;

/// Names of an hour. Each is remembered for that long, so this bounds what a workload can make us keep.
pub(super) const NAMES_MAX: u32 = 1_000_000;

/// Addresses of all names: each takes about 100 bytes of kernel memory, so all of them take 100 MiB.
pub(super) const TOTAL_MAX: u32 = 1_048_576;

/// Name servers: more than anyone has, and few enough to try one after the other.
pub(super) const SERVERS_MAX: usize = 16;

impl Reader {
    /// The section, with defaults for what it does not say.
    pub(in crate::policy) fn dns(&mut self, keys: DnsKeys) -> Dns {
        let DnsKeys { types, refuse, grace, ttl_floor, budget, addresses, servers } = keys;
        let default = Dns::default();
        let ends_at_once = ttl_floor.as_ref().or(grace.as_ref()).map(|text| text.place);
        let dns = Dns {
            types: types.map_or(default.types, |list| self.types(&list)),
            refuse: self.choice(refuse, RefusalCode::ALL, default.refuse),
            grace_seconds: self.seconds(grace, GRACE_LONGEST, default.grace_seconds),
            ttl_floor_seconds: self.seconds(ttl_floor, TTL_FLOOR_LONGEST, default.ttl_floor_seconds),
            budget: self.budget(budget.unwrap_or_default()),
            addresses: self.addresses(addresses.unwrap_or_default()),
            servers: self.servers(&servers),
        };
        if let (0, 0, Some(place)) = (dns.grace_seconds, dns.ttl_floor_seconds, ends_at_once) {
            let message = "with `grace: 0s` and `ttl_floor: 0s`, an address whose TTL is 0 could never be reached; \
                           expected one of them to be `1s` or more";
            self.problem(place, message.to_owned());
        }
        dns
    }

    fn types(&mut self, list: &[Text]) -> BTreeSet<RecordType> {
        list.iter().filter_map(|text| self.value(text, RecordType::parse)).collect()
    }

    fn budget(&mut self, keys: BudgetKeys) -> Budget {
        let BudgetKeys { questions_per_minute, names_per_hour, label_bytes, random_percent } = keys;
        let default = Budget::default();
        let longest = u8::try_from(LABEL_BYTES_MAX).unwrap_or(u8::MAX);
        Budget {
            questions_per_minute: self.number(questions_per_minute, 1..=QUESTIONS_MAX, default.questions_per_minute),
            names_per_hour: self.number(names_per_hour, 1..=NAMES_MAX, default.names_per_hour),
            label_bytes: self.number(label_bytes, 1..=longest, default.label_bytes),
            random_percent: self.number(random_percent, 0..=100, default.random_percent),
        }
    }

    fn addresses(&mut self, keys: AddressKeys) -> AddressLimits {
        let AddressKeys { per_name, total } = keys;
        let default = AddressLimits::default();
        let total = self.number(total, 1..=TOTAL_MAX, default.total);
        let place = per_name.as_ref().map(|text| text.place);
        let per_name = self.number(per_name, 1..=TOTAL_MAX, default.per_name.min(total));
        if let Some(place) = place.filter(|_| per_name > total) {
            self.problem(place, format!("`{per_name}`: is more than `total`; expected at most `{total}`"));
        }
        AddressLimits { per_name, total }
    }

    fn servers(&mut self, list: &[Text]) -> Vec<NameServer> {
        let mut servers: Vec<NameServer> = Vec::new();
        for (index, text) in list.iter().enumerate() {
            if index == SERVERS_MAX {
                self.problem(text.place, format!("there are {} servers; expected at most {SERVERS_MAX}", list.len()));
                break;
            }
            match self.value(text, NameServer::parse) {
                Some(server) if servers.contains(&server) => {
                    self.problem(text.place, format!("{}: is listed already; expected it once", Shown(&text.text)));
                }
                Some(server) => servers.push(server),
                None => {}
            }
        }
        servers
    }

    fn seconds(&mut self, text: Option<Text>, longest: Seconds, default: u32) -> u32 {
        text.and_then(|text| self.value(&text, |text| Seconds::parse(text, longest))).map_or(default, |Seconds(n)| n)
    }

    fn number<N: Copy + Into<u32> + TryFrom<u32>>(
        &mut self,
        text: Option<Text>,
        allowed: RangeInclusive<N>,
        default: N,
    ) -> N {
        let (least, most): (u32, u32) = ((*allowed.start()).into(), (*allowed.end()).into());
        let read = |text: &str| {
            let is_plain = text == "0" || text.starts_with(|first: char| matches!(first, '1'..='9'));
            let number = text.parse::<u32>().ok().filter(|number| is_plain && (least..=most).contains(number));
            number
                .and_then(|number| N::try_from(number).ok())
                .ok_or_else(|| format!("{}: expected a number from {least} to {most}", Shown(text)))
        };
        text.and_then(|text| self.value(&text, read)).unwrap_or(default)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::parse;

    fn dns(section: &str) -> Dns {
        let file = format!("version: 1\nname: test\ndns: {section}");
        parse("test.yaml", file.as_bytes()).unwrap_or_else(|problems| panic!("{section}: {problems}")).dns
    }

    #[test]
    fn what_a_section_does_not_say_is_the_default() {
        let default = Dns::default();
        assert_eq!(dns("{}"), default);
        assert_eq!(dns("{budget: {}, addresses: {}, servers: []}"), default);
        assert_eq!(dns("{grace: 1h}"), Dns { grace_seconds: 3_600, ..default.clone() });
        let budget = Budget { label_bytes: 63, random_percent: 0, ..default.budget };
        assert_eq!(dns("{budget: {label_bytes: 63, random_percent: 0}}"), Dns { budget, ..default });
    }

    #[test]
    fn a_list_of_types_takes_the_place_of_the_default() {
        assert_eq!(dns("{types: [TXT, TYPE1, A]}").types, BTreeSet::from([RecordType::A, RecordType(16)]));
        assert_eq!(dns("{types: []}").types, BTreeSet::new());
    }

    #[test]
    fn one_name_has_no_more_addresses_by_default_than_all_together() {
        assert_eq!(dns("{addresses: {total: 100}}").addresses, AddressLimits { per_name: 100, total: 100 });
        assert_eq!(dns("{addresses: {per_name: 65536}}").addresses, AddressLimits { per_name: 65_536, total: 65_536 });
    }
}
