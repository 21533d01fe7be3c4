//! The name server of many routers and containers: Debian's `dnsmasq`.

use std::net::{IpAddr, SocketAddr, TcpStream};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use crate::{
    command::{Running, Spec},
    deadline::{SOON, until},
    netns::Namespace,
};

/// A running `dnsmasq` on port 53.
#[derive(Debug)]
pub struct Dnsmasq {
    _process: Running,
    _directory: TempDir,
}

impl Dnsmasq {
    /// Answers for these names, and for nothing else.
    pub fn start(world: &Namespace, address: IpAddr, names: &[(&str, IpAddr)]) -> Result<Self> {
        Self::with(world, address, names.iter().map(|(name, address)| format!("--host-record={name},{address}")))
    }

    /// Asks another server, and keeps what it answered.
    pub fn forward(world: &Namespace, address: IpAddr, upstream: SocketAddr) -> Result<Self> {
        let server = format!("--server={}#{}", upstream.ip(), upstream.port());
        Self::with(world, address, [server, "--cache-size=1000".to_owned()])
    }

    fn with(world: &Namespace, address: IpAddr, more: impl IntoIterator<Item = String>) -> Result<Self> {
        let directory = TempDir::with_prefix("egress-dnsmasq-").context("make a directory for dnsmasq")?;
        let process = Spec::new("nsenter")
            .arg(format!("--net={}", world.path().display()))
            .args(["--", "setpriv", "--pdeathsig", "KILL", "--", "dnsmasq", "--keep-in-foreground"])
            .args(["--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--user=root", "--log-facility=-"])
            .args(["--bind-interfaces", "--local-ttl=2"])
            .arg(format!("--listen-address={address}"))
            .arg(format!("--pid-file={}", directory.path().join("pid").display()))
            .args(more)
            .start()?;
        until("dnsmasq listens", SOON, || {
            Ok(world.enter(|| TcpStream::connect(SocketAddr::new(address, 53))).ok().map(drop))
        })
        .with_context(|| format!("dnsmasq says: {}", process.stderr().unwrap_or_default()))?;
        Ok(Self { _process: process, _directory: directory })
    }
}
