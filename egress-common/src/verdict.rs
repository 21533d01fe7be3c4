//! What was decided, and why.

/// What happens to a packet or a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Verdict {
    /// It is refused.
    Deny = 0,
    /// It is let through.
    Allow = 1,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $wire:literal, $text:literal;)*) => {
        /// Why a verdict fell. The number is the one in maps, counters and events.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Reason {
            $($(#[$doc])* $name = $wire,)*
        }

        impl Reason {
            /// Every reason, in the order of its number.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The reason with this number, if there is one.
            #[inline(always)]
            pub const fn from_wire(wire: u8) -> Option<Self> {
                match wire {
                    $($wire => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// One word for records and metrics, such as `no_rule`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

reasons! {
    /// No rule covers the destination.
    NoRule = 0, "no_rule";
    /// The port is in `blocked_ports`.
    BlockedPort = 1, "blocked_port";
    /// A rule covers the destination, but not this port or protocol.
    PortNotAllowed = 2, "port_not_allowed";
    /// The destination is in a special-purpose network and no rule names a network inside it.
    SpecialPurpose = 3, "special_purpose";
    /// The destination is outside the policy's tier.
    Tier = 4, "tier";
    /// A name resolved to this address, and neither it nor its grace is valid any more.
    Expired = 5, "expired";
    /// The packet is neither TCP, UDP nor an ICMP echo.
    Protocol = 6, "protocol";
    /// The packet is a fragment.
    Fragment = 7, "fragment";
    /// The IPv6 packet has extension headers.
    ExtensionHeader = 8, "extension_header";
    /// The IPv4 packet has options.
    IpOptions = 9, "ip_options";
    /// The packet is too short or contradicts itself.
    Malformed = 10, "malformed";
    /// An inbound packet that the workload did not ask for.
    Unsolicited = 11, "unsolicited";
    /// The workload may not listen.
    Listen = 12, "listen";
    /// The workload may not make a socket of this kind.
    SocketKind = 13, "socket_kind";
    /// The cgroup has no policy yet.
    Unbound = 14, "unbound";
    /// The kernel had no memory to remember the flow.
    NoMemory = 15, "no_memory";
    /// A rule allows it.
    Rule = 16, "rule";
    /// The peer is a socket of the same workload on loopback.
    OwnLoopback = 17, "own_loopback";
    /// It belongs to a connection that the workload accepted.
    Accepted = 18, "accepted";
    /// A UDP `connect`, which sends nothing, to a destination that TCP may reach; the first datagram is decided.
    Deferred = 19, "deferred";
    /// It is a question about a name on its way to the proxy, which decides.
    Question = 20, "question";
    /// No proxy answers questions about names in the workload's network namespace.
    NoResolver = 21, "no_resolver";
    /// A socket of another workload shares the port, so nobody could tell whose question it is.
    SharedPort = 22, "shared_port";
    /// The socket uses one network device, by which neither a question about a name nor anything else gets to loopback.
    DeviceBound = 23, "device_bound";
}

impl Reason {
    /// Slots of a counter array that is indexed by [`Reason`].
    pub const COUNT: usize = Self::ALL.len();

    /// The number in maps, counters and events.
    #[inline(always)]
    pub const fn wire(self) -> u8 {
        self as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_survives_the_wire_and_is_named_once() {
        for (index, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(usize::from(reason.wire()), index, "{reason:?}");
            assert_eq!(Reason::from_wire(reason.wire()), Some(*reason));
            let same = Reason::ALL.iter().filter(|other| other.name() == reason.name());
            assert_eq!(same.count(), 1, "{reason:?}");
        }
        assert_eq!(Reason::from_wire(200), None);
    }
}
