//! What a policy allows.

use std::fmt;

use super::{
    domain::{DomainPattern, InvalidDomain},
    network::{InvalidNetwork, Network},
    ports::{InvalidPorts, PortItem, Ports},
    problem::{Place, Shown},
};

/// Where a rule lets traffic go.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Destination {
    /// The addresses of the names that match.
    Domain(DomainPattern),
    /// The addresses of a network.
    Network(Network),
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Domain(pattern) => write!(f, "{pattern}"),
            Self::Network(network) => write!(f, "{network}"),
        }
    }
}

/// A destination and the ports that may be reached there.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Where.
    pub destination: Destination,
    /// Which ports; [`Ports::every`] when the rule names none.
    pub ports: Ports,
    /// Where the rule stands in the file.
    pub place: Place,
}

impl Rule {
    /// Reads the short form: `api.example.com`, `*.example.com:443`, `10.0.0.0/8`, `192.0.2.7:443/tcp`,
    /// `[2001:db8::1]:443`.
    pub fn parse(text: &str, place: Place) -> Result<Self, InvalidRule> {
        let (destination, port) = split(text)?;
        let ports = match port {
            None => Ports::every(),
            Some(port) => Ports::from_items([PortItem::parse(port)?]),
        };
        Ok(Self { destination, ports, place })
    }
}

/// Where a rule stands does not make it another rule.
impl PartialEq for Rule {
    fn eq(&self, other: &Self) -> bool {
        let Self { destination, ports, place: _ } = self;
        *destination == other.destination && *ports == other.ports
    }
}

impl Eq for Rule {}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { destination, ports, place: _ } = self;
        if *ports == Ports::every() { write!(f, "{destination}") } else { write!(f, "{destination} on {ports}") }
    }
}

/// The destination and what stands after its colon.
fn split(text: &str) -> Result<(Destination, Option<&str>), InvalidRule> {
    if let Some((_, rest)) = text.split_once("://") {
        let host = rest.split('/').next().unwrap_or(rest);
        return Err(InvalidRule::Url { text: text.to_owned(), host: host.to_owned() });
    }
    if let Some(bracketed) = text.strip_prefix('[') {
        let Some((inside, after)) = bracketed.split_once(']') else {
            return Err(InvalidRule::Bracket { text: text.to_owned() });
        };
        let destination = Destination::Network(Network::parse(inside)?);
        return match (after, after.strip_prefix(':')) {
            ("", _) => Ok((destination, None)),
            (_, Some(port)) => Ok((destination, Some(port))),
            (_, None) => Err(InvalidRule::Bracket { text: text.to_owned() }),
        };
    }
    match text.rsplit_once(':') {
        // An address of IPv6 has two colons at least; with a port it stands in brackets.
        Some((host, port)) if !host.contains(':') => Ok((host_or_network(host)?, Some(port))),
        Some((_, _)) | None => Ok((host_or_network(text)?, None)),
    }
}

fn host_or_network(text: &str) -> Result<Destination, InvalidRule> {
    // What has a slash or a colon can only have been meant as a network; whatever else is no address is a name.
    match Network::parse(text) {
        Ok(network) => Ok(Destination::Network(network)),
        Err(error) if text.contains([':', '/']) => Err(InvalidRule::Network(error)),
        Err(_) => Ok(Destination::Domain(DomainPattern::parse(text)?)),
    }
}

/// Text that is not a rule in its short form, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InvalidRule {
    /// The domain is wrong.
    Domain(InvalidDomain),
    /// The network or address is wrong.
    Network(InvalidNetwork),
    /// What stands after the destination's colon is wrong.
    Port(InvalidPorts),
    /// Brackets that are not closed, or not followed by a colon.
    Bracket {
        /// The rule.
        text: String,
    },
    /// A URL, whose host was probably meant.
    Url {
        /// The rule.
        text: String,
        /// The host.
        host: String,
    },
}

impl From<InvalidDomain> for InvalidRule {
    fn from(error: InvalidDomain) -> Self {
        Self::Domain(error)
    }
}

impl From<InvalidNetwork> for InvalidRule {
    fn from(error: InvalidNetwork) -> Self {
        Self::Network(error)
    }
}

impl From<InvalidPorts> for InvalidRule {
    fn from(error: InvalidPorts) -> Self {
        Self::Port(error)
    }
}

impl std::error::Error for InvalidRule {}

impl fmt::Display for InvalidRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Domain(error) => write!(f, "{error}"),
            Self::Network(error) => write!(f, "{error}"),
            Self::Port(error) => write!(f, "{error}"),
            Self::Bracket { text } => write!(f, "{}: expected brackets as in `[2001:db8::1]:443`", Shown(text)),
            Self::Url { text, host } => write!(f, "{}: is a URL; expected its host, {}", Shown(text), Shown(host)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_forms_are_read() {
        for (text, expected) in [
            ("api.example.com", "api.example.com"),
            ("*.example.com:443", "*.example.com on 443"),
            ("host.example:443/tcp", "host.example on 443/tcp"),
            ("host.example:8000-8100/udp", "host.example on 8000-8100/udp"),
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.0.0.0/8:443", "10.0.0.0/8 on 443"),
            ("192.0.2.7:443", "192.0.2.7 on 443"),
            ("192.0.2.7:icmp", "192.0.2.7 on icmp"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[2001:db8::1]:443", "2001:db8::1 on 443"),
            ("[2001:db8::/32]:443/udp", "2001:db8::/32 on 443/udp"),
            ("::/0", "::/0"),
        ] {
            let rule = Rule::parse(text, Place::START).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(rule.to_string(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_rule_is_refused_with_what_would_be_right() {
        for (text, expected) in [
            ("exa mple.com", "expected letters"),
            ("https://example.com/path", "host, `example.com`"),
            ("example.com/path", "expected a network"),
            ("example.com:https", "expected a port such as"),
            ("example.com:0", "port 0"),
            ("example.com:", "expected a port such as"),
            ("10.0.0.1/8", "`10.0.0.0/8`"),
            ("10.0.0.0/40", "expected a network"),
            ("2001:db8::1::2", "expected a network"),
            ("[2001:db8::1", "`[2001:db8::1]:443`"),
            ("[2001:db8::1]443", "`[2001:db8::1]:443`"),
            ("*", "first label"),
            ("", "expected a domain"),
        ] {
            let message = Rule::parse(text, Place::START).unwrap_err().to_string();
            assert!(message.contains(expected), "{text}: {message}");
        }
    }
}
