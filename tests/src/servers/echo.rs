//! Servers that send back what they get and remember it.

use std::{
    io::{self, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use socket2::{Socket, Type};

use super::{Service, Shared, bind};
use crate::{
    deadline::{SOON, until},
    netns::Namespace,
};

/// Something that a server received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Who sent it.
    pub from: SocketAddr,
    /// One datagram, or what one read of a connection gave; empty for a connection that just opened.
    pub bytes: Vec<u8>,
}

/// An echo server on one address and port.
#[derive(Debug)]
pub struct Echo {
    address: SocketAddr,
    received: Shared<Vec<Received>>,
    // Dropped last: the connections end first.
    connections: Shared<Vec<TcpStream>>,
    _service: Service,
}

impl Echo {
    /// A UDP server.
    pub fn udp(world: &Namespace, address: SocketAddr) -> Result<Self> {
        let (received, connections) = (Shared::default(), Shared::default());
        let seen: Shared<Vec<Received>> = received.clone();
        let service = Service::start(bind(world, Type::DGRAM, address)?, move |socket| {
            let socket = UdpSocket::from(socket.try_clone()?);
            let mut buffer = vec![0; 1 << 16];
            let (length, from) = socket.recv_from(&mut buffer)?;
            buffer.truncate(length);
            seen.lock().push(Received { from, bytes: buffer.clone() });
            socket.send_to(&buffer, from)?;
            Ok(())
        })?;
        Ok(Self { address, received, connections, _service: service })
    }

    /// A TCP server.
    pub fn tcp(world: &Namespace, address: SocketAddr) -> Result<Self> {
        let (received, connections) = (Shared::default(), Shared::default());
        let (seen, open): (Shared<Vec<Received>>, Shared<Vec<TcpStream>>) = (received.clone(), connections.clone());
        let service = Service::start(bind(world, Type::STREAM, address)?, move |socket| {
            let (connection, _) = accept(socket)?;
            open.lock().push(connection.try_clone()?);
            let seen = seen.clone();
            // Ends with its connection, which `drop` closes.
            thread::spawn(move || drop(serve(connection, &seen)));
            Ok(())
        })?;
        Ok(Self { address, received, connections, _service: service })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Everything that it has received so far.
    pub fn received(&self) -> Vec<Received> {
        self.received.lock().clone()
    }

    /// Waits until it has received the mark.
    pub fn until_received(&self, mark: &str) -> Result<()> {
        until(&format!("`{mark}` at {}", self.address), SOON, || Ok(self.has(mark).then_some(())))
    }

    /// An error if it has received anything, or a connection was opened.
    pub fn expect_nothing(&self) -> Result<()> {
        let received = self.received();
        ensure!(received.is_empty(), "{} received {received:?}", self.address);
        Ok(())
    }

    fn has(&self, mark: &str) -> bool {
        let mark = mark.as_bytes();
        self.received.lock().iter().any(|received| received.bytes.windows(mark.len()).any(|window| window == mark))
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        for connection in self.connections.lock().drain(..) {
            // It may have ended by itself.
            drop(connection.shutdown(Shutdown::Both));
        }
    }
}

fn accept(socket: &Socket) -> io::Result<(TcpStream, Option<SocketAddr>)> {
    let (connection, from) = socket.accept()?;
    let connection = TcpStream::from(connection);
    connection.set_read_timeout(Some(Duration::from_secs(60)))?;
    Ok((connection, from.as_socket()))
}

fn serve(mut connection: TcpStream, seen: &Shared<Vec<Received>>) -> Result<()> {
    let from = connection.peer_addr().context("a connection without a peer")?;
    seen.lock().push(Received { from, bytes: Vec::new() });
    let mut buffer = vec![0; 1 << 16];
    loop {
        let length = connection.read(&mut buffer).context("read a connection")?;
        if length == 0 {
            return Ok(());
        }
        let bytes = buffer.get(..length).context("more bytes than the buffer has")?;
        seen.lock().push(Received { from, bytes: bytes.to_vec() });
        connection.write_all(bytes).context("answer on a connection")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{Network, public_v4, public_v6};

    #[test]
    fn echo_servers_answer_and_remember() {
        let network = Network::new().unwrap();
        let tcp = Echo::tcp(&network.world, SocketAddr::new(public_v6(1), 7)).unwrap();
        let udp = Echo::udp(&network.world, SocketAddr::new(public_v4(1), 7)).unwrap();
        let answers = network
            .client
            .network
            .enter(|| {
                let mut connection = TcpStream::connect(tcp.address())?;
                connection.write_all(b"over tcp")?;
                let mut from_tcp = [0; 8];
                connection.read_exact(&mut from_tcp)?;
                let socket = UdpSocket::bind("0.0.0.0:0")?;
                socket.send_to(b"over udp", udp.address())?;
                let mut from_udp = [0; 8];
                socket.recv_from(&mut from_udp)?;
                Ok((from_tcp, from_udp))
            })
            .unwrap();
        assert_eq!(answers, (*b"over tcp", *b"over udp"));
        tcp.until_received("over tcp").unwrap();
        udp.until_received("over udp").unwrap();
        tcp.expect_nothing().unwrap_err();
    }
}
