//! `probe ACTION…`: uses the network as its arguments say and prints one JSON line for each. Each argument is one action
//! with its words separated by spaces:
//!
//! - `tcp ADDRESS [MARK]`: connect, send the mark, wait for its echo.
//! - `udp ADDRESS MARK [SIZE]`: `sendto` on an unconnected socket, wait for the echo.
//! - `udp-connected ADDRESS MARK`: `connect`, `send`, wait for the echo.
//! - `udp-elsewhere ADDRESS OTHER MARK`: `connect` to the first, `sendto` the other.
//! - `fast-open ADDRESS MARK`: the mark in the SYN.
//! - `ping ADDRESS MARK`: an ICMP echo from an unprivileged socket.
//! - `socket DOMAIN TYPE PROTOCOL`: only make it; the words are numbers.
//! - `bind-tcp ADDRESS`, `bind-udp ADDRESS`, `listen ADDRESS`: only that.
//! - `listen-unbound SECONDS`: listen without `bind`, accept one connection, echo one message.
//! - `wait-udp ADDRESS SECONDS`: say so, wait for one datagram.
//! - `own-loopback ADDRESS`: listen, connect to it, exchange a mark.
//! - `own-datagrams ADDRESS`: a question and its answer between an own server and a connected client.
//! - `take-over ADDRESS MARK`: bind beside a foreign server, send to oneself, close, send the mark to the same address.
//! - `accept ADDRESS SECONDS`: listen, say so, accept one connection, echo one message, report.
//! - `resolve NAME`: ask the C library.
//! - `repeat SECONDS NAME:PORT`: resolve, connect and exchange a mark, over and over.
//! - `keep-tcp SECONDS ADDRESS`, `keep-udp SECONDS ADDRESS`: one connected socket, an exchange every few milliseconds, to
//!   the end or to the first failure.
//! - `flood SECONDS MARK ADDRESS…`: send datagrams and open connections to all of them, whatever happens.
//! - `inherited DESCRIPTOR MARK`: send on a socket that another process opened.
//! - `routing-header VIA ADDRESS MARK`: `sendto` the address with an IPv6 routing header that leads elsewhere first.
//! - `ask ADDRESS MARK`, `ask-connected ADDRESS MARK`, `ask-both ADDRESS MARK`, `ask-tcp ADDRESS MARK`: one exchange, and
//!   whom it seems to be with.
//! - `ask-two ADDRESS ADDRESS`: one socket, two servers.
//! - `ask-on-device DEVICE ADDRESS MARK`: with `SO_BINDTODEVICE`.
//! - `off-loopback DEVICE ADDRESS MARK`: a datagram with `SO_BINDTODEVICE` to an own server on loopback, and one of a
//!   connected socket to a server elsewhere.
//! - `off-loopback-tcp DEVICE ADDRESS MARK`: a connection to an own server, which is bound to the device then.
//! - `ask-shared-port SECONDS LOCAL ADDRESS`: from a port that others may share; keeps it for some time.
//! - `unix PATH`: connect to a socket in the file system.
//! - `unix-listen SECONDS PATH`: listen there, say so, accept one connection.
//! - `write PATH`: open a file for writing.

mod actions;
mod listen;
mod questions;
mod rounds;
mod routing;

use std::{
    io::{self, Write as _},
    process::ExitCode,
    time::Instant,
};

use anyhow::{Context as _, Result, bail};
use egress_tests::probe::Report;
use nix::errno::Errno;

use self::questions::Form;

fn main() -> ExitCode {
    for action in std::env::args().skip(1) {
        let words: Vec<&str> = action.split(' ').collect();
        let mut calls = Calls::new(&action);
        if let Err(error) = act(&mut calls, &words) {
            drop(writeln!(io::stderr(), "probe: `{action}`: {error:#}"));
            return ExitCode::FAILURE;
        }
        if calls.print().is_err() {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn act(calls: &mut Calls, words: &[&str]) -> Result<()> {
    match words {
        ["tcp", address] => actions::tcp(calls, read(address)?, ""),
        ["tcp", address, mark] => actions::tcp(calls, read(address)?, mark),
        ["udp", address, mark] => actions::udp(calls, read(address)?, mark, mark.len()),
        ["udp", address, mark, size] => actions::udp(calls, read(address)?, mark, read(size)?),
        ["udp-connected", address, mark] => actions::udp_connected(calls, read(address)?, mark),
        ["udp-elsewhere", address, other, mark] => actions::udp_elsewhere(calls, read(address)?, read(other)?, mark),
        ["fast-open", address, mark] => actions::fast_open(calls, read(address)?, mark),
        ["ping", address, mark] => actions::ping(calls, read(address)?, mark),
        ["socket", domain, kind, protocol] => actions::socket(calls, read(domain)?, read(kind)?, read(protocol)?),
        ["bind-tcp", address] => listen::bind_tcp(calls, read(address)?),
        ["bind-udp", address] => listen::bind_udp(calls, read(address)?),
        ["listen", address] => listen::listen(calls, read(address)?),
        ["listen-unbound", seconds] => listen::listen_unbound(calls, read(seconds)?),
        ["wait-udp", address, seconds] => listen::wait_udp(calls, read(address)?, read(seconds)?),
        ["own-loopback", address] => listen::own_loopback(calls, read(address)?),
        ["own-datagrams", address] => listen::own_datagrams(calls, read(address)?),
        ["take-over", address, mark] => listen::take_over(calls, read(address)?, mark),
        ["accept", address, seconds] => listen::accept(calls, read(address)?, read(seconds)?),
        ["resolve", name] => rounds::resolve(calls, name),
        ["repeat", seconds, destination] => {
            rounds::repeat(calls, read(seconds)?, destination);
            Ok(())
        }
        ["keep-tcp", seconds, address] => rounds::keep_tcp(calls, read(seconds)?, read(address)?),
        ["keep-udp", seconds, address] => rounds::keep_udp(calls, read(seconds)?, read(address)?),
        ["flood", seconds, mark, addresses @ ..] => {
            let addresses: Result<Vec<_>> = addresses.iter().map(|address| read(address)).collect();
            rounds::flood(calls, read(seconds)?, mark, &addresses?);
            Ok(())
        }
        ["ask", address, mark] => questions::udp(calls, Form::Unconnected, read(address)?, mark),
        ["ask-connected", address, mark] => questions::udp(calls, Form::Connected, read(address)?, mark),
        ["ask-both", address, mark] => questions::udp(calls, Form::Both, read(address)?, mark),
        ["ask-tcp", address, mark] => questions::tcp(calls, read(address)?, mark),
        ["ask-two", one, other] => questions::two(calls, read(one)?, read(other)?),
        ["ask-on-device", device, address, mark] => questions::on_device(calls, device, read(address)?, mark),
        ["off-loopback", device, address, mark] => listen::off_loopback(calls, device, read(address)?, mark),
        ["off-loopback-tcp", device, address, mark] => listen::off_loopback_tcp(calls, device, read(address)?, mark),
        ["ask-shared-port", seconds, from, to] => questions::shared_port(calls, read(seconds)?, read(from)?, read(to)?),
        ["inherited", descriptor, mark] => actions::inherited(calls, read(descriptor)?, mark),
        ["routing-header", via, address, mark] => routing::send(calls, read(via)?, read(address)?, mark),
        ["unix", path] => actions::unix(calls, path),
        ["unix-listen", seconds, path] => listen::unix(calls, read(seconds)?, path),
        ["write", path] => actions::write(calls, path),
        _ => bail!("no such action"),
    }
    // A failed call is a result of the action, not a failure of this program.
    .map_or_else(|_: Failed| Ok(()), Ok)
}

fn read<T: std::str::FromStr>(word: &str) -> Result<T>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    word.parse().with_context(|| format!("read `{word}`"))
}

/// A call failed, and the report says how.
struct Failed;

/// The calls of one action, as they go into its report.
struct Calls {
    report: Report,
}

impl Calls {
    fn new(action: &str) -> Self {
        Self {
            report: Report {
                action: action.to_owned(),
                call: String::new(),
                errno: 0,
                microseconds: 0,
                reply: String::new(),
                successes: 0,
                failures: 0,
            },
        }
    }

    /// Makes a call and notes how it went.
    #[expect(clippy::disallowed_methods, reason = "how long a call takes is what is measured")]
    fn call<T>(&mut self, name: &str, call: impl FnOnce() -> io::Result<T>) -> Result<T, Failed> {
        let start = Instant::now();
        let result = call();
        self.report.microseconds = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
        name.clone_into(&mut self.report.call);
        result.map_err(|error| {
            self.report.errno = errno(&error) as i32;
            Failed
        })
    }

    fn print(&self) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        serde_json::to_writer(&mut stdout, &self.report)?;
        writeln!(stdout)?;
        stdout.flush()
    }
}

/// The kernel's error, or the nearest to what a library says.
fn errno(error: &io::Error) -> Errno {
    match (error.raw_os_error(), error.kind()) {
        (Some(number), _) => Errno::from_raw(number),
        (None, io::ErrorKind::TimedOut) => Errno::ETIMEDOUT,
        (None, io::ErrorKind::UnexpectedEof) => Errno::ECONNRESET,
        (None, _) => Errno::EIO,
    }
}
