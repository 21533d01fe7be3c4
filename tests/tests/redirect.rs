//! Questions to any name server go to the proxy, answers come back as from that server, and the kernel knows who asked.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    os::unix::fs::MetadataExt as _,
};

use anyhow::{Context as _, Result, ensure};
use egress_common::Reason;
use egress_tests::{
    cgroup::Cgroup,
    deadline::{SOON, until},
    network::{Network, mapped, public_v4, public_v6},
    probe::{self, Report},
    servers::reflector::Reflector,
};
use egress_user::{
    compile::{CompiledPolicy, compile},
    dns::question::Asker,
    kernel::{Governor, POLICY_SLOT, RUN_WORKLOAD, Sizes},
    policy::{self, Known},
};
use nix::errno::Errno;
use socket2::{Domain, Socket, Type};

const PORTS: [u16; 4] = [4001, 4002, 4003, 4004];

#[test]
fn an_answer_comes_from_the_server_that_was_asked_whatever_the_socket() -> Result<()> {
    let network = Network::new()?;
    let wire = network.watch()?;
    let stage = Stage::new(&network)?;
    // Nobody is there, and to one of them there is no route.
    let servers = [public_v4(1), public_v6(1), "192.0.2.53".parse()?, "127.0.0.53".parse()?, mapped(public_v4(2))];
    for server in servers {
        let server = SocketAddr::new(server, 53);
        let (from, peer) = (format!("from {server}"), format!("peer {server}"));
        for (action, expected) in [
            ("ask", format!("hello {from}")),
            ("ask-connected", format!("hello {from} {peer}")),
            ("ask-both", format!("hello {from} {peer}")),
            ("ask-tcp", format!("hello {peer}")),
        ] {
            let report = stage.probe(&format!("{action} {server} hello"))?;
            report.expect_success()?;
            ensure!(report.reply == expected, "{report:?}: expected `{expected}`");
        }
        ensure!(wire.frames_to(server.ip())?.is_empty(), "a question to {server} left the machine");
    }
    Ok(())
}

#[test]
fn a_socket_that_asks_two_servers_gets_each_answer_from_the_right_one() -> Result<()> {
    let network = Network::new()?;
    let stage = Stage::new(&network)?;
    for (one, other) in [(public_v4(1), public_v4(2)), (public_v6(1), public_v6(2))] {
        let (one, other) = (SocketAddr::new(one, 53), SocketAddr::new(other, 53));
        let report = stage.probe(&format!("ask-two {one} {other}"))?;
        report.expect_success()?;
        ensure!(report.reply == format!("one from {one}, other from {other}"), "{report:?}");
    }
    Ok(())
}

#[test]
fn the_kernel_says_who_asked_and_whom() -> Result<()> {
    let network = Network::new()?;
    let stage = Stage::new(&network)?;
    let action = format!("ask-shared-port 2 127.0.0.1:4053 {}", SocketAddr::new(public_v4(3), 53));
    let running = network.client.command(probe::program()?).arg(&action).start()?;
    let asker = stage.until_asked()?.context("nobody is known to have asked")?;
    ensure!(asker.workload == RUN_WORKLOAD && asker.command == "probe", "{asker:?}");
    ensure!(asker.server == SocketAddr::new(public_v4(3), 53), "{asker:?}");
    ensure!(network.client.cgroup.processes()?.contains(&i32::try_from(asker.pid)?), "{asker:?}");
    running.finish()?.expect_success()?;
    until("the end of the socket", SOON, || Ok(stage.asker()?.is_none().then_some(())))
}

#[test]
fn whoever_asked_over_a_connection_is_forgotten_when_it_is_closed() -> Result<()> {
    let network = Network::new()?;
    let stage = Stage::new(&network)?;
    for server in [public_v4(1), public_v6(1)] {
        stage.probe(&format!("ask-tcp {} hello", SocketAddr::new(server, 53)))?.expect_success()?;
        // The last packets of the connection leave after its end.
        until("the end of the connection", SOON, || Ok(stage.asker()?.is_none().then_some(())))?;
    }
    Ok(())
}

#[test]
fn what_an_ungoverned_socket_sends_to_the_proxy_has_no_asker() -> Result<()> {
    let network = Network::new()?;
    let stage = Stage::new(&network)?;
    let socket = network.client.network.enter(|| UdpSocket::bind("127.0.0.1:0"))?;
    socket.send_to(b"hello", (Ipv4Addr::LOCALHOST, PORTS[0]))?;
    ensure!(stage.until_asked()?.is_none(), "an ungoverned socket was taken for a governed one");
    Ok(())
}

#[test]
fn a_governed_socket_cannot_go_to_the_proxy_by_itself() -> Result<()> {
    let network = Network::new()?;
    let stage = Stage::new(&network)?;
    for address in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
        let to = SocketAddr::new(address, PORTS[0]);
        stage.probe(&format!("tcp {to}"))?.expect_refusal("connect", Errno::EPERM)?;
        stage.probe(&format!("udp {to} hello"))?.expect_refusal("sendto", Errno::EPERM)?;
    }
    ensure!(stage.reflector.arrivals().is_empty());
    Ok(())
}

#[test]
fn questions_of_a_socket_that_may_use_one_device_only_fail_at_once() -> Result<()> {
    let network = Network::new()?;
    let stage = Stage::new(&network)?;
    let server = SocketAddr::new(public_v4(1), 53);
    stage.probe(&format!("ask-on-device cable {server} hello"))?.expect_refusal("sendto", Errno::EPERM)?;
    ensure!(stage.governor.refusals(Reason::DeviceBound)? == 1);
    stage.probe(&format!("ask-on-device lo {server} hello"))?.expect_success()
}

#[test]
fn questions_fail_at_once_when_the_proxy_is_dead_and_another_program_has_its_port() -> Result<()> {
    let network = Network::new()?;
    let Stage { governor, reflector, .. } = Stage::new(&network)?;
    drop(reflector);
    let _datagrams = network.client.network.enter(|| UdpSocket::bind(("127.0.0.1", PORTS[0])))?;
    let _listener = network.client.network.enter(|| TcpListener::bind(("127.0.0.1", PORTS[0])))?;
    let server = SocketAddr::new(public_v4(1), 53);
    run(&network, &format!("ask {server} hello"))?.expect_refusal("sendto", Errno::EPERM)?;
    run(&network, &format!("ask-tcp {server} hello"))?.expect_refusal("connect", Errno::EPERM)?;
    ensure!(governor.refusals(Reason::NoResolver)? == 2);
    Ok(())
}

#[test]
fn a_connected_socket_is_cut_off_when_its_datagrams_would_reach_another_program() -> Result<()> {
    let network = Network::new()?;
    let stage = Stage::new(&network)?;
    let action = format!("keep-udp 20 {}", SocketAddr::new(public_v4(1), 53));
    let running = network.client.command(probe::program()?).arg(&action).start()?;
    until("some exchanges", SOON, || Ok((stage.reflector.arrivals().len() > 5).then_some(())))?;
    // The last to share a port gets what comes there.
    let other = network.client.network.enter(|| {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, PORTS[0])).into())?;
        Ok(UdpSocket::from(socket))
    })?;
    let finished = running.finish()?;
    report(&finished.stdout)?.expect_refusal("send", Errno::EPERM)?;
    other.set_nonblocking(true)?;
    ensure!(other.recv(&mut [0; 64]).is_err(), "another program got a question");
    Ok(())
}

#[test]
fn a_blocked_port_53_stays_blocked() -> Result<()> {
    let network = Network::new()?;
    let stage = Stage::under(&network, &compiled(&["53"])?)?;
    let server = SocketAddr::new(public_v4(1), 53);
    stage.probe(&format!("ask {server} hello"))?.expect_refusal("sendto", Errno::EPERM)?;
    stage.probe(&format!("ask-tcp {server} hello"))?.expect_refusal("connect", Errno::EPERM)
}

#[test]
fn a_workload_cannot_ask_as_another_from_a_port_that_they_share() -> Result<()> {
    let network = Network::new()?;
    let mut stage = Stage::new(&network)?;
    let other = Cgroup::new()?;
    stage.govern(&other, RUN_WORKLOAD + 1)?;
    let action = |seconds| format!("ask-shared-port {seconds} 127.0.0.1:4053 {}", SocketAddr::new(public_v4(1), 53));
    let running = network.client.command(probe::program()?).arg(action(60)).start()?;
    stage.until_asked()?.context("nobody is known to have asked")?;
    let enter = "echo 0 > \"$0/cgroup.procs\" && exec \"$@\"";
    let program = network.client.command("sh").args(["-c", enter]).arg(other.directory()).arg(probe::program()?);
    // The first cgroup lets the shell out, whose sockets are made in the other.
    let finished = program.arg(action(1)).finish()?;
    report(&finished.stdout)?.expect_refusal("sendto", Errno::EPERM)?;
    ensure!(stage.governor.refusals(Reason::SharedPort)? == 1);
    ensure!(stage.reflector.arrivals().len() == 1);
    drop(running);
    Ok(())
}

/// A governed client whose questions go to a reflector.
struct Stage<'network> {
    network: &'network Network,
    governor: Governor,
    reflector: Reflector,
}

impl<'network> Stage<'network> {
    fn new(network: &'network Network) -> Result<Self> {
        Self::under(network, &compiled(&[])?)
    }

    fn under(network: &'network Network, policy: &CompiledPolicy) -> Result<Self> {
        let mut governor = Governor::load(&Sizes::for_policies([policy], 0))?;
        governor.install(POLICY_SLOT, policy)?;
        let reflector = Reflector::new(&network.client.network, PORTS)?;
        governor.register(reflector.namespace()?, reflector.ports(), &reflector.sockets())?;
        let mut stage = Self { network, governor, reflector };
        stage.govern(&network.client.cgroup, RUN_WORKLOAD)?;
        Ok(stage)
    }

    fn govern(&mut self, cgroup: &Cgroup, workload: u32) -> Result<()> {
        let directory = cgroup.directory();
        let id = directory.metadata().context("read a cgroup")?.ino();
        self.governor.attach(directory)?;
        self.governor.bind(id, POLICY_SLOT, workload)
    }

    fn probe(&self, action: &str) -> Result<Report> {
        run(self.network, action)
    }

    /// Who asked last, once somebody has.
    fn until_asked(&self) -> Result<Option<Asker>> {
        until("a question", SOON, || Ok((!self.reflector.arrivals().is_empty()).then_some(())))?;
        self.asker()
    }

    fn asker(&self) -> Result<Option<Asker>> {
        let arrivals = self.reflector.arrivals();
        let last = arrivals.last().context("nothing arrived")?;
        self.governor.asker(self.reflector.namespace()?, last.protocol, last.source, last.port)
    }
}

fn run(network: &Network, action: &str) -> Result<Report> {
    let finished = network.client.command(probe::program()?).arg(action).finish()?;
    finished.expect_success()?;
    report(&finished.stdout)
}

fn report(stdout: &str) -> Result<Report> {
    let [report] = probe::reports(stdout)?.try_into().map_err(|all| anyhow::anyhow!("{all:?}"))?;
    Ok(report)
}

/// A policy that allows one address that nobody asks.
fn compiled(blocked: &[&str]) -> Result<CompiledPolicy> {
    let blocked: Vec<String> = blocked.iter().map(ToString::to_string).collect();
    let policy = policy::from_arguments(&["198.20.1.9".to_owned()], &blocked).context("parse the policy")?;
    Ok(compile(&policy, &Known::default())?)
}
