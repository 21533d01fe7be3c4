//! A real HTTPS server: Debian's `nginx` with a certificate made for the test.

use std::{
    ffi::OsString,
    fs,
    net::{SocketAddr, TcpStream},
    path::Path,
};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use super::certificate::Certificate;
use crate::{
    command::{Running, Spec},
    deadline::{SOON, until},
    netns::Namespace,
};

/// An HTTPS server that answers every request with its own address, on a line of its own.
#[derive(Debug)]
pub struct Https {
    process: Running,
    certificate: Certificate,
    _directory: TempDir,
}

impl Https {
    /// A server for these names on these addresses.
    pub fn start(world: &Namespace, names: &[&str], addresses: &[SocketAddr]) -> Result<Self> {
        let directory = TempDir::with_prefix("egress-https-").context("make a directory for nginx")?;
        let certificate = Certificate::for_names(names)?;
        let configuration = directory.path().join("nginx.conf");
        fs::write(&configuration, configure(directory.path(), &certificate, addresses))
            .with_context(|| format!("write `{}`", configuration.display()))?;
        let process = Spec::new("nsenter")
            .arg(format!("--net={}", world.path().display()))
            .args(["--", "setpriv", "--pdeathsig", "KILL", "--", "nginx", "-e", "stderr", "-c"])
            .arg(&configuration)
            .start()?;
        let https = Self { process, certificate, _directory: directory };
        for address in addresses {
            until(&format!("nginx listens on {address}"), SOON, || {
                Ok(world.enter(|| TcpStream::connect(address)).ok().map(drop))
            })
            .with_context(|| format!("nginx says: {}", https.process.stderr().unwrap_or_default()))?;
        }
        Ok(https)
    }

    /// A `curl` that trusts this server, gives up soon and says why.
    pub fn curl(&self, arguments: &[&str]) -> Vec<OsString> {
        let certificate = self.certificate.authority().into_os_string();
        let curl = ["curl", "--silent", "--show-error", "--max-time", "10", "--cacert"].map(OsString::from);
        curl.into_iter().chain([certificate]).chain(arguments.iter().map(OsString::from)).collect()
    }
}

fn configure(directory: &Path, certificate: &Certificate, addresses: &[SocketAddr]) -> String {
    let directory = directory.display();
    let (key, certificate) = (certificate.key(), certificate.path());
    let (key, certificate) = (key.display(), certificate.display());
    let listen: Vec<String> = addresses.iter().map(|address| format!("    listen {address} ssl;\n")).collect();
    let listen = listen.concat();
    let paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("  {kind}_temp_path {directory}/{kind};\n"))
        .concat();
    format!(
        "daemon off;
master_process off;
pid {directory}/pid;
error_log stderr;
events {{ worker_connections 512; }}
http {{
  access_log off;
{paths}  ssl_certificate {certificate};
  ssl_certificate_key {key};
  server {{
{listen}    location / {{ return 200 \"$server_addr\\n\"; }}
    location /large {{ return 200 \"{}\\n\"; }}
  }}
}}
",
        "x".repeat(2000)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        network::{DNS_V4, Network, public_v4, public_v6},
        servers::{dns::Dns, dnsmasq::Dnsmasq},
    };

    fn fetch(network: &Network, https: &Https, family: &str, name: &str) -> String {
        let finished =
            network.client.command("env").args(https.curl(&[family, &format!("https://{name}/")])).finish().unwrap();
        finished.expect_success().unwrap();
        finished.stdout
    }

    #[test]
    fn curl_reaches_a_name_over_both_families() {
        let network = Network::new().unwrap();
        let dns = Dns::start(&network.world, DNS_V4).unwrap();
        dns.answer("api.example.com", 60, &[public_v4(1), public_v6(1)]).unwrap();
        let addresses = [SocketAddr::new(public_v4(1), 443), SocketAddr::new(public_v6(1), 443)];
        let https = Https::start(&network.world, &["api.example.com"], &addresses).unwrap();

        assert_eq!(fetch(&network, &https, "--ipv4", "api.example.com"), "198.20.1.1\n");
        assert_eq!(fetch(&network, &https, "--ipv6", "api.example.com"), "2c0f:fff0::1:1\n");
    }

    #[test]
    fn curl_reaches_a_name_that_dnsmasq_answers() {
        let network = Network::new().unwrap();
        let _dns = Dnsmasq::start(&network.world, DNS_V4, &[("api.example.com", public_v4(2))]).unwrap();
        let https = Https::start(&network.world, &["api.example.com"], &[SocketAddr::new(public_v4(2), 443)]).unwrap();
        assert_eq!(fetch(&network, &https, "--ipv4", "api.example.com"), "198.20.1.2\n");
    }
}
