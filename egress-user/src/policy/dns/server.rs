//! Name servers and how they are written.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use crate::policy::{DomainName, InvalidDomain, problem::Shown};

/// A name server to ask.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NameServer {
    /// Over UDP, and over TCP where an answer does not fit.
    Plain(SocketAddr),
    /// Over TLS (RFC 7858); its certificate has to be this name's.
    Tls(SocketAddr, DomainName),
}

/// The port of name servers: RFC 1035 section 4.2.
const PLAIN_PORT: u16 = 53;

/// The port of name servers over TLS: RFC 7858 section 3.1.
const TLS_PORT: u16 = 853;

impl NameServer {
    /// Reads `192.0.2.53`, `[2001:db8::53]:5353` or `tls://9.9.9.9#dns.quad9.net`.
    pub fn parse(text: &str) -> Result<Self, InvalidServer> {
        let invalid = |what| InvalidServer { text: text.to_owned(), what };
        let Some((scheme, rest)) = text.split_once("://") else {
            return if text.contains('#') {
                Err(invalid(Wrong::NameWithoutTls))
            } else {
                address(text, PLAIN_PORT).map(Self::Plain).map_err(invalid)
            };
        };
        if scheme != "tls" {
            return Err(invalid(Wrong::Scheme));
        }
        let (server, name) = rest.split_once('#').ok_or_else(|| invalid(Wrong::TlsWithoutName))?;
        let server = address(server, TLS_PORT).map_err(invalid)?;
        let name = DomainName::parse(name).map_err(|error| invalid(Wrong::Name(error)))?;
        Ok(Self::Tls(server, name))
    }
}

/// An address with its port, or with the one that it has where none is named.
fn address(text: &str, port: u16) -> Result<SocketAddr, Wrong> {
    let bracketed = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let alone = bracketed.map_or_else(|| text.parse::<IpAddr>().ok(), |inside| inside.parse().ok().map(IpAddr::V6));
    let server = match alone {
        Some(address) => SocketAddr::new(address, port),
        None if text.contains('%') => return Err(Wrong::Scope),
        None => text.parse().ok().ok_or(Wrong::Address)?,
    };
    let (address, port) = (server.ip().to_canonical(), server.port());
    let is_broadcast = matches!(address, IpAddr::V4(four) if four.is_broadcast());
    if port == 0 {
        Err(Wrong::Port)
    } else if address.is_unspecified() || address.is_multicast() || is_broadcast {
        Err(Wrong::NoHost)
    } else {
        Ok(SocketAddr::new(address, port))
    }
}

/// Without the port that it would have anyway.
impl fmt::Display for NameServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(server) if server.port() == PLAIN_PORT => write!(f, "{}", server.ip()),
            Self::Plain(server) => write!(f, "{server}"),
            Self::Tls(server, name) if server.port() != TLS_PORT => write!(f, "tls://{server}#{name}"),
            Self::Tls(server, name) => match server.ip() {
                IpAddr::V4(address) => write!(f, "tls://{address}#{name}"),
                IpAddr::V6(address) => write!(f, "tls://[{address}]#{name}"),
            },
        }
    }
}

/// Text that is not a name server, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidServer {
    text: String,
    what: Wrong,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Wrong {
    Address,
    Port,
    NoHost,
    Scope,
    Scheme,
    TlsWithoutName,
    NameWithoutTls,
    Name(InvalidDomain),
}

impl std::error::Error for InvalidServer {}

impl fmt::Display for InvalidServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { text, what } = self;
        let shown = Shown(text);
        match what {
            Wrong::Address => write!(
                f,
                "{shown}: expected the address of a name server, such as `192.0.2.53`, `[2001:db8::53]:5353` or \
                 `tls://9.9.9.9#dns.quad9.net`"
            ),
            Wrong::Port => write!(f, "{shown}: nothing answers on port 0; expected a port from 1 to 65535, or none"),
            Wrong::NoHost => write!(f, "{shown}: is not the address of one host; expected one such as `192.0.2.53`"),
            Wrong::Scope => {
                write!(f, "{shown}: an interface cannot be named here; expected an address such as `2001:db8::53`")
            }
            Wrong::Scheme => write!(
                f,
                "{shown}: expected an address alone, for UDP and TCP, or `tls://` before it, for DNS over TLS"
            ),
            Wrong::TlsWithoutName => write!(
                f,
                "{shown}: the name that the server's certificate must have is missing; expected it after a `#`, as in \
                 `tls://9.9.9.9#dns.quad9.net`"
            ),
            Wrong::NameWithoutTls => write!(
                f,
                "{shown}: only DNS over TLS has a name to check; expected `tls://` before the address, or no `#`"
            ),
            Wrong::Name(error) => write!(f, "{shown}: the server's name is wrong: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_shown_without_the_port_that_it_has_anyway() {
        for (text, address, expected) in [
            ("192.0.2.53", "192.0.2.53:53", "192.0.2.53"),
            ("192.0.2.53:53", "192.0.2.53:53", "192.0.2.53"),
            ("192.0.2.53:5353", "192.0.2.53:5353", "192.0.2.53:5353"),
            ("127.0.0.53", "127.0.0.53:53", "127.0.0.53"),
            ("2001:DB8::53", "[2001:db8::53]:53", "2001:db8::53"),
            ("[2001:db8::53]", "[2001:db8::53]:53", "2001:db8::53"),
            ("[2001:db8::53]:5353", "[2001:db8::53]:5353", "[2001:db8::53]:5353"),
            ("[::ffff:192.0.2.53]:5353", "192.0.2.53:5353", "192.0.2.53:5353"),
            ("tls://9.9.9.9#DNS.quad9.net.", "9.9.9.9:853", "tls://9.9.9.9#dns.quad9.net"),
            ("tls://9.9.9.9:853#dns.quad9.net", "9.9.9.9:853", "tls://9.9.9.9#dns.quad9.net"),
            ("tls://9.9.9.9:8853#dns.quad9.net", "9.9.9.9:8853", "tls://9.9.9.9:8853#dns.quad9.net"),
            ("tls://2620:fe::fe#dns.quad9.net", "[2620:fe::fe]:853", "tls://[2620:fe::fe]#dns.quad9.net"),
            ("tls://[2620:fe::fe]:53#dns.quad9.net", "[2620:fe::fe]:53", "tls://[2620:fe::fe]:53#dns.quad9.net"),
        ] {
            let server = NameServer::parse(text).unwrap_or_else(|error| panic!("{error}"));
            let (NameServer::Plain(found) | NameServer::Tls(found, _)) = &server;
            assert_eq!((found.to_string().as_str(), server.to_string().as_str()), (address, expected), "{text}");
            assert_eq!(NameServer::parse(expected).as_ref(), Ok(&server), "{expected}");
        }
    }

    #[test]
    fn what_is_no_name_server_is_refused_with_what_would_be_right() {
        for (text, expected) in [
            ("", "expected the address"),
            ("dns.quad9.net", "expected the address"),
            ("192.0.2.53:", "expected the address"),
            ("192.0.2.53:65536", "expected the address"),
            ("[192.0.2.53]", "expected the address"),
            ("[192.0.2.53]:53", "expected the address"),
            ("[2001:db8::53", "expected the address"),
            ("010.0.0.1", "expected the address"),
            ("192.0.2.53:0", "port 0"),
            ("tls://9.9.9.9:0#dns.quad9.net", "port 0"),
            ("0.0.0.0", "not the address of one host"),
            ("[::]:53", "not the address of one host"),
            ("224.0.0.251:5353", "not the address of one host"),
            ("ff02::fb", "not the address of one host"),
            ("255.255.255.255", "not the address of one host"),
            ("fe80::1%eth0", "interface"),
            ("[fe80::1%2]:53", "interface"),
            ("https://dns.quad9.net/dns-query", "`tls://`"),
            ("udp://192.0.2.53", "`tls://`"),
            ("TLS://9.9.9.9#dns.quad9.net", "`tls://`"),
            ("tls://9.9.9.9", "after a `#`"),
            ("tls://dns.quad9.net", "after a `#`"),
            ("tls://dns.quad9.net#dns.quad9.net", "expected the address"),
            ("tls://9.9.9.9#", "name is wrong"),
            ("tls://9.9.9.9#9.9.9.9", "name is wrong"),
            ("9.9.9.9#dns.quad9.net", "`tls://` before the address"),
        ] {
            let message = NameServer::parse(text).unwrap_err().to_string();
            assert!(message.contains(expected), "{text}: {message}");
        }
    }
}
