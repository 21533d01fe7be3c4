//! Questions over connections, each after its length in two bytes.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc::{Receiver, Sender},
    time::{Instant, sleep_until, timeout},
};

/// Time after which a connection is closed on which no whole question came and no answer went, as resolvers do
/// (RFC 7766, section 6.2.3). What comes in parts has this time for all of them.
pub(super) const IDLE_TIME: Duration = Duration::from_secs(10);

/// Bytes of the longest question. Connections that send more speak something else.
const QUESTION_BYTES_MAX: usize = 4096;

/// Questions of one connection that are not answered yet. No more is read until one is.
pub(super) const PIPELINED_MAX: usize = 64;

/// Pause after a connection could not be accepted, which is for want of memory or of descriptors.
const ERROR_PAUSE: Duration = Duration::from_millis(100);

/// A connection that came.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) namespace: u64,
    pub(super) local_port: u16,
    pub(super) client: SocketAddr,
    pub(super) stream: TcpStream,
}

/// A question that came over a connection.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) connection: u64,
    pub(super) message: Bytes,
}

/// A connection on which answers are given.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) id: u64,
    pub(super) stream: TcpStream,
    /// Time after which it is closed, [`IDLE_TIME`] outside of tests.
    pub(super) idle_time: Duration,
}

/// Hands on the connections to a socket.
pub(super) async fn accept(namespace: u64, socket: Arc<TcpListener>, accepted: Sender<Accepted>) {
    let Ok(local_port) = socket.local_addr().map(|address| address.port()) else { return };
    loop {
        match socket.accept().await {
            Ok((stream, client)) => {
                if accepted.send(Accepted { namespace, local_port, client, stream }).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::debug!(%error, "accept a connection for DNS questions");
                tokio::time::sleep(ERROR_PAUSE).await;
            }
        }
    }
}

/// Answers on one connection. It ends when the client closes it, is silent for too long, sends what is no question, or
/// when nobody holds the other end of `answers` any more.
pub(super) async fn serve(mut line: Line, questions: Sender<Question>, answers: Receiver<Bytes>) {
    match line.exchange(&questions, answers).await {
        Ok(ClosedBy::Client) => {}
        Ok(ClosedBy::Us) => reset(&line.stream),
        Err(error) => {
            tracing::debug!(%error, "a connection for DNS questions ended");
            reset(&line.stream);
        }
    }
}

/// Makes the end of a connection known at once. One that is closed in good order stays for a minute without its socket,
/// and the kernel half cannot tell any more that the client's last packets go to the proxy.
pub(super) fn reset(stream: &TcpStream) {
    if let Err(error) = stream.set_zero_linger() {
        tracing::debug!(%error, "reset a connection for DNS questions");
    }
}

/// Who wanted no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ClosedBy {
    Client,
    Us,
}

impl Line {
    async fn exchange(&mut self, questions: &Sender<Question>, mut answers: Receiver<Bytes>) -> io::Result<ClosedBy> {
        let Self { id, stream, idle_time } = self;
        stream.set_nodelay(true)?;
        let (mut reader, mut writer) = stream.split();
        let mut received = BytesMut::new();
        let (mut open, mut is_half_closed) = (0, false);
        let mut deadline = Instant::now() + *idle_time;
        loop {
            while open < PIPELINED_MAX
                && let Some(message) = cut(&mut received)?
            {
                open += 1;
                deadline = Instant::now() + *idle_time;
                questions.send(Question { connection: *id, message }).await.map_err(io::Error::other)?;
            }
            if is_half_closed && open == 0 {
                return Ok(ClosedBy::Client);
            }
            tokio::select! {
                read = reader.read_buf(&mut received), if open < PIPELINED_MAX && !is_half_closed => {
                    // A client may close its half of the connection and still wait for answers.
                    is_half_closed = read? == 0;
                }
                answer = answers.recv() => {
                    let Some(answer) = answer else { return Ok(ClosedBy::Us) };
                    timeout(*idle_time, writer.write_all(&answer)).await??;
                    open = open.saturating_sub(1);
                    deadline = Instant::now() + *idle_time;
                }
                () = sleep_until(deadline) => return Ok(ClosedBy::Us),
            }
        }
    }
}

/// Cuts the first whole message off what was received.
fn cut(received: &mut BytesMut) -> io::Result<Option<Bytes>> {
    let Some(head) = received.first_chunk::<2>() else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes(*head));
    if length > QUESTION_BYTES_MAX {
        return Err(io::Error::other(format!("a question of {length} bytes, more than {QUESTION_BYTES_MAX}")));
    }
    if received.len() < head.len() + length {
        return Ok(None);
    }
    received.advance(head.len());
    Ok(Some(received.split_to(length).freeze()))
}

/// A message as it goes over a connection, after its length; none that is longer than its length can say.
pub(super) fn framed(message: &[u8]) -> Option<Bytes> {
    let mut framed = BytesMut::with_capacity(size_of::<u16>() + message.len());
    framed.put_u16(u16::try_from(message.len()).ok()?);
    framed.put_slice(message);
    Some(framed.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_cut_where_their_length_says() {
        let mut received = BytesMut::from(&b"\x00\x03abc\x00\x00\x00\x02d"[..]);
        assert_eq!(cut(&mut received).unwrap().as_deref(), Some(&b"abc"[..]));
        assert_eq!(cut(&mut received).unwrap().as_deref(), Some(&b""[..]));
        assert_eq!(cut(&mut received).unwrap(), None);
        received.put_slice(b"e\x10");
        assert_eq!(cut(&mut received).unwrap().as_deref(), Some(&b"de"[..]));
        assert_eq!(cut(&mut received).unwrap(), None);
        received.put_slice(b"\x01");
        assert!(cut(&mut received).is_err(), "4097 bytes");
    }

    #[test]
    fn what_no_length_can_say_is_not_sent() {
        assert_eq!(framed(b"abc").as_deref(), Some(&b"\x00\x03abc"[..]));
        assert!(framed(&vec![0; 65_535]).is_some());
        assert_eq!(framed(&vec![0; 65_536]), None);
    }
}
