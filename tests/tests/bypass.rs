//! Every known way around is refused.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail, ensure};
use egress_tests::{
    cgroup,
    deadline::{SOON, until},
    egress::Egress,
    network::{DNS_V4, Network, public_v4, public_v6},
    policy, probe,
    servers::{dns::Dns, echo::Echo},
};
use nix::{errno::Errno, libc};

#[test]
fn sockets_of_other_kinds_are_refused() -> Result<()> {
    let network = Network::new()?;
    let kinds = [
        ("raw ICMP", libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP),
        ("raw with own headers", libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_RAW),
        ("raw ICMPv6", libc::AF_INET6, libc::SOCK_RAW, libc::IPPROTO_ICMPV6),
        ("raw UDP", libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_UDP),
        ("MPTCP", libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_MPTCP),
        ("UDP-Lite", libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_UDPLITE),
        ("SCTP", libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_SCTP),
        ("SCTP messages", libc::AF_INET6, libc::SOCK_SEQPACKET, libc::IPPROTO_SCTP),
    ];
    let actions = kinds.map(|(_, domain, kind, protocol)| format!("socket {domain} {kind} {protocol}"));
    let allow_all = policy::allowing(&["0.0.0.0/0", "::/0"], "");
    let outcome = Egress::under(&network.client, &allow_all)?.probe(&actions)?;
    // What the kernel does not know has that error, whoever asks.
    let free = network.client.command(probe::program()?).args(&actions).finish()?;
    for ((report, free), (what, ..)) in outcome.reports()?.iter().zip(probe::reports(&free.stdout)?).zip(kinds) {
        let expected = if free.errno == 0 { Errno::EPERM } else { Errno::from_raw(free.errno) };
        report.expect_refusal("socket", expected).context(what)?;
    }
    let refusals = outcome.refusals()?;
    ensure!(refusals.iter().filter(|event| event.reason == "socket_kind").count() >= 4, "{refusals:#?}");
    Ok(())
}

#[test]
fn what_is_for_loopback_never_leaves_by_a_device() -> Result<()> {
    let network = Network::new()?;
    let wire = network.watch()?;
    let actions = [
        ("off-loopback cable 127.0.0.1:9999 secret", "sendto", Errno::EPERM),
        ("off-loopback cable [::1]:9999 secret", "sendto", Errno::EPERM),
        ("off-loopback cable [2001:db8::53]:53 secret", "send", Errno::EPERM),
        ("off-loopback-tcp cable [::1]:9999 secret", "recv", Errno::EAGAIN),
    ];
    // Not even a rule for loopback means what is sent to others under its address.
    for allow in [policy::NOTHING, &["127.0.0.0/8", "::1"]] {
        let run = Egress::under(&network.client, &policy::allowing(allow, ""))?;
        let outcome = run.probe(&actions.map(|(action, ..)| action.to_owned()))?;
        for (report, (_, call, errno)) in outcome.reports()?.iter().zip(actions) {
            report.expect_refusal(call, errno)?;
        }
        ensure!(outcome.refusals()?.iter().filter(|event| event.reason == "device_bound").count() >= 4, "{outcome:?}");
    }
    wire.expect_no("secret")
}

#[test]
fn ordinary_sockets_can_be_made() -> Result<()> {
    let network = Network::new()?;
    let kinds = [
        (libc::AF_INET, libc::SOCK_STREAM, 0),
        (libc::AF_INET, libc::SOCK_DGRAM, 0),
        (libc::AF_INET6, libc::SOCK_STREAM, libc::IPPROTO_TCP),
        (libc::AF_INET6, libc::SOCK_DGRAM, libc::IPPROTO_UDP),
        (libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_ICMP),
        (libc::AF_UNIX, libc::SOCK_STREAM, 0),
        (libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE),
    ];
    let actions = kinds.map(|(domain, kind, protocol)| format!("socket {domain} {kind} {protocol}"));
    let run = Egress::under(&network.client, &policy::allowing(policy::NOTHING, ""))?;
    for report in run.probe(&actions)?.reports()? {
        report.expect_success()?;
    }
    Ok(())
}

#[test]
fn data_in_the_first_packet_does_not_leave() -> Result<()> {
    let network = Network::new()?;
    let wire = network.watch()?;
    for host in [public_v4(1), public_v6(1)] {
        let silent = Echo::tcp(&network.world, SocketAddr::new(host, 443))?;
        let run = Egress::under(&network.client, &policy::allowing(policy::NOTHING, ""))?;
        let outcome = run.probe(&[format!("fast-open {} secret", silent.address())])?;
        outcome.report()?.expect_refusal("sendto", Errno::EPERM)?;
        silent.expect_nothing()?;
        wire.expect_nothing_to(host)?;
    }
    Ok(())
}

#[test]
fn a_routing_header_does_not_lead_elsewhere() -> Result<()> {
    let network = Network::new()?;
    let (open, closed) = (public_v6(1), public_v6(2));
    let wire = network.watch()?;
    // Once the open host is named and the closed one comes first, once the other way round.
    for (via, to) in [(closed, open), (open, closed)] {
        let action = format!("routing-header {via} {} secret", SocketAddr::new(to, 5000));
        let free = network.client.command(probe::program()?).arg(&action).finish()?;
        let Some(free) = probe::reports(&free.stdout)?.pop() else { bail!("{free:?}") };
        let outcome = Egress::under(&network.client, &policy::allowing(&[open.to_string()], ""))?.probe(&[action])?;
        let report = outcome.report()?;
        ensure!(report.errno != 0, "{report:?}, but without a policy {free:?}");
        if free.errno == 0 {
            report.expect_refusal("sendto", Errno::EPERM)?;
            // The packet without a policy did leave: the observer sees this kind of packet.
            wire.expect_something_to(via)?;
        }
    }
    let with_mark = wire.frames()?.iter().filter(|frame| frame.contains(b"secret")).count();
    ensure!(with_mark <= 2, "{with_mark} packets left, and two of them had no policy");
    Ok(())
}

#[test]
fn multicast_and_broadcast_are_refused() -> Result<()> {
    let network = Network::new()?;
    let wire = network.watch()?;
    let actions = ["224.0.0.251:5353", "239.1.2.3:5000", "255.255.255.255:67", "[ff02::fb]:5353", "[ff05::2]:547"]
        .map(|to| format!("udp {to} secret"));
    let run = Egress::under(&network.client, &policy::allowing(&["0.0.0.0/0", "::/0"], ""))?;
    for report in run.probe(&actions)?.reports()? {
        report.expect_refusal("sendto", Errno::EPERM)?;
    }
    wire.expect_no("secret")
}

#[test]
fn a_name_server_is_no_way_out() -> Result<()> {
    let network = Network::new()?;
    let dns = Dns::start(&network.world, DNS_V4)?;
    dns.answer("api.example.com", 60, &[public_v4(1)])?;
    let other = Echo::udp(&network.world, SocketAddr::new(public_v4(9), 53))?;
    let port = Echo::tcp(&network.world, SocketAddr::new(DNS_V4, 80))?;
    let wire = network.watch()?;
    let run = Egress::under(&network.client, &policy::allowing(policy::NOTHING, ""))?;
    let actions = [
        "resolve api.example.com".to_owned(),
        format!("tcp {DNS_V4}:53 secret"),
        format!("udp {} secret", other.address()),
        format!("tcp {} secret", port.address()),
    ];
    let reports = run.probe(&actions)?.reports()?;
    ensure!(reports.iter().all(|report| report.errno != 0 && report.reply.is_empty()), "{reports:?}");
    let [.., other_port] = reports.as_slice() else { bail!("{reports:?}") };
    other_port.expect_refusal("connect", Errno::EPERM)?;
    ensure!(dns.questions("api.example.com")? == 0, "a question for a name that no rule allows went out");
    other.expect_nothing()?;
    port.expect_nothing()?;
    wire.expect_no("secret")
}

#[test]
fn a_socket_that_the_caller_opened_is_not_handed_on() -> Result<()> {
    let network = Network::new()?;
    let wire = network.watch()?;
    let open = "exec 9<>/dev/udp/198.20.1.1/9; exec \"$0\" \"$@\"";
    let probe = probe::program()?.display().to_string();
    let action = "inherited 9 secret";
    // Without `egress` the socket works, so the test would see it work.
    let free = network.client.command("bash").args(["-c", open, &probe, "inherited 9 open"]).finish()?;
    free.expect_success()?;
    wire.expect_no("open").map_or_else(|_| Ok(()), |()| bail!("bash opened no socket: {free:?}"))?;

    let run = Egress::under(&network.client, &policy::allowing(policy::NOTHING, ""))?.through(["bash", "-c", open]);
    run.probe(&[action])?.report()?.expect_refusal("send", Errno::EBADF)?;
    wire.expect_no("secret")
}

#[test]
fn an_ordinary_user_cannot_leave_its_cgroup() -> Result<()> {
    let network = Network::new()?;
    let silent = Echo::tcp(&network.world, SocketAddr::new(public_v4(1), 443))?;
    let probe = network.client.publish(&probe::program()?)?.display().to_string();
    let script = format!(
        "for up in \"$0\" \"$0$(sed -n s/^0:://p /proc/self/cgroup)/..\"; do
            echo $$ > $up/cgroup.procs
            mkdir $up/own
        done > /dev/null 2>&1
        exec '{probe}' 'tcp {} secret'",
        silent.address()
    );
    let run = Egress::under(&network.client, &policy::allowing(policy::NOTHING, ""))?;
    let point = cgroup::mount_point()?.display().to_string();
    let outcome = run.option("--user").option("nobody").run(["sh", "-c", &script, &point])?;
    outcome.expect_success()?;
    outcome.report()?.expect_refusal("connect", Errno::EPERM)?;
    silent.expect_nothing()
}

#[test]
fn the_sockets_of_name_services_are_hidden_from_the_command() -> Result<()> {
    let network = Network::new()?;
    let (probe, path) = (probe::program()?, "/run/nscd/socket");
    network.client.command("mkdir").arg("/run/nscd").finish()?.expect_success()?;
    let service = network.client.command(&probe).arg(format!("unix-listen 60 {path}")).start()?;
    until("the service", SOON, || Ok(service.stderr()?.contains("listening").then_some(())))?;
    let outcome =
        Egress::under(&network.client, &policy::allowing(policy::NOTHING, ""))?.probe(&[format!("unix {path}")])?;
    outcome.report()?.expect_refusal("connect", Errno::ECONNREFUSED)?;
    // Outside it is there.
    let outside = network.client.command(&probe).arg(format!("unix {path}")).finish()?;
    outside.expect_success()?;
    service.finish()?.expect_success()
}
