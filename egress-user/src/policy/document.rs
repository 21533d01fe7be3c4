//! The shape of a policy file: keys and lists, with the place of every value, whose text nobody has looked at yet.

use std::{borrow::Cow, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer},
};
use serde_yaml::{Location, Spanned};

use super::{dns::DnsKeys, problem::Place};

/// A policy of the egress firewall.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "egress policy", extend("required" = ["version", "name"]))]
pub(super) struct Document {
    /// Version of the format: 1.
    #[serde(default, deserialize_with = "present")]
    #[schemars(schema_with = "version_schema")]
    pub(super) version: Option<Text>,
    /// Name of the policy in records and metrics: letters, digits, `-`, `_` and `.`.
    #[serde(default, deserialize_with = "present")]
    #[schemars(schema_with = "name_schema")]
    pub(super) name: Option<Text>,
    /// What the policy is for.
    #[serde(default, deserialize_with = "present")]
    #[schemars(with = "String")]
    pub(super) description: Option<Text>,
    /// The processes that the policy governs. Without it, only `egress run` uses the policy.
    #[serde(default, deserialize_with = "present")]
    #[schemars(with = "WorkloadKeys")]
    pub(super) workload: Option<Spanned<WorkloadKeys>>,
    /// `enforce` refuses what is not allowed; `audit` records it and lets it through.
    #[serde(default, deserialize_with = "present")]
    #[schemars(schema_with = "mode_schema")]
    pub(super) mode: Option<Text>,
    /// `external`: public addresses only. `internal`: special-purpose addresses, such as private ones, only.
    #[serde(default, deserialize_with = "present")]
    #[schemars(schema_with = "tier_schema")]
    pub(super) tier: Option<Text>,
    /// Where the workload may send. Nothing listed: nothing allowed.
    #[serde(default)]
    pub(super) allow: Vec<RuleNode>,
    /// Ports that no rule can allow, of TCP and UDP unless one is named.
    #[serde(default)]
    #[schemars(with = "Vec<PortText>")]
    pub(super) blocked_ports: Vec<Text>,
    /// The error that an application gets when it is refused.
    #[serde(default, deserialize_with = "present")]
    #[schemars(schema_with = "refuse_schema")]
    pub(super) refuse: Option<Text>,
    /// Whether the workload may listen and accept connections.
    #[serde(default, deserialize_with = "present")]
    #[schemars(schema_with = "listen_schema")]
    pub(super) listen: Option<Text>,
    /// How questions about names are answered.
    #[serde(default, deserialize_with = "present")]
    #[schemars(with = "DnsKeys")]
    pub(super) dns: Option<DnsKeys>,
}

/// The processes that the policy governs.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("required" = ["cgroup"]))]
pub(super) struct WorkloadKeys {
    /// Path under the root of cgroup2; `*` stands for any part of one name.
    #[serde(default, deserialize_with = "present")]
    #[schemars(with = "String", example = &"agents.slice/untrusted-*")]
    pub(super) cgroup: Option<Text>,
}

/// A rule in its long form.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RuleKeys {
    /// A name, or `*.` and the name that the allowed ones are below.
    #[serde(default, deserialize_with = "present")]
    #[schemars(with = "String", example = &"api.example.com")]
    pub(super) domain: Option<Text>,
    /// A network or an address.
    #[serde(default, deserialize_with = "present")]
    #[schemars(with = "String", example = &"10.20.0.0/16")]
    pub(super) network: Option<Text>,
    /// Ports that may be reached. Without it: every port that is not blocked, and ICMP echo.
    #[serde(default, deserialize_with = "present")]
    #[schemars(with = "Vec<AllowedPortText>", length(min = 1))]
    pub(super) ports: Option<Spanned<Vec<Text>>>,
}

/// Reads a key's value, which must not be nothing: `ports:` without a value must not mean what no `ports` means.
pub(super) fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// A scalar as it is written.
#[derive(Debug)]
pub(super) struct Text {
    pub(super) text: String,
    pub(super) place: Place,
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Spanned { value, referenced, defined: _ } = Spanned::<String>::deserialize(deserializer)?;
        Ok(Self { text: value, place: place(&referenced) })
    }
}

/// Where the YAML crate says that something is.
pub(super) fn place(location: &Location) -> Place {
    let number = |number: u64| u32::try_from(number).unwrap_or(u32::MAX).max(1);
    Place { line: number(location.line()), column: number(location.column()) }
}

/// A rule and where it stands.
#[derive(Debug)]
pub(super) struct RuleNode {
    pub(super) form: RuleForm,
    pub(super) place: Place,
}

/// A rule in one of its forms.
#[derive(Debug)]
pub(super) enum RuleForm {
    /// Such as `api.example.com:443`.
    Short(String),
    /// Such as `{domain: api.example.com, ports: [443]}`.
    Long(RuleKeys),
    /// What YAML takes for something that no rule is, such as a number.
    Other(String),
}

impl<'de> Deserialize<'de> for RuleNode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Spanned { value, referenced, defined: _ } = Spanned::<RuleForm>::deserialize(deserializer)?;
        Ok(Self { form: value, place: place(&referenced) })
    }
}

impl<'de> Deserialize<'de> for RuleForm {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RuleVisitor)
    }
}

struct RuleVisitor;

impl<'de> Visitor<'de> for RuleVisitor {
    type Value = RuleForm;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a rule such as `api.example.com:443` or `{domain: api.example.com, ports: [443]}`")
    }

    fn visit_str<E>(self, text: &str) -> Result<RuleForm, E> {
        Ok(RuleForm::Short(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<RuleForm, E> {
        Ok(RuleForm::Short(text))
    }

    fn visit_bool<E>(self, value: bool) -> Result<RuleForm, E> {
        Ok(RuleForm::Other(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<RuleForm, E> {
        Ok(RuleForm::Other(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<RuleForm, E> {
        Ok(RuleForm::Other(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<RuleForm, E> {
        Ok(RuleForm::Other(value.to_string()))
    }

    fn visit_unit<E>(self) -> Result<RuleForm, E> {
        Ok(RuleForm::Other(String::new()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<RuleForm, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(RuleForm::Other("[…]".to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RuleForm, A::Error> {
        RuleKeys::deserialize(MapAccessDeserializer::new(map)).map(RuleForm::Long)
    }
}

/// The JSON Schema of a policy file, for editors.
pub fn schema() -> String {
    let schema = schemars::schema_for!(Document);
    format!("{:#}\n", schema.as_value())
}

impl JsonSchema for RuleNode {
    fn schema_name() -> Cow<'static, str> {
        "Rule".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let long = generator.subschema_for::<RuleKeys>();
        json_schema!({
            "description": "A destination that the workload may send to.",
            "oneOf": [
                {
                    "type": "string",
                    "description": "A domain, a network or an address, with `:` and a port if only that is allowed.",
                    "examples": ["api.example.com", "*.example.com:443", "10.0.0.0/8", "[2001:db8::1]:443/tcp"],
                },
                { "allOf": [long, { "oneOf": [{ "required": ["domain"] }, { "required": ["network"] }] }] },
            ],
        })
    }
}

const PORT: &str = "[0-9]{1,5}(-[0-9]{1,5})?(/(tcp|udp))?";

/// An item of `blocked_ports`.
struct PortText;

impl JsonSchema for PortText {
    fn schema_name() -> Cow<'static, str> {
        "Port".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        port_schema(&format!("^{PORT}$"), &["22", "5432/tcp", "8000-8100/udp"])
    }
}

/// An item of a rule's `ports`.
struct AllowedPortText;

impl JsonSchema for AllowedPortText {
    fn schema_name() -> Cow<'static, str> {
        "AllowedPort".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        port_schema(&format!("^({PORT}|icmp)$"), &["443", "5432/tcp", "8000-8100/udp", "icmp"])
    }
}

fn port_schema(pattern: &str, examples: &[&str]) -> Schema {
    json_schema!({
        "oneOf": [
            { "type": "integer", "minimum": 1, "maximum": 65535 },
            { "type": "string", "pattern": pattern, "examples": examples },
        ],
    })
}

fn version_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "const": 1 })
}

fn name_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$" })
}

fn mode_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "enum": ["enforce", "audit"], "default": "enforce" })
}

fn tier_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "enum": ["external", "internal"] })
}

fn refuse_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "enum": ["EPERM", "ECONNREFUSED", "EHOSTUNREACH"], "default": "EPERM" })
}

fn listen_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "boolean", "default": false })
}
