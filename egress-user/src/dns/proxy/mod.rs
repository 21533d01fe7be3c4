//! Takes the questions that the kernel sends here from governed workloads, and gives back their answers.
//!
//! It decides nothing. Who asks is told by the kernel, through the function that [`Proxy::next`] is given; what nobody
//! governed has sent gets no answer.

use std::{collections::BTreeMap, io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    net::UdpSocket,
    sync::mpsc::{self, Receiver, Sender},
    task::{JoinError, JoinSet},
    time::Instant,
};

use self::{
    connections::{Connection, Connections},
    tcp::{Accepted, IDLE_TIME, Line, PIPELINED_MAX},
    udp::Datagram,
};
pub use self::{listener::Listener, namespace::Sockets};
use super::question::{Asker, Ticket, Transport};

mod connections;
mod listener;
mod namespace;
mod tcp;
mod udp;

/// Questions and connections that were read and wait for [`Proxy::next`]. Small, because the kernel has buffers of its
/// own, and what waits there costs nobody's memory but the sender's.
const QUEUE: usize = 64;

/// Questions without an answer yet, in all. A thousand a second, each for the longest time that name servers get; one
/// more is dropped, and the client asks again.
const OPEN_MAX: usize = 8192;

/// Time after which a question without an answer is forgotten. Nobody waits for longer than that.
const TICKET_TIME: Duration = Duration::from_secs(10);

/// A question from a governed workload.
#[derive(Debug)]
pub struct Arrival {
    /// What its answer is given back with.
    pub ticket: Ticket,
    /// Who asks.
    pub asker: Asker,
    /// How it came.
    pub transport: Transport,
    /// The message.
    pub message: Bytes,
}

/// Where a message or a connection came from, which is what the kernel has noted down about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// The kernel's number of the network namespace.
    pub namespace: u64,
    /// How it came.
    pub transport: Transport,
    /// The client's own address.
    pub client: SocketAddr,
    /// The port of ours that it came to.
    pub local_port: u16,
}

/// What got no answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unanswered {
    /// Messages and connections that nobody governed had sent.
    pub unattributed: u64,
    /// Questions and connections for which there was no room.
    pub crowded: u64,
    /// Questions that were forgotten, or whose client was gone.
    pub late: u64,
}

/// Listens in network namespaces, and knows where each answer goes.
#[derive(Debug)]
pub struct Proxy {
    listeners: BTreeMap<u64, Listener>,
    datagrams: Channel<Datagram>,
    accepted: Channel<Accepted>,
    questions: Channel<tcp::Question>,
    connections: Connections,
    open: BTreeMap<Ticket, Open>,
    next_ticket: u64,
    unanswered: Unanswered,
    /// Each gives the connection that has ended, if it was one.
    tasks: JoinSet<Option<u64>>,
}

#[derive(Debug)]
struct Channel<T> {
    sender: Sender<T>,
    receiver: Receiver<T>,
}

/// A question without an answer yet.
#[derive(Debug)]
struct Open {
    back: Back,
    until: Instant,
}

/// The way back.
#[derive(Debug)]
enum Back {
    Udp(Arc<UdpSocket>, SocketAddr),
    Tcp(u64),
}

/// What happened on one of the sockets.
#[derive(Debug)]
enum Happening {
    Datagram(Datagram),
    Accepted(Accepted),
    Question(tcp::Question),
    Ended(Result<Option<u64>, JoinError>),
}

impl Default for Proxy {
    fn default() -> Self {
        Self {
            listeners: BTreeMap::new(),
            datagrams: Channel::new(),
            accepted: Channel::new(),
            questions: Channel::new(),
            connections: Connections::default(),
            open: BTreeMap::new(),
            next_ticket: 0,
            unanswered: Unanswered::default(),
            tasks: JoinSet::new(),
        }
    }
}

impl<T> Channel<T> {
    fn new() -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE);
        Self { sender, receiver }
    }
}

impl Proxy {
    /// Listens on these sockets, instead of those that it has in the same network namespace, which the kernel knows by
    /// this number.
    pub fn listen(&mut self, namespace: u64, sockets: Sockets) -> io::Result<&Listener> {
        let (datagrams, accepted) = (&self.datagrams.sender, &self.accepted.sender);
        let listener = Listener::start(namespace, sockets, &mut self.tasks, datagrams, accepted)?;
        self.leave(namespace);
        Ok(self.listeners.entry(namespace).or_insert(listener))
    }

    /// Listens no more in this network namespace.
    pub fn leave(&mut self, namespace: u64) {
        self.listeners.remove(&namespace);
        self.connections.close_all_of(namespace);
    }

    /// The next question of somebody governed; never, while none comes. Nothing is lost when this is dropped half way.
    pub async fn next(&mut self, mut who: impl FnMut(&Source) -> Option<Asker>) -> Arrival {
        loop {
            let arrival = match self.happening().await {
                Happening::Datagram(datagram) => self.take_datagram(datagram, &mut who),
                Happening::Question(question) => self.take_question(question),
                Happening::Accepted(accepted) => {
                    self.take_connection(accepted, &mut who);
                    None
                }
                Happening::Ended(ended) => {
                    match ended {
                        Ok(Some(connection)) => self.connections.close(connection),
                        Ok(None) => {}
                        Err(error) if error.is_cancelled() => {}
                        Err(error) => tracing::warn!(%error, "a listener for DNS questions failed"),
                    }
                    None
                }
            };
            if let Some(arrival) = arrival {
                return arrival;
            }
        }
    }

    /// Gives an answer back; without one a connection is closed, and a datagram stays unanswered.
    pub fn reply(&mut self, ticket: Ticket, message: Option<&[u8]>) {
        let Some(Open { back, until: _ }) = self.open.remove(&ticket) else {
            self.unanswered.late += 1;
            return;
        };
        let sent = match (back, message) {
            // A client that does not read its answers has a full socket, and gets no more of them.
            (Back::Udp(socket, client), Some(message)) => socket.try_send_to(message, client).is_ok(),
            (Back::Udp(..), None) => true,
            (Back::Tcp(connection), message) => self.answer_on(connection, message),
        };
        self.unanswered.late += u64::from(!sent);
    }

    /// Forgets the questions for whose answers nobody waits any more.
    pub fn forget_late(&mut self) {
        let now = Instant::now();
        // Tickets are given out in the order of time.
        while let Some(first) = self.open.first_entry()
            && first.get().until <= now
        {
            let (_, Open { back, until: _ }) = first.remove_entry();
            self.unanswered.late += 1;
            if let Back::Tcp(connection) = back {
                self.connections.close(connection);
            }
        }
    }

    /// What got no answer so far.
    pub fn unanswered(&self) -> Unanswered {
        self.unanswered
    }

    async fn happening(&mut self) -> Happening {
        // The senders are ours, so that no channel ever ends; each gets its turn.
        tokio::select! {
            Some(datagram) = self.datagrams.receiver.recv() => Happening::Datagram(datagram),
            Some(question) = self.questions.receiver.recv() => Happening::Question(question),
            Some(accepted) = self.accepted.receiver.recv() => Happening::Accepted(accepted),
            Some(ended) = self.tasks.join_next() => Happening::Ended(ended),
            else => std::future::pending().await,
        }
    }

    fn take_datagram(&mut self, datagram: Datagram, who: &mut impl FnMut(&Source) -> Option<Asker>) -> Option<Arrival> {
        let Datagram { namespace, socket, client, message } = datagram;
        let local_port = socket.local_addr().ok()?.port();
        let Some(asker) = who(&Source { namespace, transport: Transport::Udp, client, local_port }) else {
            self.unanswered.unattributed += 1;
            return None;
        };
        let ticket = self.ticket(Back::Udp(socket, client))?;
        Some(Arrival { ticket, asker, transport: Transport::Udp, message })
    }

    fn take_connection(&mut self, accepted: Accepted, who: &mut impl FnMut(&Source) -> Option<Asker>) {
        let Accepted { namespace, local_port, client, stream } = accepted;
        // Asked once: as long as the connection is there, its address is nobody else's.
        let Some(asker) = who(&Source { namespace, transport: Transport::Tcp, client, local_port }) else {
            self.unanswered.unattributed += 1;
            tcp::reset(&stream);
            return;
        };
        let (answers, receiver) = mpsc::channel(PIPELINED_MAX);
        let connection = Connection { asker, namespace, answers, asked: 0, last: Instant::now() };
        let Some(id) = self.connections.open(connection) else {
            self.unanswered.crowded += 1;
            tcp::reset(&stream);
            return;
        };
        let serving = tcp::serve(Line { id, stream, idle_time: IDLE_TIME }, self.questions.sender.clone(), receiver);
        self.tasks.spawn(async move {
            serving.await;
            Some(id)
        });
    }

    fn take_question(&mut self, question: tcp::Question) -> Option<Arrival> {
        let tcp::Question { connection: id, message } = question;
        let connection = self.connections.get_mut(id)?;
        connection.asked += 1;
        connection.last = Instant::now();
        let asker = connection.asker.clone();
        let Some(ticket) = self.ticket(Back::Tcp(id)) else {
            self.connections.close(id);
            return None;
        };
        Some(Arrival { ticket, asker, transport: Transport::Tcp, message })
    }

    fn ticket(&mut self, back: Back) -> Option<Ticket> {
        if self.open.len() >= OPEN_MAX {
            self.unanswered.crowded += 1;
            return None;
        }
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.open.insert(ticket, Open { back, until: Instant::now() + TICKET_TIME });
        Some(ticket)
    }

    fn answer_on(&mut self, id: u64, message: Option<&[u8]>) -> bool {
        let Some(connection) = self.connections.get_mut(id) else { return false };
        connection.asked = connection.asked.saturating_sub(1);
        connection.last = Instant::now();
        let sent = message.and_then(tcp::framed).is_some_and(|framed| connection.answers.try_send(framed).is_ok());
        if !sent {
            self.connections.close(id);
        }
        sent || message.is_none()
    }
}

#[cfg(test)]
mod tests;
