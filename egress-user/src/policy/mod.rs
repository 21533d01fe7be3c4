//! Policy files: text → [`Policy`], a value that cannot be wrong, and [`Policy::allows`], the plain decision that the
//! compiled one is compared with.

mod allows;
mod dns;
mod document;
mod domain;
mod explain;
mod names;
mod network;
mod ports;
mod problem;
mod read;
mod rule;
mod rules;
mod show;
pub mod special;
mod workload;
mod yaml;

pub use self::{
    allows::{Flow, Known},
    dns::{AddressLimits, Budget, Dns, InvalidRecordType, InvalidServer, NameServer, RecordType, RefusalCode},
    document::schema,
    domain::{DomainName, DomainPattern, InvalidDomain},
    explain::{Explanation, Target},
    names::Admitted,
    network::{InvalidNetwork, Network},
    ports::{InvalidPorts, PortItem, PortRange, Ports},
    problem::{Place, Problem, Problems},
    read::{RULES_MAX, from_arguments, parse},
    rule::{Destination, InvalidRule, Rule},
    rules::Rules,
    show::show,
    workload::{CgroupPattern, InvalidCgroup, InvalidName, PolicyName, Workload},
    yaml::{FILE_BYTES_MAX, too_large},
};

/// What a workload may reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// What it is called in records and metrics.
    pub name: PolicyName,
    /// What it is for.
    pub description: Option<String>,
    /// Which processes it governs; `None` when only `egress run` uses it.
    pub workload: Option<Workload>,
    /// Whether it refuses.
    pub mode: Mode,
    /// Which part of the address space it is limited to.
    pub tier: Option<Tier>,
    /// What it allows; the union counts, in any order.
    pub allow: Rules,
    /// Ports that no rule can allow.
    pub blocked_ports: Ports,
    /// The error that a refused application gets.
    pub refuse: Refuse,
    /// Whether the workload may listen and accept.
    pub listen: bool,
    /// How its questions about names are answered.
    pub dns: Dns,
}

/// Whether a policy refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// What is not allowed is refused.
    Enforce,
    /// What is not allowed is recorded and let through.
    Audit,
}

/// The part of the address space that a policy is limited to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// Addresses in no special-purpose network.
    External,
    /// Addresses in special-purpose networks.
    Internal,
}

/// The error that a refused application gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refuse {
    /// Operation not permitted: what `connect(2)` documents for a local firewall.
    Eperm,
    /// Connection refused.
    Econnrefused,
    /// No route to host.
    Ehostunreach,
}

impl Refuse {
    /// The error's number on Linux, positive.
    pub const fn errno(self) -> u32 {
        match self {
            Self::Eperm => 1,
            Self::Econnrefused => 111,
            Self::Ehostunreach => 113,
        }
    }
}

macro_rules! spellings {
    ($name:ident: $($variant:ident = $text:literal),* $(,)?) => {
        impl $name {
            /// Each value with its spelling in policy files.
            pub(crate) const ALL: &'static [(&'static str, Self)] = &[$(($text, Self::$variant)),*];
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(match self {
                    $(Self::$variant => $text,)*
                })
            }
        }
    };
}

spellings!(Mode: Enforce = "enforce", Audit = "audit");
spellings!(Tier: External = "external", Internal = "internal");
spellings!(Refuse: Eperm = "EPERM", Econnrefused = "ECONNREFUSED", Ehostunreach = "EHOSTUNREACH");
spellings!(RefusalCode: Refused = "refused", NxDomain = "nxdomain");
