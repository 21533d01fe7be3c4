//! What a run has made on this machine, and how it is removed: also when something fails half way.

use std::path::Path;

use anyhow::{Context as _, ensure};
use egress_common::Protocol;

use crate::{
    cgroup::Cgroup,
    compile::CompiledPolicy,
    dns::{
        proxy::Source,
        question::{Asker, Transport},
    },
    kernel::{self, Governor, POLICY_SLOT, RUN_WORKLOAD, Sizes},
    probe::Probe,
    runs::{Run, State},
};

/// The cgroup, the programs and maps that govern it, and the files of the run.
#[derive(Debug)]
pub(super) struct Session {
    run: Run,
    cgroup: Option<Cgroup>,
    governor: Option<Governor>,
    is_over: bool,
}

impl Session {
    /// Makes the files of the run, so that whatever comes after is found if this process is killed.
    pub(super) fn create(state: State) -> anyhow::Result<Self> {
        Ok(Self { run: Run::create(state)?, cgroup: None, governor: None, is_over: false })
    }

    /// Makes the cgroup for the user, shows that it is governed, and gives it the policy. There is no process of the
    /// command in it yet. There is room for as many addresses of names as this.
    pub(super) fn govern(&mut self, uid: u32, compiled: &CompiledPolicy, names: u32) -> anyhow::Result<()> {
        let probe = Probe::new()?;
        let governor = self.governor.insert(Governor::load(&Sizes::for_policies([compiled, probe.policy()], names))?);
        let cgroup = self.cgroup.insert(Cgroup::create(&self.run.cgroup_name(), uid)?);
        self.run.note_cgroup(cgroup.path())?;
        governor.attach(cgroup.directory())?;
        governor.pin(&self.run.pins())?;
        probe.prove(governor, cgroup)?;
        governor.install(POLICY_SLOT, compiled)?;
        governor.bind(cgroup.id(), POLICY_SLOT, RUN_WORKLOAD)
    }

    pub(super) fn directory(&self) -> &Path {
        self.run.directory()
    }

    pub(super) fn cgroup(&self) -> anyhow::Result<&Cgroup> {
        self.cgroup.as_ref().context("the run has no cgroup")
    }

    pub(super) fn governor(&mut self) -> anyhow::Result<&mut Governor> {
        self.governor.as_mut().context("the run has no programs")
    }

    /// Who of those that are governed sent what came from there. Nobody, too, when the kernel cannot say.
    pub(super) fn asker(&self, source: &Source) -> Option<Asker> {
        let Source { namespace, transport, client, local_port } = *source;
        let protocol = match transport {
            Transport::Udp => Protocol::Udp,
            Transport::Tcp => Protocol::Tcp,
        };
        let asker = self.governor.as_ref()?.asker(namespace, protocol, client, local_port);
        asker.unwrap_or_else(|error| {
            tracing::warn!(%error, "ask the kernel whose question about a name it is");
            None
        })
    }

    /// Kills everything in the cgroup.
    pub(super) fn stop(&self) -> anyhow::Result<()> {
        let Some(cgroup) = &self.cgroup else { return Ok(()) };
        ensure!(cgroup.kill_all()?, "processes in cgroup `{}` do not die", cgroup.path().display());
        Ok(())
    }

    /// Removes everything that the run has made. What still lives stays governed, and is left to `egress detach`.
    pub(super) fn end(&mut self) -> anyhow::Result<()> {
        self.is_over = true;
        let ended = self.stop().and_then(|()| self.remove());
        if ended.is_err() {
            self.run.keep();
        }
        ended.with_context(|| format!("remove what the run made; try again with `egress detach {}`", self.run.id()))
    }

    fn remove(&mut self) -> anyhow::Result<()> {
        if let Some(cgroup) = self.cgroup.take() {
            cgroup.remove()?;
        }
        self.governor = None;
        kernel::remove_pins(&self.run.pins())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if !self.is_over
            && let Err(error) = self.end()
        {
            crate::commands::print_error(&error);
        }
    }
}
