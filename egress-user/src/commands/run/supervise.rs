//! The life of a run: one task that owns all state, from the first question about a name to the last event.

use std::{collections::VecDeque, os::unix::process::ExitStatusExt as _, process::ExitStatus, time::Duration};

use anyhow::Context as _;
use egress_common::{Reason, event::Event};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{process::Child, time::MissedTickBehavior};

use super::{
    clock,
    lookups::Lookups,
    namespaces::Namespaces,
    readable::Readable,
    report::Losses,
    session::Session,
    signals::{Arrival, Signals},
    sinks::{EventsFile, RefusalsFile},
};
use crate::{
    dns::proxy::{Arrival as Question, Proxy},
    engine::{Effect, Engine, Input},
    kernel::{Events, POLICY_SLOT},
};

/// Time between two readings of the ring buffer, which [`egress_common::limits::RING_BYTES`] is made for.
const TICK: Duration = Duration::from_millis(20);

/// Time that all names together get before the command starts. What has not resolved by then is asked for meanwhile.
const RESOLVE_DEADLINE: Duration = Duration::from_secs(10);

/// Everything that a run works with.
pub(super) struct Supervisor {
    pub(super) engine: Engine,
    pub(super) lookups: Lookups,
    pub(super) proxy: Proxy,
    pub(super) signals: Signals,
    pub(super) events_file: Option<EventsFile>,
    /// Whether warnings are shown on stderr.
    pub(super) says: fn(&str),
}

/// Why a run ended before its command began.
#[derive(Debug)]
pub(super) enum Unresolved {
    /// A signal came.
    Interrupted(Signal),
    /// Something failed.
    Failed(anyhow::Error),
}

/// What only a run whose cgroup is governed has.
pub(super) struct Governed<'a> {
    pub(super) session: &'a mut Session,
    pub(super) events: Events,
    pub(super) refusals_file: RefusalsFile,
    pub(super) namespaces: Namespaces,
}

/// How the command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Exit(u8),
    Signal(u8),
}

impl Ending {
    /// The exit code that tells it, as shells have it.
    pub(super) fn code(self) -> u8 {
        match self {
            Self::Exit(code) => code,
            Self::Signal(number) => number.saturating_add(128),
        }
    }

    fn of(status: ExitStatus) -> Self {
        let number = |number: i32| u8::try_from(number & 0xff).unwrap_or(u8::MAX);
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Exit(number(code)),
            (None, Some(signal)) => Self::Signal(number(signal)),
            (None, None) => Self::Exit(u8::MAX),
        }
    }
}

impl Supervisor {
    /// Asks for every name, and waits for the answers until the deadline.
    pub(super) async fn resolve(&mut self) -> Result<(), Unresolved> {
        let effects = self.engine.handle(Input::Tick, clock::now().map_err(Unresolved::Failed)?);
        self.perform_before(effects);
        let deadline = tokio::time::sleep(RESOLVE_DEADLINE);
        tokio::pin!(deadline);
        while !self.lookups.is_idle() {
            tokio::select! {
                (asked, outcome) = self.lookups.next() => {
                    let now = clock::now().map_err(Unresolved::Failed)?;
                    let effects = self.engine.handle(Input::Answered(&asked, &outcome), now);
                    self.perform_before(effects);
                }
                arrival = self.signals.next() => {
                    let signal = arrival.map_err(Unresolved::Failed)?.signal;
                    if signal != Signal::SIGWINCH {
                        return Err(Unresolved::Interrupted(signal));
                    }
                }
                () = &mut deadline => {
                    let missing: Vec<_> = self.engine.unresolved().map(|name| format!("`{name}`")).collect();
                    (self.says)(&format!(
                        "the command starts while {} not resolved yet: {}",
                        if missing.len() == 1 { "a name is" } else { "names are" },
                        missing.join(", "),
                    ));
                    break;
                }
            }
        }
        Ok(())
    }

    /// Stands by while the command runs.
    pub(super) async fn stand_by(&mut self, governed: &mut Governed<'_>, child: &mut Child) -> anyhow::Result<Ending> {
        let pid = Pid::from_raw(i32::try_from(child.id().context("the command has no process")?)?);
        let readable = Readable::watch(&governed.events)?;
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                status = child.wait() => return Ok(Ending::of(status.context("wait for the command")?)),
                arrival = self.signals.next() => pass_on(arrival?, pid, governed.session),
                woken = readable.wait() => {
                    woken?;
                    self.drain(governed)?;
                }
                _ = tick.tick() => {
                    self.drain(governed)?;
                    self.handle(Input::Tick, governed)?;
                    self.proxy.forget_late();
                    for news in governed.namespaces.tick(&mut self.proxy, governed.session) {
                        (self.says)(&news);
                    }
                }
                (asked, outcome) = self.lookups.next() => self.handle(Input::Answered(&asked, &outcome), governed)?,
                question = self.proxy.next(|source| governed.session.asker(source)) => {
                    let Question { ticket, asker, transport, message } = question;
                    self.handle(Input::Question(ticket, &asker, transport, &message), governed)?;
                }
            }
        }
    }

    /// Reads what the kernel half has told, and writes it down.
    pub(super) fn drain(&mut self, governed: &mut Governed<'_>) -> anyhow::Result<()> {
        let mut told: Vec<Event> = Vec::new();
        governed.events.drain(|event| {
            // The probe's events are not the command's.
            if event.policy == POLICY_SLOT {
                told.push(*event);
            }
        });
        for event in &told {
            if event.reason == Reason::NoResolver.wire() {
                for news in governed.namespaces.look_closely(event.pid, &mut self.proxy, governed.session) {
                    (self.says)(&news);
                }
            }
            self.handle(Input::Event(event), governed)?;
        }
        if let Some(Err(error)) = self.events_file.as_mut().map(EventsFile::flush) {
            self.give_up_events(&error);
        }
        Ok(())
    }

    /// What was lost on the way to the records.
    pub(super) fn losses(&self, governed: &mut Governed<'_>) -> anyhow::Result<Losses> {
        Ok(Losses {
            events: governed.session.governor()?.lost_events()?,
            unreadable: self.engine.unreadable_events(),
            messages: self.engine.unreadable_messages(),
            addresses: self.engine.addresses_not_added(),
            questions: self.proxy.unanswered(),
        })
    }

    fn handle(&mut self, input: Input<'_>, governed: &mut Governed<'_>) -> anyhow::Result<()> {
        let mut effects = VecDeque::from(self.engine.handle(input, clock::now()?));
        while let Some(effect) = effects.pop_front() {
            match effect {
                Effect::Ask(asked) => self.lookups.ask(asked),
                Effect::Reply(ticket, reply) => self.proxy.reply(ticket, reply.as_deref()),
                Effect::Apply(changes) => {
                    let (taken, outcome) = governed.session.governor()?.apply(POLICY_SLOT, &changes);
                    let outcome = outcome.map_err(|error| format!("{error:#}"));
                    effects.extend(self.engine.handle(Input::Applied(taken, outcome), clock::now()?));
                }
                Effect::Record(line) => self.record(&line),
                Effect::Refuse(line) => {
                    if let Err(error) = governed.refusals_file.write(&line) {
                        (self.says)(&format!("refusals are no longer written for the command: {error:#}"));
                    }
                }
                Effect::Tell(text) => (self.says)(&text),
            }
        }
        Ok(())
    }

    /// Effects before there is anything to change or to record.
    fn perform_before(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Ask(asked) => self.lookups.ask(asked),
                Effect::Tell(text) => (self.says)(&text),
                Effect::Apply(_) | Effect::Reply(_, _) | Effect::Record(_) | Effect::Refuse(_) => {}
            }
        }
    }

    fn record(&mut self, line: &str) {
        if let Some(Err(error)) = self.events_file.as_mut().map(|file| file.write(line)) {
            self.give_up_events(&error);
        }
    }

    /// A full disk stops the record, and not the command.
    fn give_up_events(&mut self, error: &anyhow::Error) {
        self.events_file = None;
        (self.says)(&format!("events are no longer recorded: {error:#}"));
    }
}

fn pass_on(arrival: Arrival, command: Pid, session: &Session) {
    let governed = || session.cgroup().and_then(crate::cgroup::Cgroup::pids).unwrap_or_default();
    if arrival.is_for_command(governed)
        && let Err(error) = kill(command, arrival.signal)
    {
        // It ended meanwhile.
        tracing::debug!(%error, signal = %arrival.signal, "pass a signal on");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_is_the_commands_own_or_128_and_the_signal() {
        for (raw, expected) in [(0, 0), (3 << 8, 3), (255 << 8, 255), (9, 137), (15, 143), (6 | 0x80, 134)] {
            assert_eq!(Ending::of(ExitStatus::from_raw(raw)).code(), expected, "{raw:#x}");
        }
    }
}
