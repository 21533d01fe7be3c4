//! Asks a name server questions at a steady rate, whether or not it answers, and says how long each answer took.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    os::fd::AsFd as _,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    poll::{PollFd, PollFlags, ppoll},
    sys::{prctl::set_timerslack, time::TimeSpec},
};
use serde::{Deserialize, Serialize};

/// After this an answer counts as lost.
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// Questions that may be under way at once. At a thousand in a second a server that is this far behind is dead.
const UNDER_WAY_MAX: usize = 1000;
/// Bytes of the longest answer.
const ANSWER_BYTES_MAX: usize = 1232;

/// What to ask.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// Whom.
    pub(crate) server: SocketAddr,
    /// Questions in a second.
    pub(crate) rate: u32,
    /// How many, after each name has been asked once.
    pub(crate) questions: u32,
    /// Different names, asked in turn.
    pub(crate) names: u32,
}

/// What came back.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Measured {
    /// Microseconds from before the socket was made to after the answer was read, one for each answer, sorted.
    pub(crate) answers_us: Vec<f64>,
    /// Microseconds by which each question left later than planned, sorted.
    pub(crate) delays_us: Vec<f64>,
    /// Questions without an answer, or with one that has no address.
    pub(crate) lost: u32,
}

struct UnderWay {
    socket: UdpSocket,
    asked: Instant,
}

/// Asks each name until it is answered, so that it is in every cache, and then at the given rate.
pub(crate) fn run(load: &Load) -> Result<Measured> {
    // A timer may otherwise be 50 µs late.
    set_timerslack(1).context("set the slack of timers")?;
    for name in 0..load.names {
        warm(load, name).with_context(|| format!("ask {} for the first time", load.server))?;
    }
    measure(load).with_context(|| format!("ask {}", load.server))
}

fn warm(load: &Load, name: u32) -> Result<()> {
    let under_way = ask(load, name)?;
    under_way.socket.set_nonblocking(false)?;
    under_way.socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut answer = [0; ANSWER_BYTES_MAX];
    let length = under_way.socket.recv(&mut answer).context("wait for an answer")?;
    ensure!(is_address(answer.get(..length)), "the answer has no address: {:?}", answer.get(..length));
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "time is what is measured")]
fn measure(load: &Load) -> Result<Measured> {
    let interval = Duration::from_secs(1) / load.rate;
    let (mut measured, mut under_way) = (Measured::default(), Vec::<UnderWay>::new());
    let start = Instant::now();
    let mut sent = 0;
    while sent < load.questions || !under_way.is_empty() {
        let next = start + interval * sent;
        let now = Instant::now();
        if sent < load.questions && now >= next {
            measured.delays_us.push(microseconds(now - next));
            ensure!(under_way.len() < UNDER_WAY_MAX, "no answers from {}", load.server);
            under_way.push(ask(load, sent % load.names)?);
            sent += 1;
            continue;
        }
        let wait = if sent < load.questions { next - now } else { ANSWER_MAX };
        wait_for_any(&under_way, wait)?;
        let mut open = Vec::new();
        for question in under_way {
            let mut answer = [0; ANSWER_BYTES_MAX];
            match question.socket.recv(&mut answer) {
                Ok(length) if is_address(answer.get(..length)) => {
                    measured.answers_us.push(microseconds(question.asked.elapsed()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && question.asked.elapsed() < ANSWER_MAX => {
                    open.push(question);
                }
                Ok(_) | Err(_) => measured.lost += 1,
            }
        }
        under_way = open;
    }
    measured.answers_us.sort_by(f64::total_cmp);
    measured.delays_us.sort_by(f64::total_cmp);
    Ok(measured)
}

/// On a socket of its own, as the resolvers of C libraries ask.
#[expect(clippy::disallowed_methods, reason = "time is what is measured")]
fn ask(load: &Load, name: u32) -> Result<UnderWay> {
    let question = question(name)?;
    let asked = Instant::now();
    let socket =
        UdpSocket::bind(if load.server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }).context("make a socket")?;
    socket.connect(load.server).context("connect a socket")?;
    socket.set_nonblocking(true).context("make a socket non-blocking")?;
    socket.send(&question).context("send a question")?;
    Ok(UnderWay { socket, asked })
}

fn wait_for_any(under_way: &[UnderWay], wait: Duration) -> Result<()> {
    let mut sockets: Vec<PollFd<'_>> =
        under_way.iter().map(|question| PollFd::new(question.socket.as_fd(), PollFlags::POLLIN)).collect();
    ppoll(&mut sockets, Some(TimeSpec::from_duration(wait)), None).context("wait for an answer")?;
    Ok(())
}

/// The name with this number.
pub(crate) fn name(number: u32) -> String {
    format!("n{number}.{DOMAIN}")
}

/// Where the names are.
pub(crate) const DOMAIN: &str = "bench.example.com";

/// A question for an IPv4 address, with EDNS.
fn question(number: u32) -> Result<Vec<u8>> {
    let mut message = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
    for label in name(number).split('.') {
        message.push(u8::try_from(label.len()).context("a label")?);
        message.extend_from_slice(label.as_bytes());
    }
    message.extend_from_slice(&[0, 0, 1, 0, 1]);
    message.extend_from_slice(&[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
    Ok(message)
}

/// Whether all is well and there is an answer.
fn is_address(message: Option<&[u8]>) -> bool {
    let Some([_, _, _, flags, _, _, high, low, ..]) = message else { return false };
    // The lower half of the flags is the response code.
    flags.is_multiple_of(16) && (*high, *low) != (0, 0)
}

fn microseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

#[cfg(test)]
mod tests {
    use super::*;
    use egress_tests::{
        names::Names,
        network::{DNS_V4, public_v4},
        servers::misbehaving::Reply,
    };

    #[test]
    fn each_question_is_timed_and_what_has_no_answer_is_lost() {
        let names = Names::new().unwrap();
        let after = Duration::from_millis(5);
        names.server.reply_below(DOMAIN, [Reply::addresses(60, &[public_v4(1)]).after(after)]).unwrap();
        let load = Load { server: SocketAddr::new(DNS_V4, 53), rate: 500, questions: 100, names: 10 };
        let run = || run(&load).map_err(io::Error::other);
        let measured = names.network.client.network.enter(run).unwrap();
        assert_eq!((measured.answers_us.len(), measured.lost), (100, 0));
        assert!(measured.answers_us.iter().all(|answer| *answer >= 5000.0), "{measured:?}");
        assert_eq!(names.server.seen().len(), 110);

        names.server.reply(&name(3), []).unwrap();
        let measure = || measure(&load).map_err(io::Error::other);
        let measured = names.network.client.network.enter(measure).unwrap();
        assert_eq!((measured.answers_us.len(), measured.lost), (90, 10));
    }
}
