//! Ways around the proxy are closed.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use anyhow::{Context as _, Result, ensure};
use egress_tests::{
    command::Finished,
    deadline::{SOON, until},
    names::{API, ASKED, Names, Told, asking, script, told},
    network::{DNS_V4, public_v4, public_v6},
    policy, probe,
    servers::echo::Echo,
};
use nix::{errno::Errno, sys::signal::Signal};

#[test]
fn a_real_name_server_is_never_reached_by_the_workload() -> Result<()> {
    let names = Names::new()?;
    let wire = names.network.watch()?;
    let server = Echo::udp(&names.network.world, SocketAddr::new(public_v4(9), 53))?;
    let over_tcp = Echo::tcp(&names.network.world, SocketAddr::new(public_v6(9), 53))?;
    let to = [server.address(), over_tcp.address()];
    let actions =
        [format!("udp {} secret", to[0]), format!("udp-connected {} secret", to[0]), format!("tcp {} secret", to[1])];
    // Even where the address itself is allowed, a question is a question.
    for allow in [policy::NOTHING, &["198.20.1.9", "2c0f:fff0::1:9"]] {
        let outcome = names.under(&policy::allowing(allow, ""))?.probe(&actions)?;
        for report in outcome.reports()? {
            ensure!(report.reply != "secret", "{report:?}");
        }
    }
    server.expect_nothing()?;
    over_tcp.expect_nothing()?;
    wire.expect_no("secret")
}

#[test]
fn dns_over_tls_is_closed_unless_a_rule_opens_its_port() -> Result<()> {
    let names = Names::new()?;
    let server = Echo::tcp(&names.network.world, SocketAddr::new(public_v4(1), 853))?;
    let quic = Echo::udp(&names.network.world, SocketAddr::new(public_v4(1), 853))?;
    let actions = [format!("tcp {} hello", server.address()), format!("udp {} hello", quic.address())];
    for allow in ["198.20.1.2", "198.20.1.1:443", "0.0.0.0/0:53", "api.example.com:443", "*.example.com:53"] {
        let outcome = names.under(&policy::allowing(&[allow], ""))?.probe(&actions)?;
        for report in outcome.reports()? {
            ensure!(report.errno == Errno::EPERM as i32, "allow `{allow}`: {report:?}");
        }
    }
    server.expect_nothing()?;
    quic.expect_nothing()?;
    for allow in ["198.20.1.1:853", "api.example.com:853"] {
        let outcome = names.under(&policy::allowing(&[allow], ""))?.probe(&actions)?;
        for report in outcome.reports()? {
            report.expect_success().with_context(|| format!("allow `{allow}`"))?;
        }
    }
    Ok(())
}

#[test]
fn the_own_socket_of_the_proxy_answers_no_one_who_goes_to_it_directly() -> Result<()> {
    let names = Names::new()?;
    let outcome = names.under(&policy::allowing(&[API], ""))?.run(asking(&["listeners", API]))?;
    let all = told(&outcome)?;
    let (end, found) = all.split_last().context("nothing told")?;
    ensure!(end.asked == u64::try_from(found.len())? && end.asked >= 2, "no socket was found: {all:?}");
    for told in found {
        ensure!(told.code.is_none(), "{told:?}");
    }
    Ok(())
}

#[test]
fn a_process_that_is_not_governed_gets_no_answer_from_the_proxy() -> Result<()> {
    let names = Names::new()?;
    let mut governed = names.under(&policy::allowing(&[API], ""))?.start(["sh", "-c", "echo ready; exec sleep 60"])?;
    governed.running.until_printed("ready")?;
    let finished = names.network.client.command("env").args(asking(&["listeners", API])).finish()?;
    let all = lines(&finished)?;
    let (end, found) = all.split_last().context("nothing told")?;
    ensure!(end.asked >= 2, "no socket was found: {all:?}");
    for told in found {
        ensure!(told.code.is_none(), "{told:?}");
    }
    Ok(())
}

#[test]
fn a_process_that_is_not_governed_asks_its_name_server_as_before() -> Result<()> {
    let names = Names::new()?;
    names.network.client.ask(&[DNS_V4])?;
    let mut governed =
        names.under(&policy::allowing(policy::NOTHING, ""))?.start(["sh", "-c", "echo ready; exec sleep 60"])?;
    governed.running.until_printed("ready")?;
    let words = asking(&["udp", &DNS_V4.to_string(), API]);
    let finished = names.network.client.command("env").args(words).finish()?;
    lines(&finished)?.first().context("nothing told")?.expect_addresses(&[public_v4(1)])
}

#[test]
fn a_workload_cannot_be_another_by_taking_its_port() -> Result<()> {
    // Both run in one network namespace; the second is allowed nothing, and asks from the port that the first used.
    let names = Names::new()?;
    let text = "import socket, sys
sys.argv[0:1] = []
sys.path.insert(0, sys.argv[0].rsplit('/', 1)[0])
import ask
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
client.bind(('0.0.0.0', 40053))
client.settimeout(5)
client.sendto(ask.question('api.example.com'), ('203.0.113.53', 53))
ask.tell(**ask.read(client.recv(65535)))
";
    let source = asking(policy::NOTHING).pop().context("no `ask.py`")?;
    let words = || -> Vec<std::ffi::OsString> { vec!["python3".into(), "-c".into(), text.into(), source.clone()] };
    for (policy, is_allowed) in [(policy::allowing(&[API], ""), true), (policy::allowing(policy::NOTHING, ""), false)]
        .into_iter()
        .cycle()
        .take(6)
    {
        let all = told(&names.under(&policy)?.run(words())?)?;
        let told = all.first().context("nothing told")?;
        ensure!((told.code == Some(0)) == is_allowed, "{told:?}");
    }
    Ok(())
}

#[test]
fn when_the_proxy_is_dead_no_name_resolves_and_nothing_opens() -> Result<()> {
    let names = Names::new()?;
    let closed = Echo::tcp(&names.network.world, SocketAddr::new(public_v4(2), 7))?;
    let wire = names.network.watch()?;
    let log = names.network.client.directory().join("told");
    let probe = probe::program()?.display().to_string();
    // What is in a session of its own survives `egress`.
    let text = format!(
        "log='{}'; export log; setsid sh -c '\"$@\" > \"$log\"; \"{probe}\" \"tcp {}\" >> \"$log\"' sh \"$@\" &
        until [ -s \"$log\" ]; do sleep 0.01; done; echo asked; wait",
        log.display(),
        closed.address()
    );
    let run = names.under(&policy::allowing(&["*.example.com"], ""))?;
    let mut governed = run.start(script(&text, &["until_dead", "203.0.113.53", API, "20"]))?;
    governed.running.until_printed("asked")?;
    governed.running.signal(Signal::SIGKILL)?;
    governed.finish()?.finished.expect_code(128 + 9)?;
    until("the end of the workload", SOON, || Ok(names.network.client.cgroup.processes()?.is_empty().then_some(())))?;
    let told = std::fs::read_to_string(&log).context("read what was told")?;
    let lines: Vec<&str> = told.lines().collect();
    let [alive, dead, connected] = lines.as_slice() else { anyhow::bail!("{told}") };
    serde_json::from_str::<Told>(alive).context("read what was told")?.expect_addresses(&[public_v4(1)])?;
    let dead: Told = serde_json::from_str(dead).context("read what was told")?;
    // At once: the error of the policy, not a wait for an answer.
    ensure!(dead.dead && dead.error == Some((Errno::EPERM as i32).into()) && dead.seconds < 0.3, "{dead:?}");
    let [connected] = probe::reports(connected)?.try_into().map_err(|all| anyhow::anyhow!("{all:?}"))?;
    connected.expect_refusal("connect", Errno::EPERM)?;
    closed.expect_nothing()?;
    wire.expect_nothing_to(ASKED)?;
    // The next run has a proxy of its own.
    let next = names.ask_once(&policy::allowing(&["*.example.com"], ""), &["udp", "203.0.113.53", API])?;
    next.expect_addresses(&[public_v4(1)])
}

#[test]
fn an_answer_forged_on_loopback_is_not_believed() -> Result<()> {
    let names = Names::new()?;
    // The machine's own server on port 53 of loopback is not who answers, and what it would say opens nothing.
    let own = names.network.client.network.enter(|| UdpSocket::bind("127.0.0.1:53"))?;
    own.set_nonblocking(true).context("make a socket non-blocking")?;
    let told = names.ask_once(&policy::allowing(&[API], ""), &["udp", "127.0.0.1", API])?;
    told.expect_addresses(&[public_v4(1)])?;
    ensure!(own.recv_from(&mut [0; 512]).is_err(), "the question went to the server on loopback");
    Ok(())
}

#[test]
fn an_allowed_name_opens_its_own_ports_only() -> Result<()> {
    let names = Names::new()?;
    let probe = probe::program()?.display().to_string();
    let to = |port: u16| SocketAddr::new(IpAddr::from([198, 20, 1, 1]), port);
    let open = Echo::tcp(&names.network.world, to(443))?;
    let closed = Echo::tcp(&names.network.world, to(8443))?;
    let text = format!("\"$@\" > /dev/null; exec '{probe}' 'tcp {} hello' 'tcp {} hello'", to(443), to(8443));
    let run = names.under(&policy::allowing(&["*.example.com:443"], ""))?;
    let outcome = run.run(script(&text, &["udp", "203.0.113.53", API]))?;
    let reports = outcome.reports()?;
    let [allowed, refused] = reports.as_slice() else { anyhow::bail!("{outcome:?}") };
    allowed.expect_success()?;
    refused.expect_refusal("connect", Errno::EPERM)?;
    open.until_received("hello")?;
    closed.expect_nothing()
}

fn lines(finished: &Finished) -> Result<Vec<Told>> {
    finished.expect_success()?;
    finished.stdout.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
}
