//! Questions to name servers that are on their way.

use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use tokio::task::JoinSet;

use crate::{
    dns::{
        question::{Asked, Outcome},
        upstream::Upstream,
    },
    policy::DomainName,
};

/// Questions at once about names that the policy spells out. A thousand names at 20 ms each are asked for within a
/// second, and no name server is flooded.
const SPELLED_AT_ONCE: usize = 64;

/// Questions at once about other names, which only workloads ask about: a thousand in a second, at 100 ms each. Apart from
/// the others, so that a workload that asks for the sake of asking does not hold up the names of its policy.
const OTHER_AT_ONCE: usize = 128;

/// Questions of workloads that wait for others. One more is answered with a failure at once, since nobody would wait for
/// the answer by the time that it is its turn.
const OTHER_WAITING_MAX: usize = 2048;

/// Asks name servers, a bounded number of questions at once. Whatever comes of a question is told.
#[derive(Debug)]
pub(super) struct Lookups {
    upstream: Upstream,
    /// The names that the policy spells out.
    spelled: BTreeSet<DomainName>,
    lanes: [Lane; 2],
    running: JoinSet<(Kind, Asked, Outcome)>,
    /// Given up before they were asked.
    given_up: VecDeque<(Asked, Outcome)>,
}

/// Questions that do not wait for those of the other lane.
#[derive(Debug, Default)]
struct Lane {
    waiting: VecDeque<Asked>,
    running: usize,
}

/// Which lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Spelled,
    Other,
}

impl Kind {
    fn at_once(self) -> usize {
        match self {
            Self::Spelled => SPELLED_AT_ONCE,
            Self::Other => OTHER_AT_ONCE,
        }
    }
}

impl Lookups {
    pub(super) fn new(upstream: Upstream, spelled: BTreeSet<DomainName>) -> Self {
        let (lanes, running) = (<[Lane; 2]>::default(), JoinSet::new());
        Self { upstream, spelled, lanes, running, given_up: VecDeque::new() }
    }

    pub(super) fn ask(&mut self, asked: Asked) {
        let kind = if self.spelled.contains(&asked.name) { Kind::Spelled } else { Kind::Other };
        let lane = self.lane(kind);
        if kind == Kind::Other && lane.waiting.len() >= OTHER_WAITING_MAX {
            let answer = Err("too many questions wait for name servers".to_owned());
            self.given_up.push_back((asked, Outcome { answer, took: Duration::ZERO }));
            return;
        }
        lane.waiting.push_back(asked);
        self.fill(kind);
    }

    /// Whether nothing is on its way.
    pub(super) fn is_idle(&self) -> bool {
        let is_waiting = self.lanes.iter().any(|lane| !lane.waiting.is_empty());
        !is_waiting && self.running.is_empty() && self.given_up.is_empty()
    }

    /// What came of the next question; never, while nothing is on its way. Nothing is lost when this is dropped half way.
    pub(super) async fn next(&mut self) -> (Asked, Outcome) {
        if let Some(given_up) = self.given_up.pop_front() {
            return given_up;
        }
        loop {
            match self.running.join_next().await {
                Some(Ok((kind, asked, outcome))) => {
                    self.lane(kind).running -= 1;
                    self.fill(kind);
                    return (asked, outcome);
                }
                Some(Err(error)) => tracing::warn!(%error, "a question to name servers was given up"),
                None => std::future::pending().await,
            }
        }
    }

    fn lane(&mut self, kind: Kind) -> &mut Lane {
        let [spelled, other] = &mut self.lanes;
        match kind {
            Kind::Spelled => spelled,
            Kind::Other => other,
        }
    }

    fn fill(&mut self, kind: Kind) {
        while self.lane(kind).running < kind.at_once()
            && let Some(asked) = self.lane(kind).waiting.pop_front()
        {
            self.lane(kind).running += 1;
            let upstream = self.upstream.clone();
            self.running.spawn(async move {
                let outcome = upstream.ask(&asked).await;
                (kind, asked, outcome)
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{NameServer, RecordType};

    #[tokio::test]
    async fn a_flood_of_other_names_does_not_hold_up_those_of_the_policy() {
        // Nobody answers there.
        let silent = tokio::net::UdpSocket::bind(("127.0.0.1", 0)).await.unwrap();
        let upstream = Upstream::new(&[NameServer::Plain(silent.local_addr().unwrap())]).unwrap();
        let spelled = DomainName::parse("api.example").unwrap();
        let mut lookups = Lookups::new(upstream, [spelled.clone()].into());
        for number in 0..OTHER_AT_ONCE + OTHER_WAITING_MAX + 5 {
            lookups.ask(asked(DomainName::parse(&format!("x{number}.example")).unwrap()));
        }
        lookups.ask(asked(spelled));
        assert_eq!((lookups.lane(Kind::Other).running, lookups.lane(Kind::Other).waiting.len()), (128, 2048));
        assert_eq!((lookups.lane(Kind::Spelled).running, lookups.lane(Kind::Spelled).waiting.len()), (1, 0));
        for _ in 0..5 {
            let (_, outcome) = lookups.next().await;
            assert_eq!(outcome.answer.unwrap_err(), "too many questions wait for name servers");
        }
        assert!(lookups.given_up.is_empty() && !lookups.is_idle());
    }

    fn asked(name: DomainName) -> Asked {
        Asked { name, kind: RecordType::A }
    }
}
