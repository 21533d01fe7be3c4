//! The keys of the `dns` section, whose values nobody has looked at yet.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

use super::{
    AddressLimits, Budget, Dns,
    duration::Seconds,
    read::{NAMES_MAX, QUESTIONS_MAX, SERVERS_MAX, TOTAL_MAX},
};
use crate::policy::{
    document::{Text, present},
    domain::LABEL_BYTES_MAX,
};

/// How questions about names are answered.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::policy) struct DnsKeys {
    /// Types of records that may be asked for allowed names.
    #[serde(default, deserialize_with = "present")]
    #[schemars(schema_with = "types_schema")]
    pub(super) types: Option<Vec<Text>>,
    /// The response code of a refused question.
    #[serde(default, deserialize_with = "present")]
    #[schemars(schema_with = "refuse_schema")]
    pub(super) refuse: Option<Text>,
    /// How long an address stays usable after the TTL of its answer, such as `90s`, `5m` or `1h`; at most `1d`.
    #[serde(default, deserialize_with = "present")]
    #[schemars(schema_with = "grace_schema")]
    pub(super) grace: Option<Text>,
    /// The least TTL that an answer has, such as `10s`; at most `1h`.
    #[serde(default, deserialize_with = "present")]
    #[schemars(schema_with = "ttl_floor_schema")]
    pub(super) ttl_floor: Option<Text>,
    /// What a workload may ask below wildcards.
    #[serde(default, deserialize_with = "present")]
    #[schemars(with = "BudgetKeys")]
    pub(super) budget: Option<BudgetKeys>,
    /// How many addresses names may have at a time.
    #[serde(default, deserialize_with = "present")]
    #[schemars(with = "AddressKeys")]
    pub(super) addresses: Option<AddressKeys>,
    /// Name servers to ask instead of the system's.
    #[serde(default)]
    #[schemars(schema_with = "servers_schema")]
    pub(super) servers: Vec<Text>,
}

/// What a workload may ask below wildcards.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BudgetKeys {
    /// Questions in any minute that go to a name server.
    #[serde(default, deserialize_with = "present")]
    #[schemars(schema_with = "questions_schema")]
    pub(super) questions_per_minute: Option<Text>,
    /// Different names in any hour.
    #[serde(default, deserialize_with = "present")]
    #[schemars(schema_with = "names_schema")]
    pub(super) names_per_hour: Option<Text>,
    /// Bytes of the longest label.
    #[serde(default, deserialize_with = "present")]
    #[schemars(schema_with = "label_schema")]
    pub(super) label_bytes: Option<Text>,
    /// Percent of the names of an hour that may look random.
    #[serde(default, deserialize_with = "present")]
    #[schemars(schema_with = "random_schema")]
    pub(super) random_percent: Option<Text>,
}

/// How many addresses names may have at a time, those in their grace included.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AddressKeys {
    /// Of one name; at most the total.
    #[serde(default, deserialize_with = "present")]
    #[schemars(schema_with = "per_name_schema")]
    pub(super) per_name: Option<Text>,
    /// Of all names together.
    #[serde(default, deserialize_with = "present")]
    #[schemars(schema_with = "total_schema")]
    pub(super) total: Option<Text>,
}

fn types_schema(_: &mut SchemaGenerator) -> Schema {
    let default: Vec<String> = Dns::default().types.iter().map(ToString::to_string).collect();
    json_schema!({
        "type": "array",
        "items": { "type": "string", "pattern": "^[A-Z0-9]+$", "examples": ["AAAA", "TXT", "TYPE65280"] },
        "default": default,
    })
}

fn refuse_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "enum": ["refused", "nxdomain"], "default": "refused" })
}

fn grace_schema(_: &mut SchemaGenerator) -> Schema {
    duration_schema(Dns::default().grace_seconds)
}

fn ttl_floor_schema(_: &mut SchemaGenerator) -> Schema {
    duration_schema(Dns::default().ttl_floor_seconds)
}

fn duration_schema(default: u32) -> Schema {
    json_schema!({ "type": "string", "pattern": "^[0-9]+[smhd]$", "default": Seconds(default).to_string() })
}

fn questions_schema(_: &mut SchemaGenerator) -> Schema {
    number_schema(1, QUESTIONS_MAX, Budget::default().questions_per_minute)
}

fn names_schema(_: &mut SchemaGenerator) -> Schema {
    number_schema(1, NAMES_MAX, Budget::default().names_per_hour)
}

fn label_schema(_: &mut SchemaGenerator) -> Schema {
    let longest = u32::try_from(LABEL_BYTES_MAX).unwrap_or(u32::MAX);
    number_schema(1, longest, u32::from(Budget::default().label_bytes))
}

fn random_schema(_: &mut SchemaGenerator) -> Schema {
    number_schema(0, 100, u32::from(Budget::default().random_percent))
}

fn per_name_schema(_: &mut SchemaGenerator) -> Schema {
    number_schema(1, TOTAL_MAX, AddressLimits::default().per_name)
}

fn total_schema(_: &mut SchemaGenerator) -> Schema {
    number_schema(1, TOTAL_MAX, AddressLimits::default().total)
}

fn number_schema(least: u32, most: u32, default: u32) -> Schema {
    json_schema!({ "type": "integer", "minimum": least, "maximum": most, "default": default })
}

fn servers_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": SERVERS_MAX,
        "items": {
            "type": "string",
            "examples": ["192.0.2.53", "[2001:db8::53]:5353", "tls://9.9.9.9#dns.quad9.net"],
        },
    })
}
