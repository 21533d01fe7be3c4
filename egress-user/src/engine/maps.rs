//! What is in the kernel's maps, and the way from there to what should be.

use std::{collections::BTreeSet, net::IpAddr};

use crate::{
    compile::{self, Changes, CompileError, CompiledPolicy, Shortcut},
    dns::cache::Addresses,
    policy::{Known, Policy},
};

/// The entries of the policy as the kernel has them.
#[derive(Debug)]
pub(super) struct Maps {
    shortcut: Shortcut,
    in_force: Option<CompiledPolicy>,
    on_its_way: Option<OnItsWay>,
    /// Addresses that the kernel has not been told of, or did not take.
    behind: BTreeSet<IpAddr>,
    /// Whether there is a reason to tell it now.
    due: bool,
}

#[derive(Debug)]
struct OnItsWay {
    changes: Changes,
    addresses: BTreeSet<IpAddr>,
}

impl Maps {
    /// Nothing is in the kernel yet.
    pub(super) fn new(policy: &Policy) -> Self {
        Self { shortcut: Shortcut::new(policy), in_force: None, on_its_way: None, behind: BTreeSet::new(), due: false }
    }

    /// Compiles everything. It is in the kernel from now on.
    pub(super) fn begin(
        &mut self,
        policy: &Policy,
        addresses: &mut Addresses,
        now_seconds: u32,
    ) -> Result<&CompiledPolicy, CompileError> {
        let compiled = compile::compile(policy, &known(addresses, now_seconds))?;
        self.behind.clear();
        self.due = false;
        self.shortcut.forget_places();
        Ok(self.in_force.insert(compiled))
    }

    /// Whether there is a policy in the kernel.
    pub(super) fn has_begun(&self) -> bool {
        self.in_force.is_some()
    }

    /// Notes that what these addresses allow has changed.
    pub(super) fn change(&mut self, addresses: BTreeSet<IpAddr>) {
        self.due |= !addresses.is_empty();
        self.behind.extend(addresses);
    }

    /// Lets what the kernel did not take be tried again.
    pub(super) fn retry(&mut self) {
        self.due |= !self.behind.is_empty();
    }

    /// Whether the kernel may not have what the address allows.
    pub(super) fn is_behind(&self, address: IpAddr) -> bool {
        let is_on_its_way = self.on_its_way.as_ref().is_some_and(|on_its_way| on_its_way.addresses.contains(&address));
        is_on_its_way || self.behind.contains(&address)
    }

    /// The next change, if there is one to be made and none on its way. With an error come the addresses that stay behind.
    pub(super) fn next(
        &mut self,
        policy: &Policy,
        known: &mut Addresses,
        now_seconds: u32,
    ) -> Result<Option<Changes>, (CompileError, BTreeSet<IpAddr>)> {
        if !self.due || self.on_its_way.is_some() || self.in_force.is_none() {
            return Ok(None);
        }
        self.due = false;
        let addresses = std::mem::take(&mut self.behind);
        match self.changes(policy, known, &addresses, now_seconds) {
            Ok(changes) if changes.steps.is_empty() => Ok(None),
            Ok(changes) => {
                self.on_its_way = Some(OnItsWay { changes: changes.clone(), addresses });
                Ok(Some(changes))
            }
            Err(error) => {
                self.behind.clone_from(&addresses);
                Err((error, addresses))
            }
        }
    }

    /// Takes how a change went, and says which addresses the kernel did not take.
    pub(super) fn applied(&mut self, taken: usize, is_done: bool) -> BTreeSet<IpAddr> {
        let Some(OnItsWay { mut changes, mut addresses }) = self.on_its_way.take() else { return BTreeSet::new() };
        if is_done {
            addresses.clear();
        } else {
            // What the kernel has now is the start of the next change, which has what failed in it again.
            changes.steps.truncate(taken);
        }
        if let Some(in_force) = &mut self.in_force {
            changes.apply(in_force);
        }
        self.behind.extend(&addresses);
        addresses
    }

    fn changes(
        &mut self,
        policy: &Policy,
        all: &mut Addresses,
        addresses: &BTreeSet<IpAddr>,
        now_seconds: u32,
    ) -> Result<Changes, CompileError> {
        let Some(in_force) = &self.in_force else { return Ok(Changes::default()) };
        all.tell(addresses);
        let is_live = |(_, end): &(_, u32)| now_seconds < *end;
        let named = addresses.iter().map(|address| (*address, all.told_of(*address).filter(is_live)));
        if let Some(changes) = self.shortcut.changes(in_force, named) {
            return Ok(changes);
        }
        self.shortcut.forget_places();
        let compiled = compile::compile(policy, &known(all, now_seconds))?;
        Ok(compile::diff(in_force, compiled, now_seconds)?.changes)
    }
}

fn known(addresses: &mut Addresses, now_seconds: u32) -> Known {
    let mut known = Known { addresses: addresses.tell_all() };
    known.forget_expired(now_seconds);
    known
}
