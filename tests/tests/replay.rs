//! The loaded programs decide as the policy says: random policies and flows, and packets out of the ordinary, run over
//! the real egress program (`BPF_PROG_TEST_RUN`).

use anyhow::{Context as _, Result, ensure};
use egress_common::{
    Decision, Protocol, Reason, Verdict,
    event::{Event, Kind},
};
use egress_tests::frame;
use egress_user::{
    compile::compile,
    kernel::{Events, Governor, Sizes},
    policy::{self, Flow, Known, Mode, Policy},
    testing::{Case, cases},
};
use nix::time::{ClockId, clock_gettime};
use proptest::{
    strategy::{Strategy as _, ValueTree as _},
    test_runner::TestRunner,
};

/// Random cases; each has 64 flows. The loop over user space's half runs many more.
const CASES: usize = 150;

#[test]
fn the_kernel_decides_random_flows_as_the_policy_does() -> Result<()> {
    let mut kernel = Kernel::load()?;
    let mut runner = TestRunner::deterministic();
    let (mut allowed, mut refused) = (0, 0);
    for _ in 0..CASES {
        let case = cases().new_tree(&mut runner).unwrap().current();
        let case = at_this_time(case)?;
        let expected: Vec<Decision> =
            case.flows.iter().map(|flow| case.policy.allows(flow, &case.known, case.now_seconds)).collect();
        let found = kernel.decide(&case.policy, &case.known, &case.flows)?;
        for ((flow, expected), found) in case.flows.iter().zip(expected).zip(found) {
            ensure!(
                found == expected,
                "{flow:?} under {:#?} {:?}: {found:?}, not {expected:?}",
                case.policy,
                case.known
            );
            *(if found.verdict == Verdict::Allow { &mut allowed } else { &mut refused }) += 1;
        }
    }
    ensure!(allowed > CASES && refused > CASES, "{allowed} allowed and {refused} refused flows test nothing");
    Ok(())
}

#[test]
fn a_policy_with_a_hundred_thousand_networks_and_addresses_decides_right_at_its_edges() -> Result<()> {
    // Every second /24 of 60.0.0.0 and up, and every second address of 100.0.0.0/15 and up.
    let network = |index: u32| std::net::Ipv4Addr::from(0x3c00_0000 + (index << 9));
    let address = |index: u32| std::net::Ipv4Addr::from(0x6600_0000 + (index << 1));
    let rules: Vec<String> = (0..100_000)
        .flat_map(|index| [format!("{}/24:443/tcp", network(index)), format!("{}:8443/udp", address(index))])
        .collect();
    let policy = policy::from_arguments(&rules, &["8443/tcp".to_owned()]).context("parse the policy")?;
    let flow = |protocol, destination: u32, port| Flow {
        protocol,
        destination: std::net::Ipv4Addr::from(destination).into(),
        port,
    };
    let mut flows = Vec::new();
    for index in [0, 1, 49_999, 99_998, 99_999] {
        let (network, address) = (u32::from(network(index)), u32::from(address(index)));
        for destination in [network - 1, network, network + 255, network + 256] {
            flows.push((flow(Protocol::Tcp, destination, 443), (network..=network + 255).contains(&destination)));
            flows.push((flow(Protocol::Tcp, destination, 80), false));
        }
        for destination in [address - 1, address, address + 1] {
            flows.push((flow(Protocol::Udp, destination, 8443), destination == address));
            flows.push((flow(Protocol::Tcp, destination, 8443), false));
        }
    }
    let mut kernel = Kernel::load()?;
    let asked: Vec<Flow> = flows.iter().map(|(flow, _)| *flow).collect();
    let found = kernel.decide(&policy, &Known::default(), &asked)?;
    for ((flow, expected), found) in flows.iter().zip(found) {
        ensure!((found.verdict == Verdict::Allow) == *expected, "{flow:?}: {found:?}");
    }
    Ok(())
}

#[test]
fn a_packet_out_of_the_ordinary_is_refused_with_its_reason() -> Result<()> {
    let policy = policy::from_arguments(&["198.20.1.1".to_owned(), "2c0f:fff0::1".to_owned()], &[])?;
    let flow =
        |destination: &str| Flow { protocol: Protocol::Tcp, destination: destination.parse().unwrap(), port: 443 };
    let (v4, v6) = (frame::first_of(&flow("198.20.1.1")), frame::first_of(&flow("2c0f:fff0::1")));
    let mut kernel = Kernel::load()?;
    kernel.install(&policy)?;
    ensure!(kernel.run(&v4)?.0 && kernel.run(&v6)?.0, "the packets as they are do not pass");

    let jumbo = |next_header| {
        let mut frame = v6.clone();
        // No length, hop-by-hop options: a jumbo payload, then the next header.
        frame[18..21].copy_from_slice(&[0, 0, 0]);
        frame.splice(54..54, [next_header, 0, 0xc2, 4, 0, 1, 0x80, 0]);
        frame
    };
    ensure!(kernel.run(&jumbo(6))?.0, "a TCP segment above 64 KiB does not pass");
    let changed = |frame: &[u8], offset: usize, value: u8| {
        let mut frame = frame.to_vec();
        frame[offset] = value;
        frame
    };
    for (what, frame, reason) in [
        ("IPv4 options", changed(&v4, 14, 0x46), Reason::IpOptions),
        ("a header of 16 bytes", changed(&v4, 14, 0x44), Reason::Malformed),
        ("version 6 in an IPv4 frame", changed(&v4, 14, 0x65), Reason::Malformed),
        ("version 4 in an IPv6 frame", changed(&v6, 14, 0x45), Reason::Malformed),
        ("a first fragment", changed(&v4, 20, 0x20), Reason::Fragment),
        ("a later fragment", changed(&v4, 21, 0x01), Reason::Fragment),
        ("an IPv6 fragment", changed(&v6, 20, 44), Reason::Fragment),
        ("a routing header", changed(&v6, 20, 43), Reason::ExtensionHeader),
        ("hop-by-hop options", changed(&v6, 20, 0), Reason::ExtensionHeader),
        ("destination options", changed(&v6, 20, 60), Reason::ExtensionHeader),
        ("a jumbo payload of UDP", jumbo(17), Reason::ExtensionHeader),
        ("IP in IP", changed(&v4, 23, 4), Reason::Protocol),
        ("SCTP", changed(&v4, 23, 132), Reason::Protocol),
        ("UDP-Lite", changed(&v4, 23, 136), Reason::Protocol),
        ("IPv6 in IPv6", changed(&v6, 20, 41), Reason::Protocol),
        ("a header that is cut", v4[..14 + 20 + 12].to_vec(), Reason::Malformed),
        ("ARP", changed(&v4, 13, 0x06), Reason::Protocol),
    ] {
        let before = kernel.governor.refusals(reason)?;
        let (passed, events) = kernel.run(&frame)?;
        ensure!(!passed, "{what} passed");
        let [event] = events[..] else { anyhow::bail!("{what}: {events:?}") };
        ensure!(event.reason == reason.wire(), "{what}: {:?}", Reason::from_wire(event.reason));
        ensure!(kernel.governor.refusals(reason)? == before + 1, "{what} was not counted");
    }
    Ok(())
}

#[test]
fn a_slot_without_a_policy_refuses_everything() -> Result<()> {
    let mut kernel = Kernel::load()?;
    let flow = Flow { protocol: Protocol::Udp, destination: "198.20.1.1".parse()?, port: 53 };
    let (passed, events) = kernel.run(&frame::first_of(&flow))?;
    ensure!(!passed && events[0].reason == Reason::Unbound.wire(), "{events:?}");
    Ok(())
}

#[test]
fn nothing_of_a_policy_that_did_not_fit_is_in_the_one_that_comes_next() -> Result<()> {
    let sizes = Sizes { addresses_v4: 4, addresses_v6: 1, networks_v4: 64, networks_v6: 64, port_sets: 64 };
    let governor = Governor::load(&sizes)?;
    let mut kernel = Kernel::of(governor)?;
    let addresses: Vec<String> = (1..=16).map(|host| format!("198.20.1.{host}")).collect();
    let error = kernel.install(&policy::from_arguments(&addresses, &[])?).err().context("16 addresses fit into 4")?;
    ensure!(format!("{error:#}").contains("write the allowed addresses"), "{error:#}");

    kernel.install(&policy::from_arguments(&["198.20.2.1".to_owned()], &[])?)?;
    for (destination, expected) in
        addresses.iter().map(|address| (address.as_str(), false)).chain([("198.20.2.1", true)])
    {
        let flow = Flow { protocol: Protocol::Udp, destination: destination.parse()?, port: 53 };
        let (passed, _) = kernel.run(&frame::first_of(&flow))?;
        ensure!(passed == expected, "{destination}: passed {passed}");
    }
    Ok(())
}

/// The loaded programs, with room for the largest of these policies.
struct Kernel {
    governor: Governor,
    events: Events,
}

impl Kernel {
    fn load() -> Result<Self> {
        let sizes = Sizes {
            addresses_v4: 1 << 18,
            addresses_v6: 1 << 10,
            networks_v4: 1 << 17,
            networks_v6: 1 << 10,
            port_sets: 1 << 10,
        };
        Self::of(Governor::load(&sizes)?)
    }

    fn of(mut governor: Governor) -> Result<Self> {
        let events = governor.events()?;
        Ok(Self { governor, events })
    }

    /// Fills slot 0, which a program without a cgroup looks at.
    fn install(&mut self, policy: &Policy) -> Result<()> {
        self.governor.install(0, &compile(policy, &Known::default())?)
    }

    fn decide(&mut self, policy: &Policy, known: &Known, flows: &[Flow]) -> Result<Vec<Decision>> {
        let compiled = compile(policy, known)?;
        self.governor.install(0, &compiled)?;
        let decisions = flows.iter().map(|flow| self.decision(policy, flow)).collect();
        self.governor.remove(0, &compiled)?;
        decisions
    }

    /// The decision as the verdict on the packet and the record of it tell.
    fn decision(&mut self, policy: &Policy, flow: &Flow) -> Result<Decision> {
        let (passed, events) = self.run(&frame::first_of(flow))?;
        let first = events.first().with_context(|| format!("{flow:?} left no record"))?;
        let is_refusal = first.kind == Kind::Refusal as u8;
        ensure!(passed == (!is_refusal || policy.mode == Mode::Audit), "{flow:?}: passed {passed}, recorded {first:?}");
        let reason = Reason::from_wire(first.reason).context("an unknown reason")?;
        Ok(if is_refusal { Decision::deny(reason) } else { Decision::allow(reason) })
    }

    fn run(&mut self, frame: &[u8]) -> Result<(bool, Vec<Event>)> {
        let (passed, _) = self.governor.try_packet(frame, 1)?;
        let mut events = Vec::new();
        self.events.drain(|event| events.push(*event));
        Ok((passed, events))
    }
}

/// The case with its times moved to the kernel's, an hour and more around now.
fn at_this_time(mut case: Case) -> Result<Case> {
    let now = u32::try_from(clock_gettime(ClockId::CLOCK_BOOTTIME)?.tv_sec())?;
    let then = case.now_seconds;
    // What is a second apart in the case is an hour apart here, so that the clock may run on meanwhile.
    let moved = |second: u32| (i64::from(now) + (i64::from(second) - i64::from(then)) * 3600).max(1);
    for expiry in case.known.addresses.values_mut().flat_map(|addresses| addresses.values_mut()) {
        if *expiry != 0 {
            *expiry = u32::try_from(moved(*expiry))?;
        }
    }
    case.now_seconds = now;
    Ok(case)
}
