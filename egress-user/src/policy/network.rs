//! Networks in their one spelling.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
};

use ipnet::{IpNet, Ipv4Net};

use super::problem::Shown;

/// A network: an address with no bit set after the prefix. IPv4-mapped IPv6 networks are IPv4 networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Network(IpNet);

impl Network {
    /// Reads `10.0.0.0/8`, or an address, which is a network of one.
    pub fn parse(text: &str) -> Result<Self, InvalidNetwork> {
        let invalid = |meant| InvalidNetwork { text: text.to_owned(), meant };
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::from_address(address));
        }
        let Some(net) = read(text) else {
            return Err(invalid(None));
        };
        if net.addr() == net.network() { Ok(Self(unmapped(net))) } else { Err(invalid(Some(net.trunc()))) }
    }

    /// The network of one address.
    pub fn from_address(address: IpAddr) -> Self {
        Self(IpNet::from(address.to_canonical()))
    }

    /// The network with the address's first `length` bits; a length that the family does not have is cut to its longest.
    pub fn containing(address: IpAddr, length: u8) -> Self {
        let address = address.to_canonical();
        let longest = if address.is_ipv4() { 32 } else { 128 };
        IpNet::new(address, length.min(longest)).map_or_else(|_| Self::from_address(address), |net| Self(net.trunc()))
    }

    /// The first address.
    pub fn first(&self) -> IpAddr {
        self.0.network()
    }

    /// The last address.
    pub fn last(&self) -> IpAddr {
        self.0.broadcast()
    }

    /// Bits of the prefix: 0 to 32, or 0 to 128.
    pub fn length(&self) -> u8 {
        self.0.prefix_len()
    }

    /// Whether it is a network of one address.
    pub fn is_address(&self) -> bool {
        self.0.prefix_len() == self.0.max_prefix_len()
    }

    /// Whether the address is in the network.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }

    /// Whether every address of the other network is in this one.
    pub fn covers(&self, other: &Self) -> bool {
        self.0.contains(&other.0)
    }
}

/// The standard library's parser of addresses and a plain length: ipnet's own takes `010.0.0.0/8` for `10.0.0.0/8`, which
/// other programs take for `8.0.0.0/8`.
fn read(text: &str) -> Option<IpNet> {
    let (address, length) = text.split_once('/')?;
    let is_plain = length == "0" || (!length.starts_with(['0', '+']) && !length.is_empty());
    IpNet::new(address.parse().ok()?, length.parse().ok().filter(|_| is_plain)?).ok()
}

fn unmapped(net: IpNet) -> IpNet {
    let IpNet::V6(six) = net else { return net };
    let Some(four) = six.addr().to_ipv4_mapped() else { return net };
    match six.prefix_len().checked_sub(96) {
        None => net,
        Some(length) => Ipv4Net::new(four, length).map_or(net, IpNet::V4),
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_address() { write!(f, "{}", self.0.addr()) } else { write!(f, "{}", self.0) }
    }
}

/// Text that is not a network, and the network that was probably meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidNetwork {
    text: String,
    meant: Option<IpNet>,
}

impl std::error::Error for InvalidNetwork {}

impl fmt::Display for InvalidNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { text, meant } = self;
        match meant {
            Some(meant) => write!(
                f,
                "{}: has bits set after the prefix; expected the network `{meant}` or the address `{}`",
                Shown(text),
                text.split('/').next().unwrap_or(text)
            ),
            None => write!(
                f,
                "{}: expected a network such as `10.0.0.0/8` or `2001:db8::/32`, or an address such as `{}`",
                Shown(text),
                Ipv4Addr::new(192, 0, 2, 7)
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_one_spelling() {
        for (text, expected) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("192.0.2.7", "192.0.2.7"),
            ("192.0.2.7/32", "192.0.2.7"),
            ("2001:DB8:0::/32", "2001:db8::/32"),
            ("::1/128", "::1"),
            ("::/0", "::/0"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:10.1.2.3", "10.1.2.3"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
        ] {
            assert_eq!(Network::parse(text).unwrap().to_string(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_network_is_refused_with_what_would_be_right() {
        for (text, expected) in [
            ("10.0.0.1/8", "`10.0.0.0/8`"),
            ("2001:db8::1/32", "`2001:db8::/32`"),
            ("10.0.0.0/33", "expected a network such as"),
            ("10.0.0/8", "expected a network such as"),
            ("010.0.0.0/8", "expected a network such as"),
            ("10.0.0.0/08", "expected a network such as"),
            ("10.0.0.0/+8", "expected a network such as"),
            ("10.0.0.0/", "expected a network such as"),
            ("10.0.0.0/8/8", "expected a network such as"),
            ("fe80::1%eth0", "expected a network such as"),
            ("", "expected a network such as"),
        ] {
            let message = Network::parse(text).unwrap_err().to_string();
            assert!(message.contains(expected), "{text}: {message}");
        }
    }

    #[test]
    fn a_network_contains_its_ends_and_nothing_beside_them() {
        let network = Network::parse("10.20.0.0/16").unwrap();
        for (address, expected) in [
            ("10.19.255.255", false),
            ("10.20.0.0", true),
            ("10.20.255.255", true),
            ("::ffff:10.20.0.1", true),
            ("10.21.0.0", false),
            ("::", false),
        ] {
            assert_eq!(network.contains(address.parse().unwrap()), expected, "{address}");
        }
    }
}
