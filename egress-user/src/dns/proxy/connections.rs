//! Which connections there are, and which one goes when there are too many.

use std::collections::BTreeMap;

use bytes::Bytes;
use tokio::{sync::mpsc::Sender, time::Instant};

use crate::dns::question::Asker;

/// Connections of one workload. A process that asks over TCP keeps one or two for each of its threads.
pub(super) const PER_WORKLOAD_MAX: usize = 128;

/// Connections in all, each with a descriptor and some kilobytes. Like [`PER_WORKLOAD_MAX`]: one more closes the one that
/// has been idle for longest, and when none is idle it is closed itself.
pub(super) const CONNECTIONS_MAX: usize = 512;

/// The connections of which somebody governed is the other end.
#[derive(Debug, Default)]
pub(super) struct Connections {
    open: BTreeMap<u64, Connection>,
    next: u64,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) asker: Asker,
    pub(super) namespace: u64,
    /// Where answers are written. Without it, the connection closes.
    pub(super) answers: Sender<Bytes>,
    /// Questions that are not answered yet.
    pub(super) asked: usize,
    /// When something last came or went.
    pub(super) last: Instant,
}

impl Connections {
    /// Takes a connection in, if there is room or room can be made.
    pub(super) fn open(&mut self, connection: Connection) -> Option<u64> {
        let workload = connection.asker.workload;
        let of_workload = self.open.values().filter(|open| open.asker.workload == workload).count();
        if of_workload >= PER_WORKLOAD_MAX {
            self.close_idle(|open| open.asker.workload == workload)?;
        } else if self.open.len() >= CONNECTIONS_MAX {
            self.close_idle(|_| true)?;
        }
        let id = self.next;
        self.next += 1;
        self.open.insert(id, connection);
        Some(id)
    }

    pub(super) fn get_mut(&mut self, id: u64) -> Option<&mut Connection> {
        self.open.get_mut(&id)
    }

    pub(super) fn close(&mut self, id: u64) {
        self.open.remove(&id);
    }

    pub(super) fn close_all_of(&mut self, namespace: u64) {
        self.open.retain(|_, open| open.namespace != namespace);
    }

    /// Closes the connection among these that has been idle for longest.
    fn close_idle(&mut self, which: impl Fn(&Connection) -> bool) -> Option<()> {
        let idle = self.open.iter().filter(|(_, open)| open.asked == 0 && which(open));
        let id = idle.min_by_key(|(_, open)| open.last).map(|(id, _)| *id)?;
        self.open.remove(&id).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn one_connection_too_many_closes_the_one_that_was_idle_for_longest() {
        let mut connections = Connections::default();
        let ids: Vec<u64> = (0..PER_WORKLOAD_MAX).filter_map(|_| connections.open(connection(1, 10))).collect();
        assert_eq!(ids.len(), PER_WORKLOAD_MAX);
        connections.get_mut(ids[3]).unwrap().last = earlier(60);
        connections.get_mut(ids[5]).unwrap().last = earlier(90);
        connections.get_mut(ids[5]).unwrap().asked = 1;
        assert!(connections.open(connection(1, 0)).is_some());
        assert!(connections.get_mut(ids[3]).is_none());
        assert!(connections.get_mut(ids[5]).is_some(), "it waits for an answer");
    }

    #[test]
    fn no_connection_with_a_question_is_closed_for_another() {
        let mut connections = Connections::default();
        for _ in 0..PER_WORKLOAD_MAX {
            let id = connections.open(connection(1, 10)).unwrap();
            connections.get_mut(id).unwrap().asked = 1;
        }
        assert_eq!(connections.open(connection(1, 0)), None);
        assert!(connections.open(connection(2, 0)).is_some(), "another workload has its own");
    }

    #[test]
    fn all_workloads_together_have_a_limit() {
        let mut connections = Connections::default();
        for workload in 0..10 {
            for _ in 0..PER_WORKLOAD_MAX {
                connections.open(connection(workload, 10)).unwrap();
            }
        }
        assert_eq!(connections.open.len(), CONNECTIONS_MAX);
    }

    fn connection(workload: u32, idle_seconds: u64) -> Connection {
        let (answers, _) = tokio::sync::mpsc::channel(1);
        let server = "192.0.2.53:53".parse().unwrap();
        let asker = Asker { workload, pid: 1, command: "dig".to_owned(), server };
        Connection { asker, namespace: 1, answers, asked: 0, last: earlier(idle_seconds) }
    }

    fn earlier(seconds: u64) -> Instant {
        Instant::now() + Duration::from_secs(1000) - Duration::from_secs(seconds)
    }
}
