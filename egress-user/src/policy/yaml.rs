//! Bytes of a policy file → [`Document`], or the one problem that keeps them from being one.

use serde_yaml::{
    Budget, Error, Options, RenderOptions, SnippetMode, UserMessageFormatter,
    budget::BudgetBreach,
    options::{AliasLimits, DuplicateKeyPolicy, MergeKeyPolicy, NonFiniteFloatPolicy},
};

use super::{
    document::{Document, place},
    problem::{Place, Problem, Shown},
};

/// Bytes of a policy file: three times what 200,000 rules of the longest networks need. A larger file is refused before
/// it is read.
pub const FILE_BYTES_MAX: usize = 16 << 20;

/// Depth of lists and mappings within each other. The format needs four; the parser recurses, so it has to end.
const DEPTH_MAX: usize = 16;

/// YAML nodes of a file: [`super::RULES_MAX`] rules in their long form with two ports each, rounded up.
const NODES_MAX: usize = 2_000_000;

/// Nodes that aliases may repeat: a list of ports shared by every rule, and no exponential growth.
const ALIAS_NODES_MAX: usize = 1_000_000;

pub(super) fn read(bytes: &[u8]) -> Result<Document, Problem> {
    let problem = |place, message| Problem { place, message };
    if bytes.len() > FILE_BYTES_MAX {
        return Err(problem(Place::START, too_large()));
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let (valid, rest) = bytes.split_at_checked(error.valid_up_to()).unwrap_or((bytes, &[]));
            let byte = rest.first().copied().unwrap_or(0);
            return Err(problem(end_of(valid), format!("`\\x{byte:02x}`: is not UTF-8; expected a file in UTF-8")));
        }
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.lines().all(|line| matches!(line.trim_start().chars().next(), None | Some('#'))) {
        return Err(problem(
            Place::START,
            "the file is empty; expected a policy that begins with `version: 1`".to_owned(),
        ));
    }
    serde_yaml::from_str_with_options(text, options()).map_err(|error| {
        let place = error.location().map_or(Place::START, |location| place(&location));
        problem(place, message(error.without_snippet(), text, place))
    })
}

/// What is said about a file of more than [`FILE_BYTES_MAX`] bytes, by whoever sees that first.
pub fn too_large() -> String {
    format!("the file is too large; expected at most {} MiB", FILE_BYTES_MAX >> 20)
}

/// The place after these bytes, which are UTF-8.
fn end_of(valid: &[u8]) -> Place {
    let text = String::from_utf8_lossy(valid);
    let line = text.bytes().filter(|byte| *byte == b'\n').count() + 1;
    let column = text.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    Place { line: number(line), column: number(column) }
}

fn options() -> Options {
    let mut budget = Budget::default();
    budget.max_depth = DEPTH_MAX;
    budget.flow_nesting_limit = DEPTH_MAX;
    budget.max_nodes = NODES_MAX;
    budget.max_events = NODES_MAX * 2;
    budget.max_total_scalar_bytes = FILE_BYTES_MAX;
    budget.max_documents = 1;
    budget.max_merge_keys = 0;
    // What aliases cost is limited by what they repeat; that many rules share one list of ports is no attack.
    budget.enforce_alias_anchor_ratio = false;
    budget.max_aliases = ALIAS_NODES_MAX;
    let mut aliases = AliasLimits::default();
    aliases.max_total_replayed_events = ALIAS_NODES_MAX;
    let mut options = Options::default();
    options.budget = Some(budget);
    options.alias_limits = aliases;
    options.duplicate_keys = DuplicateKeyPolicy::Error;
    options.merge_keys = MergeKeyPolicy::Error;
    options.strict_booleans = true;
    options.leading_zero_numbers_as_strings = true;
    options.underscored_numbers_as_strings = true;
    options.reject_unsupported_tags = true;
    options.reject_tagged_field_names = true;
    options.non_finite_float_policy = NonFiniteFloatPolicy::AsString;
    options.emit_comments = false;
    options.with_snippet = false;
    options
}

fn message(error: &Error, text: &str, place: Place) -> String {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the other errors of the YAML crate say well what is wrong")]
    match error {
        Error::SerdeUnknownField { field, expected, .. } => {
            let expected: Vec<String> = expected.iter().map(|key| format!("`{key}`")).collect();
            format!("{}: unknown key; expected {}", Shown(field), one_of(&expected))
        }
        Error::DuplicateMappingKey { key, .. } => match key {
            Some(key) => format!("{}: the key is repeated; expected it once", Shown(key)),
            None => "the key is repeated; expected it once".to_owned(),
        },
        Error::UnknownAnchor { .. } if at(text, place).starts_with('*') => {
            let value = at(text, place).split([' ', ',', ']', '}', '\n', '\r']).next().unwrap_or("*");
            format!("{}: in YAML a leading `*` is an alias; expected quotes around it: `\"{value}\"`", Shown(value))
        }
        Error::NullIntoString { .. } => "nothing stands after the key; expected a value, or no key".to_owned(),
        Error::AliasReplayLimitExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. } => too_many_aliases(),
        Error::AliasError { error, .. } => message(error, text, place),
        Error::Budget { breach, .. } => budget_message(breach),
        // The parser's own limit for lists in brackets, which it has no other sign of.
        Error::ExternalMessage { msg, .. } if msg.contains("recursion limit exceeded") => too_deep(),
        Error::MultipleDocuments { .. } => "a second document begins; expected one policy in a file".to_owned(),
        Error::MergeKeyNotAllowed { .. } => "`<<`: unknown key; merge keys are not part of a policy".to_owned(),
        Error::Unexpected { expected: "sequence start", .. } => {
            "expected a list, of which `[]` is the empty one".to_owned()
        }
        Error::Unexpected { expected: "mapping start", .. } => {
            "expected keys and values, such as `name: ci-build`".to_owned()
        }
        _ => {
            let mut options = RenderOptions::new(&UserMessageFormatter);
            options.snippets = SnippetMode::Off;
            let message = error.render_with_options(options);
            let told_twice = format!(" at line {}, column {}", place.line, place.column);
            let message = message.strip_suffix(&told_twice).unwrap_or(&message).replace('\n', " ");
            if text.lines().nth(line_index(place)).is_some_and(|line| line.trim_start().starts_with("- [")) {
                format!("{message}; an address in brackets needs quotes, as in `\"[2001:db8::1]:443\"`")
            } else {
                message
            }
        }
    }
}

fn too_deep() -> String {
    format!("nested too deeply; expected at most {DEPTH_MAX} levels")
}

fn too_many_aliases() -> String {
    format!("the aliases grow to too much; expected at most {ALIAS_NODES_MAX} repeated values")
}

fn budget_message(breach: &BudgetBreach) -> String {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the other budgets are the crate's own and far away")]
    match breach {
        BudgetBreach::Depth { .. } => too_deep(),
        BudgetBreach::Documents { .. } => "a second document begins; expected one policy in a file".to_owned(),
        BudgetBreach::Nodes { .. } | BudgetBreach::Events { .. } | BudgetBreach::ScalarBytes { .. } => {
            format!("too many values; expected at most {NODES_MAX}")
        }
        BudgetBreach::MergeKeys { .. } => "`<<`: unknown key; merge keys are not part of a policy".to_owned(),
        _ => too_many_aliases(),
    }
}

/// The text of the file from a place on, within its line.
fn at(text: &str, place: Place) -> &str {
    let line = text.lines().nth(line_index(place));
    let characters = usize::try_from(place.column).unwrap_or(1).saturating_sub(1);
    line.and_then(|line| line.char_indices().nth(characters).and_then(|(start, _)| line.get(start..))).unwrap_or("")
}

fn line_index(place: Place) -> usize {
    usize::try_from(place.line).unwrap_or(usize::MAX).saturating_sub(1)
}

pub(super) fn one_of(items: &[String]) -> String {
    match items {
        [] => "nothing".to_owned(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} or {last}", most.join(", ")),
    }
}
