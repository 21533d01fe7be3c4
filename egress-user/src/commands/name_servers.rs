//! Which name servers a command asks.

use super::say;
use crate::{
    dns::upstream,
    policy::{NameServer, Policy},
};

/// Those that were named, or those of the policy, or those of this machine.
pub(super) fn choose(named: &[NameServer], policy: &Policy) -> Vec<NameServer> {
    let chosen = [named, &policy.dns.servers].into_iter().find(|servers| !servers.is_empty());
    if let Some(servers) = chosen {
        return servers.to_vec();
    }
    upstream::system_name_servers().unwrap_or_else(|error| {
        say(&format!("no name server is known, so only /etc/hosts is asked for names: {error:#}"));
        Vec::new()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy;

    #[test]
    fn a_server_that_is_named_wins_over_those_of_the_policy() {
        let server = |text: &str| NameServer::parse(text).unwrap();
        let text = "version: 1\nname: test\nallow: [a.example]\ndns: {servers: ['tls://9.9.9.9#dns.quad9.net']}\n";
        let policy = policy::parse("test.yaml", text.as_bytes()).unwrap();
        assert_eq!(choose(&[server("192.0.2.53")], &policy), [server("192.0.2.53")]);
        assert_eq!(choose(&[], &policy), [server("tls://9.9.9.9#dns.quad9.net")]);
    }
}
