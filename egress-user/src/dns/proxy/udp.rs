//! Questions in datagrams.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use tokio::{net::UdpSocket, sync::mpsc::Sender};

/// Bytes that are read of a datagram. A question has at most 300, and some clients pad theirs to 512; of more, the rest
/// is cut off, and what is left cannot be read.
const DATAGRAM_BYTES: usize = 4096;

/// Pause after an error, which only a machine short of memory gives.
const ERROR_PAUSE: Duration = Duration::from_millis(20);

/// A datagram that came.
#[derive(Debug)]
pub(super) struct Datagram {
    pub(super) namespace: u64,
    /// The socket that it came to, from which its answer has to leave.
    pub(super) socket: Arc<UdpSocket>,
    pub(super) client: SocketAddr,
    pub(super) message: Bytes,
}

/// Hands on what a socket receives. While nobody takes it, the kernel keeps as much as the socket's buffer holds and
/// throws the rest away.
pub(super) async fn receive(namespace: u64, socket: Arc<UdpSocket>, datagrams: Sender<Datagram>) {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(DATAGRAM_BYTES);
        match socket.recv_buf_from(&mut buffer).await {
            Ok((_, client)) => {
                let message = buffer.split().freeze();
                let datagram = Datagram { namespace, socket: Arc::clone(&socket), client, message };
                if datagrams.send(datagram).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::debug!(%error, "receive a DNS question");
                tokio::time::sleep(ERROR_PAUSE).await;
            }
        }
    }
}
