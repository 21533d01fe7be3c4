//! The validating resolver of Debian: `unbound`, with names of its own or as a forwarder, in clear or over TLS.

use std::{
    fs,
    net::{IpAddr, SocketAddr, TcpStream},
    path::PathBuf,
};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use super::certificate::Certificate;
use crate::{
    command::{Running, Spec},
    deadline::{SOON, until},
    netns::Namespace,
};

/// The port of DNS over TLS.
pub const TLS_PORT: u16 = 853;

/// A running `unbound`.
#[derive(Debug)]
pub struct Unbound {
    process: Running,
    certificate: Option<Certificate>,
    _directory: TempDir,
}

/// What to run.
#[derive(Debug)]
pub struct Configuration<'names> {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Names that it answers itself; it refuses others unless it forwards.
    pub names: &'names [(&'names str, IpAddr)],
    /// Whom it asks about all other names.
    pub forward: Option<SocketAddr>,
    /// The name on its certificate, where it speaks TLS.
    pub tls: Option<&'names str>,
}

impl Unbound {
    /// Answers on port 53 for these names.
    pub fn start(world: &Namespace, address: IpAddr, names: &[(&str, IpAddr)]) -> Result<Self> {
        let listen = SocketAddr::new(address, 53);
        Self::configured(world, &Configuration { listen, names, forward: None, tls: None })
    }

    /// Answers only over TLS, as this name.
    pub fn over_tls(world: &Namespace, address: IpAddr, own_name: &str, names: &[(&str, IpAddr)]) -> Result<Self> {
        let listen = SocketAddr::new(address, TLS_PORT);
        Self::configured(world, &Configuration { listen, names, forward: None, tls: Some(own_name) })
    }

    /// Any of these.
    pub fn configured(world: &Namespace, configuration: &Configuration<'_>) -> Result<Self> {
        let directory = TempDir::with_prefix("egress-unbound-").context("make a directory for unbound")?;
        let certificate = configuration.tls.map(|name| Certificate::for_names(&[name])).transpose()?;
        let path = directory.path().join("unbound.conf");
        fs::write(&path, text(configuration, certificate.as_ref()))
            .with_context(|| format!("write `{}`", path.display()))?;
        let process = Spec::new("nsenter")
            .arg(format!("--net={}", world.path().display()))
            .args(["--", "setpriv", "--pdeathsig", "KILL", "--", "unbound", "-d", "-p", "-c"])
            .arg(&path)
            .start()?;
        until("unbound listens", SOON, || Ok(world.enter(|| TcpStream::connect(configuration.listen)).ok().map(drop)))
            .with_context(|| format!("unbound says: {}", process.stderr().unwrap_or_default()))?;
        Ok(Self { process, certificate, _directory: directory })
    }

    /// What whoever asks over TLS has to trust.
    pub fn authority(&self) -> Result<PathBuf> {
        self.certificate.as_ref().map(Certificate::authority).context("this server speaks no TLS")
    }

    /// What it has to say.
    pub fn log(&self) -> Result<String> {
        self.process.stderr()
    }
}

fn text(configuration: &Configuration<'_>, certificate: Option<&Certificate>) -> String {
    let Configuration { listen, names, forward, tls: _ } = configuration;
    let server = format!(
        "server:
  do-daemonize: no
  username: \"\"
  chroot: \"\"
  directory: \"/\"
  pidfile: \"\"
  use-syslog: no
  logfile: \"\"
  verbosity: 1
  # No DNSSEC: the names of a test are signed by nobody.
  module-config: \"iterator\"
  do-not-query-localhost: no
  interface: {}@{}
  access-control: 0.0.0.0/0 allow
  access-control: ::/0 allow
",
        listen.ip(),
        listen.port()
    );
    let local = names.iter().map(|(name, address)| {
        let kind = if address.is_ipv4() { "A" } else { "AAAA" };
        format!("  local-zone: \"{name}.\" static\n  local-data: \"{name}. 60 IN {kind} {address}\"\n")
    });
    let tls = certificate.map_or_else(String::new, |certificate| {
        let (key, certificate) = (certificate.key(), certificate.path());
        let (key, certificate) = (key.display(), certificate.display());
        format!("  tls-port: {TLS_PORT}\n  tls-service-key: \"{key}\"\n  tls-service-pem: \"{certificate}\"\n")
    });
    let others = forward.map_or_else(
        || "  local-zone: \".\" refuse\n".to_owned(),
        |to| format!("forward-zone:\n  name: \".\"\n  forward-addr: {}@{}\n", to.ip(), to.port()),
    );
    [server, local.collect(), tls, others].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{DNS_V4, DNS_V6, Network, public_v4, public_v6};

    #[test]
    fn dig_gets_an_answer_in_clear() {
        let network = Network::new().unwrap();
        let names = [("api.example.com", public_v4(1)), ("six.example.com", public_v6(1))];
        let _unbound = Unbound::start(&network.world, DNS_V6, &names).unwrap();
        for (name, kind, expected) in
            [("api.example.com", "A", "198.20.1.1\n"), ("six.example.com", "AAAA", "2c0f:fff0::1:1\n")]
        {
            let dig = network.client.command("dig").args(["+short", &format!("@{DNS_V6}"), name, kind]);
            assert_eq!(dig.finish().unwrap().stdout, expected);
        }
    }

    #[test]
    fn it_speaks_tls_with_a_certificate_of_its_name() {
        let network = Network::new().unwrap();
        let names = [("api.example.com", public_v4(1))];
        let unbound = Unbound::over_tls(&network.world, DNS_V4, "dns.example.net", &names).unwrap();
        let openssl = ["s_client", "-brief", "-verify_return_error", "-verify_hostname", "dns.example.net", "-CAfile"];
        let client = network.client.command("openssl").args(openssl).arg(unbound.authority().unwrap());
        let finished = client.args(["-connect", &format!("{DNS_V4}:{TLS_PORT}")]).finish().unwrap();
        finished.expect_success().unwrap();
        assert!(finished.stderr.contains("Verification: OK"), "{finished:?}");
    }

    #[test]
    fn a_forwarder_passes_on_what_another_server_says_and_keeps_it() {
        use crate::servers::{
            dnsmasq::Dnsmasq,
            misbehaving::{Misbehaving, Reply},
        };
        let network = Network::new().unwrap();
        let server = Misbehaving::start(&network.world, DNS_V4).unwrap();
        server.reply("api.example.com", [Reply::addresses(60, &[public_v4(7)])]).unwrap();
        let upstream = SocketAddr::new(DNS_V4, 53);
        let (one, other) = ("127.0.0.2".parse().unwrap(), "127.0.0.3:53".parse().unwrap());
        let _dnsmasq = Dnsmasq::forward(&network.client.network, one, upstream).unwrap();
        let configuration = Configuration { listen: other, names: &[], forward: Some(upstream), tls: None };
        let _unbound = Unbound::configured(&network.client.network, &configuration).unwrap();
        for server_address in [one, other.ip()] {
            let before = server.questions("api.example.com");
            for _ in 0..2 {
                let dig = network.client.command("dig").args(["+short", &format!("@{server_address}")]);
                assert_eq!(dig.arg("api.example.com").finish().unwrap().stdout, "198.20.1.7\n");
            }
            assert_eq!(server.questions("api.example.com"), before + 1);
        }
    }
}
