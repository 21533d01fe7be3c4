//! The programs: where each is attached, and in which order.

use std::{fs::File, path::Path};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf, EbpfLoader,
    programs::{CgroupAttachMode, CgroupSkbAttachType, CgroupSockAddr, Program, ProgramError, links::FdLink},
};
use egress_common::limits::POLICY_SLOTS;

use super::{governor::Sizes, object::OBJECT};

/// Every program, in the order in which it is attached: the ones with the last word first, so that no moment exists in
/// which a call is let through that no packet hook would stop.
pub(super) const PROGRAMS: [&str; 14] = [
    "egress",
    "ingress",
    "sock_create",
    "sock_release",
    "connect4",
    "connect6",
    "sendmsg4",
    "sendmsg6",
    "bind4",
    "bind6",
    "recvmsg4",
    "recvmsg6",
    "getpeername4",
    "getpeername6",
];

/// Loads programs and maps, and says whether they can choose the errno of a refusal.
pub(super) fn load(sizes: &Sizes) -> Result<(Ebpf, bool)> {
    // Choosing the errno needs Linux 5.18. Trying is the only test that vendors' kernels cannot fool.
    match load_with(sizes, 1) {
        Ok(ebpf) => Ok((ebpf, true)),
        Err(first) => load_with(sizes, 0).map(|ebpf| (ebpf, false)).map_err(|_older| first),
    }
}

fn load_with(sizes: &Sizes, can_set_errno: u32) -> Result<Ebpf> {
    let mut loader = EbpfLoader::new();
    // The programs use only the stable interface, so the kernel's own types, which take long to read, are not needed.
    loader.btf(None);
    loader.override_global("CAN_SET_ERRNO", &can_set_errno, true);
    loader
        .map_max_entries("ADDRESSES_V4", sizes.addresses_v4)
        .map_max_entries("ADDRESSES_V6", sizes.addresses_v6)
        .map_max_entries("NETWORKS_V4", sizes.networks_v4)
        .map_max_entries("NETWORKS_V6", sizes.networks_v6)
        .map_max_entries("PORT_SETS", sizes.port_sets)
        .map_max_entries("POLICIES", POLICY_SLOTS)
        .map_max_entries("GENERATIONS", POLICY_SLOTS);
    let mut ebpf = loader.load(OBJECT).context("load the eBPF maps")?;

    for name in PROGRAMS {
        let program = ebpf.program_mut(name).with_context(|| format!("find eBPF program `{name}`"))?;
        load_program(program).with_context(|| format!("load eBPF program `{name}`"))?;
    }
    Ok(ebpf)
}

fn load_program(program: &mut Program) -> Result<(), ProgramError> {
    if let Program::CgroupSkb(program) = program {
        program.load()
    } else if let Program::CgroupSock(program) = program {
        program.load()
    } else {
        <&mut CgroupSockAddr>::try_from(program)?.load()
    }
}

/// Attaches a program to a cgroup.
pub(super) fn attach(ebpf: &mut Ebpf, name: &str, directory: &File, path: &Path) -> Result<FdLink> {
    let program = ebpf.program_mut(name).with_context(|| format!("find eBPF program `{name}`"))?;
    link(program, name, directory)
        .with_context(|| format!("attach eBPF program `{name}` to cgroup `{}`", path.display()))
}

/// A cgroup link always lets other programs run beside it; the mode that says so is refused by kernels from 5.7.
const MODE: CgroupAttachMode = CgroupAttachMode::Single;

fn link(program: &mut Program, name: &str, directory: &File) -> Result<FdLink> {
    if let Program::CgroupSkb(program) = program {
        let direction = if name == "ingress" { CgroupSkbAttachType::Ingress } else { CgroupSkbAttachType::Egress };
        let link = program.attach(directory, direction, MODE)?;
        Ok(program.take_link(link)?.try_into()?)
    } else if let Program::CgroupSock(program) = program {
        let link = program.attach(directory, MODE)?;
        Ok(program.take_link(link)?.try_into()?)
    } else {
        let program = <&mut CgroupSockAddr>::try_from(program)?;
        let link = program.attach(directory, MODE)?;
        Ok(program.take_link(link)?.try_into()?)
    }
}
