//! What really left: the frames that arrive at the far end of the cable.

use std::{
    cell::{Cell, RefCell},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::{AsRawFd as _, OwnedFd},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    errno::Errno,
    libc,
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    sys::socket::{
        AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, setsockopt, socket, sockopt::RcvBufForce,
    },
    unistd::Pid,
};

use crate::{
    deadline::{SOON, until},
    network::{Network, public_v4},
};

/// Frames that one test may cause. A test that sends more fails instead of missing one.
const FRAMES_MAX: usize = 1_000_000;
/// Receive buffer of the socket: holds what arrives until a test looks.
const BUFFER_BYTES: usize = 64 << 20;
/// Port that only fences use.
const FENCE_PORT: u16 = 65_530;

/// A packet as it arrived, from its IP header on.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Where it was sent.
    pub destination: IpAddr,
    /// All of it.
    pub bytes: Vec<u8>,
}

/// An observer of the world's end of the cable, from the time it was made.
#[derive(Debug)]
pub struct Wire<'network> {
    network: &'network Network,
    socket: OwnedFd,
    frames: RefCell<Vec<Frame>>,
    fences: Cell<u64>,
}

impl<'network> Wire<'network> {
    pub(crate) fn watch(network: &'network Network) -> Result<Self> {
        let socket = network
            .world
            .enter(|| {
                let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
                let socket = socket(AddressFamily::Packet, SockType::Datagram, flags, SockProtocol::EthAll)?;
                Ok(socket)
            })
            .context("open a packet socket at the far end of the cable")?;
        setsockopt(&socket, RcvBufForce, &BUFFER_BYTES).context("enlarge the buffer of a packet socket")?;
        let wire = Self { network, socket, frames: RefCell::default(), fences: Cell::new(0) };
        wire.frames().context("the observer sees nothing")?;
        Ok(wire)
    }

    /// Every frame that had left when this was called.
    pub fn frames(&self) -> Result<Vec<Frame>> {
        let marks = self.send_fences()?;
        until("the fences at the far end of the cable", SOON, || {
            self.receive()?;
            let frames = self.frames.borrow();
            Ok(marks.iter().all(|mark| frames.iter().any(|frame| frame.contains(mark))).then_some(()))
        })?;
        let mut frames = self.frames.borrow_mut();
        frames.retain(|frame| !marks.iter().any(|mark| frame.contains(mark)));
        Ok(frames.clone())
    }

    /// Frames that went to the address.
    pub fn frames_to(&self, destination: IpAddr) -> Result<Vec<Frame>> {
        let mut frames = self.frames()?;
        frames.retain(|frame| frame.destination == destination);
        Ok(frames)
    }

    /// An error if anything went to the address.
    pub fn expect_nothing_to(&self, destination: IpAddr) -> Result<()> {
        let frames = self.frames_to(destination)?;
        ensure!(frames.is_empty(), "{} frames went to {destination}: {:02x?}", frames.len(), frames.first());
        Ok(())
    }

    /// An error unless something went to the address: the proof that this observer sees.
    pub fn expect_something_to(&self, destination: IpAddr) -> Result<()> {
        ensure!(!self.frames_to(destination)?.is_empty(), "nothing went to {destination}");
        Ok(())
    }

    /// An error if any frame carries the mark.
    pub fn expect_no(&self, mark: &str) -> Result<()> {
        let frames = self.frames()?;
        match frames.iter().find(|frame| frame.contains(mark.as_bytes())) {
            None => Ok(()),
            Some(frame) => bail!("a frame with `{mark}` went to {}: {:02x?}", frame.destination, frame.bytes),
        }
    }

    /// Sends one packet from each processor, because each hands its packets on in order, and returns what they carry.
    ///
    /// A full buffer loses frames, but then it loses the fences too, since nobody reads it between.
    fn send_fences(&self) -> Result<Vec<Vec<u8>>> {
        let round = self.fences.replace(self.fences.get() + 1);
        let own = sched_getaffinity(Pid::from_raw(0)).context("ask for the processors")?;
        let mut marks = Vec::new();
        for processor in 0..CpuSet::count() {
            if !own.is_set(processor).context("ask for a processor")? {
                continue;
            }
            let mark = format!("fence {round} of processor {processor}.").into_bytes();
            let send = || {
                let mut one = CpuSet::new();
                one.set(processor)?;
                sched_setaffinity(Pid::from_raw(0), &one)?;
                UdpSocket::bind("0.0.0.0:0")?.send_to(&mark, SocketAddr::new(public_v4(0), FENCE_PORT))
            };
            self.network.client.network.enter(send).context("send a fence")?;
            marks.push(mark);
        }
        Ok(marks)
    }

    fn receive(&self) -> Result<()> {
        let mut buffer = vec![0; 1 << 16];
        let mut frames = self.frames.borrow_mut();
        loop {
            match recvfrom::<LinkAddr>(self.socket.as_raw_fd(), &mut buffer) {
                Err(Errno::EAGAIN) => return Ok(()),
                Err(error) => return Err(error).context("read a packet socket"),
                Ok((length, from)) => {
                    let from = from.context("a packet without a link address")?;
                    let bytes = buffer.get(..length).context("a packet longer than its buffer")?;
                    if from.pkttype() == libc::PACKET_OUTGOING || from.hatype() == libc::ARPHRD_LOOPBACK {
                        continue;
                    }
                    frames.extend(
                        destination(from.protocol(), bytes)
                            .map(|destination| Frame { destination, bytes: bytes.to_vec() }),
                    );
                }
            }
            ensure!(frames.len() < FRAMES_MAX, "more than {FRAMES_MAX} frames arrived");
        }
    }
}

impl Frame {
    /// Whether it carries these bytes anywhere.
    pub fn contains(&self, mark: &[u8]) -> bool {
        self.bytes.windows(mark.len()).any(|window| window == mark)
    }
}

/// The destination of an IP packet; nothing for ARP and the like.
fn destination(ether_type: u16, bytes: &[u8]) -> Option<IpAddr> {
    match i32::from(u16::from_be(ether_type)) {
        libc::ETH_P_IP => {
            let bytes: [u8; 4] = bytes.get(16..20)?.try_into().ok()?;
            Some(IpAddr::V4(Ipv4Addr::from(bytes)))
        }
        libc::ETH_P_IPV6 => {
            let bytes: [u8; 16] = bytes.get(24..40)?.try_into().ok()?;
            Some(IpAddr::V6(Ipv6Addr::from(bytes)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::public_v6;

    #[test]
    fn the_wire_shows_what_left_and_only_that() {
        let network = Network::new().unwrap();
        let wire = network.watch().unwrap();
        let send = |destination: IpAddr, mark: &str| {
            network
                .client
                .network
                .enter(|| {
                    let local = if destination.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                    UdpSocket::bind(local)?.send_to(mark.as_bytes(), SocketAddr::new(destination, 9))
                })
                .unwrap();
        };
        send(public_v4(3), "marked-four");
        send(public_v6(4), "marked-six");

        wire.expect_something_to(public_v4(3)).unwrap();
        wire.expect_something_to(public_v6(4)).unwrap();
        wire.expect_nothing_to(public_v4(4)).unwrap();
        wire.expect_no("marked-seven").unwrap();
        wire.expect_no("marked-six").unwrap_err();
        assert_eq!(wire.frames_to(public_v4(3)).unwrap().len(), 1);
    }
}
