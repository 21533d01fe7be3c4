//! What an answer leaves behind: addresses, and what is known of names that are resolved in advance.

use std::{collections::BTreeSet, net::IpAddr};

use super::{Exchange, Moment, Turn};
use crate::{
    dns::{
        cache::{Learned, Limit, News, Resolved},
        question::Asked,
        release::Release,
    },
    policy::{DomainName, Mode, Policy},
};

impl Exchange {
    /// Takes the addresses of an answer, and those for which there is no room out of it.
    pub(super) fn learn(&mut self, policy: &Policy, asked: &Asked, release: &mut Release, now: Moment) -> Option<Turn> {
        let mut out = BTreeSet::new();
        let mut reached: Option<Limit> = None;
        for (address, ttl) in &release.addresses {
            match self.addresses.learn(&asked.name, *address, *ttl, now.second) {
                Learned::Change => {
                    self.changed.insert(*address);
                }
                Learned::Nothing => {}
                Learned::Full(limit) => {
                    out.insert(*address);
                    reached = Some(limit);
                    self.not_added += 1;
                }
            }
        }
        let limit = reached?;
        release.addresses.retain(|(address, _)| !out.contains(address));
        if policy.mode == Mode::Enforce {
            let is_out = |address: Option<IpAddr>| address.is_some_and(|address| out.contains(&address.to_canonical()));
            release.records.retain(|record| !is_out(record.data.ip_addr()));
        }
        let (name, limits) = (&asked.name, policy.dns.addresses);
        self.addresses.is_news(name, limit).then(|| {
            Turn::Tell(match limit {
                Limit::Name => format!(
                    "`{name}` has more addresses than `dns.addresses.per_name` of the policy, {}; what is above it is \
                     taken out of answers",
                    limits.per_name
                ),
                Limit::Total => format!(
                    "names have more addresses than `dns.addresses.total` of the policy, {}; what is above it is taken \
                     out of answers",
                    limits.total
                ),
            })
        })
    }
}

/// What an answer means for the names that are resolved in advance.
pub(super) fn resolved(release: &Release) -> Resolved {
    match (release.addresses.is_empty(), release.withheld.is_empty(), release.exists) {
        (false, _, _) => Resolved::Addresses(release.ttl),
        (true, false, _) => Resolved::Nothing(release.ttl, "all of its addresses are special-purpose ones"),
        (true, true, true) => Resolved::Nothing(release.ttl, "it has no addresses"),
        (true, true, false) => Resolved::Nothing(release.ttl, "no such name"),
    }
}

/// What a person should hear of it.
pub(super) fn tell(name: &DomainName, news: Option<News>) -> Option<Turn> {
    news.map(|news| {
        Turn::Tell(match news {
            News::Fail(reason) => format!("`{name}` does not resolve: {reason}; it will be asked for again"),
            News::Recover => format!("`{name}` resolves now"),
        })
    })
}
