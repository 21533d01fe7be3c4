//! The topology of most tests: a client machine and the rest of the world, joined by one cable.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;

use crate::{machine::Machine, netns::Namespace, wire::Wire};

/// The client's public IPv4 address.
pub const CLIENT_V4: Ipv4Addr = Ipv4Addr::new(198, 20, 0, 1);
/// The client's public IPv6 address.
pub const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0x2c0f, 0xfff0, 0, 0, 0, 0, 0, 1);
/// The name server's IPv4 address.
pub const DNS_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 20, 0, 53));
/// The name server's IPv6 address.
pub const DNS_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2c0f, 0xfff0, 0, 0, 0, 0, 0, 0x53));
/// Where cloud machines find their credentials; the world answers there too.
pub const METADATA: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254));
/// Both ends of the cable have the same hardware address, so neither needs to ask for the other's: packets leave in the
/// order in which they were sent, and the only frames on the wire are those that a test causes.
const MAC: &str = "02:00:00:00:00:01";
/// Hosts of each kind that the world has.
pub const HOSTS: u8 = 16;

/// An IPv4 host on the internet, `0..HOSTS`.
pub const fn public_v4(host: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(198, 20, 1, host))
}

/// An IPv6 host on the internet, `0..HOSTS`.
pub const fn public_v6(host: u8) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0x2c0f, 0xfff0, 0, 0, 0, 0, 1, host as u16))
}

/// An IPv4 host of the internal network, `0..HOSTS`.
pub const fn private_v4(host: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 77, 1, host))
}

/// An IPv6 host of the internal network, `0..HOSTS`.
pub const fn private_v6(host: u8) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 1, host as u16))
}

/// An address as an IPv6 socket spells it.
pub fn mapped(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(address) => IpAddr::V6(address.to_ipv6_mapped()),
        IpAddr::V6(address) => IpAddr::V6(address),
    }
}

/// A client and the world it could reach. Whatever the client sends, to any address, arrives at the world's end of the
/// cable and goes no further.
#[derive(Debug)]
pub struct Network {
    /// Where the command under test runs.
    pub client: Machine,
    /// Every other host.
    pub world: Namespace,
}

impl Network {
    /// Both ends, with addresses and routes; the client asks [`DNS_V4`].
    pub fn new() -> Result<Self> {
        let (client, world) = (Machine::new()?, Namespace::new()?);
        let mut world_lines = vec![
            format!(
                "link add cable address {MAC} type veth peer name cable address {MAC} netns {}",
                client.network.path().display()
            ),
            "link set cable arp off addrgenmode none up".to_owned(),
        ];
        for host in 0..HOSTS {
            world_lines.push(format!("addr add {}/16 dev cable", public_v4(host)));
            world_lines.push(format!("addr add {}/16 dev cable", private_v4(host)));
            world_lines.push(format!("addr add {}/64 dev cable nodad", public_v6(host)));
            world_lines.push(format!("addr add {}/64 dev cable nodad", private_v6(host)));
        }
        world_lines.push(format!("addr add {DNS_V4}/16 dev cable"));
        world_lines.push(format!("addr add {DNS_V6}/64 dev cable nodad"));
        world_lines.push(format!("addr add {METADATA}/32 dev cable"));
        world.ip(&world_lines)?;
        client.network.ip(&[
            "link set cable arp off addrgenmode none up".to_owned(),
            format!("addr add {CLIENT_V4}/16 dev cable"),
            format!("addr add {CLIENT_V6}/64 dev cable nodad"),
            "addr add 10.77.0.1/16 dev cable".to_owned(),
            "addr add fd77::1/64 dev cable nodad".to_owned(),
            format!("route add default via {} dev cable", public_v4(0)),
            format!("route add default via {} dev cable", public_v6(0)),
        ])?;
        client.ask(&[DNS_V4])?;
        Ok(Self { client, world })
    }

    /// Begins to record what arrives at the world's end of the cable.
    pub fn watch(&self) -> Result<Wire<'_>> {
        Wire::watch(self)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener, TcpStream};

    use super::*;

    #[test]
    fn the_client_reaches_every_host_of_the_world() {
        let network = Network::new().unwrap();
        for address in [public_v4(0), public_v4(HOSTS - 1), public_v6(3), private_v4(1), private_v6(2), METADATA] {
            let address = SocketAddr::new(address, 80);
            let listener = network.world.enter(|| TcpListener::bind(address)).unwrap();
            network.client.network.enter(|| TcpStream::connect(address)).unwrap();
            drop(listener);
        }
    }
}
