//! Where the DNS proxy listens, and whose questions come to it.

use std::{
    net::{IpAddr, SocketAddr},
    os::fd::BorrowedFd,
};

use anyhow::{Context as _, Result};
use egress_common::{
    Protocol,
    limits::SERVER_SLOTS,
    question::{self, AskerKey, DNS_PORT, Listener},
};

use super::{Governor, sys};
use crate::{
    compile::{to_address, to_ip},
    dns::question::Asker,
    flow::observation::printable,
};

/// The kernel's number of a socket's network namespace.
pub fn network_namespace(socket: BorrowedFd<'_>) -> Result<u64> {
    sys::network_namespace(socket).context("ask for the number of a network namespace")
}

impl Governor {
    /// Leads the questions of governed sockets in a network namespace to these ports of loopback, where these sockets
    /// listen. The kernel goes on to check that it is they who would get a question; those that are closed get none.
    pub fn register(&mut self, namespace: u64, ports: [u16; SERVER_SLOTS], sockets: &[BorrowedFd<'_>]) -> Result<()> {
        for socket in sockets {
            self.maps.mark_proxy(*socket)?;
        }
        self.maps.set_listener(namespace, Listener { ports })
    }

    /// Refuses questions in a network namespace from now on.
    pub fn unregister(&mut self, namespace: u64) -> Result<()> {
        self.maps.remove_listener(namespace)
    }

    /// Who sent what came from `source` to the proxy's port in a network namespace; `None` when it was no governed socket,
    /// or one that is closed.
    pub fn asker(
        &self,
        namespace: u64,
        protocol: Protocol,
        source: SocketAddr,
        local_port: u16,
    ) -> Result<Option<Asker>> {
        let key = AskerKey {
            namespace,
            address: to_address(source.ip().to_canonical()),
            port: source.port(),
            protocol: protocol.wire(),
            reserved: [0; 5],
        };
        Ok(self.maps.asker(&key)?.map(|asker| describe(&asker, local_port)))
    }
}

fn describe(asker: &question::Asker, local_port: u16) -> Asker {
    let server = asker.servers.iter().find(|server| server.proxy_port == local_port);
    let server = server.map_or(IpAddr::from([0, 0, 0, 0]), |server| to_ip(&server.address));
    Asker {
        workload: asker.workload,
        pid: asker.pid,
        command: printable(&asker.command),
        server: SocketAddr::new(server, DNS_PORT),
    }
}
