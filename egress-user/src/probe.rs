//! The self-probe: one packet that must arrive and one that must not, sent by a real process in the cgroup that is about
//! to be governed. What cannot be shown to be refused is not called governed.

use std::{
    io::{self, Write as _},
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use nix::{errno::Errno, unistd};

use crate::{
    cgroup::Cgroup,
    compile::{self, CompiledPolicy},
    kernel::{Governor, PROBE_SLOT, PROBE_WORKLOAD},
    policy::{self, Known},
};

/// Name of the hidden subcommand that sends the two packets.
pub const SUBCOMMAND: &str = "self-probe";

/// How long the allowed packet may take over loopback; it takes microseconds, and this much only on a machine that is
/// busy beyond measure. After it the probe has failed, and nothing is started.
const ARRIVAL_MAX: Duration = Duration::from_secs(5);

/// The two receivers and the policy under which one of them can be reached.
#[derive(Debug)]
pub struct Probe {
    allowed: UdpSocket,
    refused: UdpSocket,
    policy: CompiledPolicy,
}

impl Probe {
    /// Makes the receivers on loopback, outside the cgroup.
    pub fn new() -> Result<Self> {
        let receiver = || {
            UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
                .context("open a port on loopback for the self-probe; loopback is up after `ip link set lo up`")
        };
        let (allowed, refused) = (receiver()?, receiver()?);
        let port = |socket: &UdpSocket| socket.local_addr().context("read the port of the self-probe");
        // Where TCP is allowed a UDP `connect` is let through, so that only the packet itself is left to be refused.
        let rules = [format!("{}/udp", port(&allowed)?), format!("{}/tcp", port(&refused)?)];
        let policy = policy::from_arguments(&rules, &[]).context("parse the policy of the self-probe")?;
        let policy = compile::compile(&policy, &Known::default()).context("compile the policy of the self-probe")?;
        Ok(Self { allowed, refused, policy })
    }

    /// The policy of the probe, for which the maps need room.
    pub fn policy(&self) -> &CompiledPolicy {
        &self.policy
    }

    /// Binds the cgroup to the policy of the probe, sends both packets from inside it, and looks at what arrived. The
    /// cgroup stays bound to that policy.
    pub fn prove(&self, governor: &mut Governor, cgroup: &Cgroup) -> Result<()> {
        governor.install(PROBE_SLOT, &self.policy)?;
        governor.bind(cgroup.id(), PROBE_SLOT, PROBE_WORKLOAD)?;
        let [refused_call, refused_packet, allowed_call, allowed_packet] = self.send(cgroup)?;
        for allowed in [allowed_call, allowed_packet] {
            ensure!(
                allowed == Sent::Ok,
                "the self-probe failed: an allowed packet was not sent ({allowed}); loopback is up after `ip link set lo up`"
            );
        }
        self.allowed.set_read_timeout(Some(ARRIVAL_MAX)).context("wait for the self-probe")?;
        self.allowed.recv(&mut [0; 1]).context("the self-probe failed: an allowed packet did not arrive")?;
        for refused in [refused_call, refused_packet] {
            ensure!(
                refused == Sent::Failed(Errno::EPERM),
                "the self-probe failed: a forbidden packet was not refused ({refused}); another program in a cgroup above \
                 may have replaced those of egress"
            );
        }
        // What was sent before the allowed packet arrived would have arrived before it.
        self.refused.set_nonblocking(true).context("look at the self-probe")?;
        match self.refused.recv(&mut [0; 1]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error).context("look for the forbidden packet of the self-probe"),
            Ok(_) => bail!("the self-probe failed: a forbidden packet arrived"),
        }
    }

    #[expect(unsafe_code, reason = "the standard library lets code run between fork and exec only so")]
    fn send(&self, cgroup: &Cgroup) -> Result<[Sent; 4]> {
        let port = |socket: &UdpSocket| socket.local_addr().map(|address| address.to_string());
        let mut command = Command::new(Path::new("/proc/self/exe"));
        command
            .arg(SUBCOMMAND)
            .arg(port(&self.refused).context("read the port of the self-probe")?)
            .arg(port(&self.allowed).context("read the port of the self-probe")?)
            .env_clear()
            .stdin(Stdio::null())
            .stderr(Stdio::null());
        let door = cgroup.door()?;
        // SAFETY: one system call is made, and neither lock nor memory is taken, as `signal-safety(7)` asks of what runs
        // between `fork` and `exec`.
        unsafe { command.pre_exec(move || unistd::write(&door, b"0").map(drop).map_err(io::Error::from)) };
        let output = command.output().context("start the self-probe in the cgroup")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let sent = text.split_whitespace().map(Sent::parse).collect::<Result<Vec<_>>>()?;
        sent.try_into().map_err(|sent| anyhow!("the self-probe ended with {} and said {sent:?}", output.status))
    }
}

/// What became of a packet that was to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    Ok,
    Failed(Errno),
}

impl Sent {
    fn parse(text: &str) -> Result<Self> {
        match text.parse().with_context(|| format!("read `{}` of the self-probe", text.escape_debug()))? {
            0 => Ok(Self::Ok),
            errno => Ok(Self::Failed(Errno::from_raw(errno))),
        }
    }
}

impl std::fmt::Display for Sent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ok => f.write_str("it was sent"),
            Self::Failed(errno) => write!(f, "{errno}"),
        }
    }
}

/// Sends a packet to each address with `sendto`, which the hooks of calls see first, and one with `send` on a connected
/// socket, which only those of packets see. Prints the errno of each, 0 for none: what the process in the cgroup does.
pub fn send_to(addresses: &[SocketAddr]) -> Result<()> {
    let socket = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).context("make a socket");
    let unconnected = socket()?;
    for address in addresses {
        let connected = socket()?;
        connected.connect(address).with_context(|| format!("connect a UDP socket to `{address}`"))?;
        for sent in [unconnected.send_to(b"?", address), connected.send(b"?")] {
            let errno = sent.map_or_else(|error| error.raw_os_error().unwrap_or(-1), |_| 0);
            writeln!(io::stdout(), "{errno}").context("print the outcome")?;
        }
    }
    Ok(())
}
