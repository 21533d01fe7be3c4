//! The policies of tests, as text.

/// No destination at all.
pub const NOTHING: &[&str] = &[];

/// A policy that allows these destinations; `more` are further lines of the file.
pub fn allowing(destinations: &[impl AsRef<str>], more: &str) -> String {
    let rules: Vec<String> = destinations.iter().map(|destination| rule(destination.as_ref())).collect();
    let empty = if rules.is_empty() { " []" } else { "" };
    format!("version: 1\nname: test\nallow:{empty}\n{}{more}", rules.concat())
}

/// A line of `allow`; the long form of a rule stands in braces.
fn rule(destination: &str) -> String {
    if destination.starts_with('{') { format!("  - {destination}\n") } else { format!("  - \"{destination}\"\n") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_has_its_rules_in_either_form() {
        let text = allowing(&["api.example.com:443", "{network: 10.0.0.0/8}"], "listen: true\n");
        let rules = "allow:\n  - \"api.example.com:443\"\n  - {network: 10.0.0.0/8}\n";
        assert_eq!(text, format!("version: 1\nname: test\n{rules}listen: true\n"));
        assert!(allowing(NOTHING, "").ends_with("allow: []\n"));
    }
}
