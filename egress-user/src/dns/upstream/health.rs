//! Which name server is asked first: in the order given, as in libc, but a dead one does not slow every question down.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::Duration,
};

use tokio::time::Instant;

/// Questions in a row without an answer after which a name server counts as dead. One can be lost on any network.
const DEAD_AFTER: u32 = 2;

/// Time after which a dead name server is asked again, by one question that then waits for the next one.
const AGAIN_AFTER: Duration = Duration::from_secs(10);

/// How a name server has done lately.
#[derive(Debug)]
pub(super) struct Health {
    begun: Instant,
    failures: AtomicU32,
    /// Milliseconds since `begun` at which a dead server is asked first again.
    again_at: AtomicU64,
}

impl Health {
    pub(super) fn new(now: Instant) -> Self {
        Self { begun: now, failures: AtomicU32::new(0), again_at: AtomicU64::new(0) }
    }

    /// Notes that a question was answered, or got lost.
    pub(super) fn note(&self, is_lost: bool, now: Instant) {
        if is_lost {
            self.failures.fetch_add(1, Ordering::Relaxed);
            self.again_at.store(self.milliseconds(now + AGAIN_AFTER), Ordering::Relaxed);
        } else {
            self.failures.store(0, Ordering::Relaxed);
        }
    }

    /// Whether it lives, or is to be tried again by the one who asks.
    fn is_first_choice(&self, now: Instant) -> bool {
        if self.failures.load(Ordering::Relaxed) < DEAD_AFTER {
            return true;
        }
        let now = self.milliseconds(now);
        let again_at = self.again_at.load(Ordering::Relaxed);
        let next = now.saturating_add(u64::try_from(AGAIN_AFTER.as_millis()).unwrap_or(u64::MAX));
        again_at <= now && self.again_at.compare_exchange(again_at, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    fn milliseconds(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.begun).as_millis()).unwrap_or(u64::MAX)
    }
}

/// Places of name servers in the order in which they are asked: those that live as given, then the dead.
pub(super) fn order<'a>(servers: impl Iterator<Item = &'a Health>, now: Instant) -> Vec<usize> {
    let (mut order, mut dead) = (Vec::new(), Vec::new());
    for (place, health) in servers.enumerate() {
        if health.is_first_choice(now) { order.push(place) } else { dead.push(place) }
    }
    order.append(&mut dead);
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_server_is_asked_last_and_tried_once_in_a_while() {
        let now = Instant::now();
        let servers = [Health::new(now), Health::new(now)];
        let places = |now| order(servers.iter(), now);
        assert_eq!(places(now), [0, 1]);
        servers[0].note(true, now);
        assert_eq!(places(now), [0, 1], "one answer may be lost");
        servers[0].note(true, now);
        assert_eq!(places(now), [1, 0]);
        let later = now + AGAIN_AFTER;
        assert_eq!(places(later), [0, 1], "it is tried again");
        assert_eq!(places(later), [1, 0], "by one question only");
        servers[0].note(false, later);
        assert_eq!(places(later), [0, 1]);
    }

    #[test]
    fn when_all_are_dead_all_are_asked() {
        let now = Instant::now();
        let servers = [Health::new(now), Health::new(now)];
        for server in servers.iter().chain(&servers) {
            server.note(true, now);
        }
        assert_eq!(order(servers.iter(), now), [0, 1]);
    }
}
