//! `egress run`.

use std::{
    ffi::OsString,
    io::{IsTerminal as _, Write as _},
    path::PathBuf,
};

use anyhow::{Context as _, anyhow};
use clap::builder::FalseyValueParser;
use nix::{sys::signal::SigSet, unistd::Uid};

use self::{
    descriptors::FileLimit,
    identity::{Identity, Wish},
    lookups::Lookups,
    namespaces::Namespaces,
    session::Session,
    signals::Held,
    sinks::{EventsFile, RefusalsFile},
    spawn::{NotStarted, Start},
    supervise::{Governed, Supervisor, Unresolved},
    table::Style,
};
use super::{Failure, OK, USAGE, name_servers, say};
use crate::{
    cgroup,
    dns::{proxy::Proxy, upstream::Upstream},
    engine::{self, Engine, Recording},
    flow::record::rfc3339,
    kernel::{self, preflight::Check},
    policy::{self, NameServer, Policy},
    runs::{self, State},
};

mod clock;
mod descriptors;
mod identity;
mod lookups;
mod namespaces;
mod readable;
mod report;
mod session;
mod signals;
mod sinks;
mod spawn;
mod supervise;
mod table;

/// Exit code of a failure of our own, wrong usage included, as env(1) has it: 2 is the command's.
pub const OWN_FAILURE: u8 = 125;
/// Exit code of a command that cannot be executed, as env(1) has it.
const NOT_EXECUTABLE: u8 = 126;
/// Exit code of a command that is not there, as env(1) has it.
const NOT_FOUND: u8 = 127;

/// Runs a command under a policy that the kernel enforces.
///
/// Ends with the command's own exit code, or 128 and the number of the signal that ended it; 125 when egress itself
/// fails, which a policy with problems is, 126 when the command cannot be executed, 127 when it is not there.
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "egress run (--policy FILE | --allow DESTINATION… [--block-port PORT…]) [OPTIONS] -- COMMAND…"
)]
pub struct Args {
    /// The policy [env: `EGRESS_POLICY`, if no rules are given here]
    #[arg(long, value_name = "FILE", conflicts_with_all = ["allow", "block_port"])]
    policy: Option<PathBuf>,
    /// What the command may reach, such as `api.example.com:443` or `10.0.0.0/8`; may be repeated
    #[arg(long, value_name = "DESTINATION")]
    allow: Vec<String>,
    /// A port that the command may not reach wherever it is, such as `22` or `5432/tcp`; may be repeated
    #[arg(long, value_name = "PORT")]
    block_port: Vec<String>,
    /// Print the policy as a file, and run nothing
    #[arg(long)]
    print_policy: bool,
    /// Ask this name server instead of those of the policy and in /etc/resolv.conf, such as `192.0.2.53` or
    /// `tls://9.9.9.9#dns.quad9.net`; may be repeated
    #[arg(long, value_name = "SERVER", env = "EGRESS_RESOLVER", value_delimiter = ',', value_parser = NameServer::parse)]
    resolver: Vec<NameServer>,
    /// Write every event to this file, one JSON object per line
    #[arg(long, value_name = "FILE", env = "EGRESS_EVENTS")]
    events: Option<PathBuf>,
    /// Run the command as this user instead of the one who called sudo
    #[arg(long, value_name = "NAME", env = "EGRESS_USER")]
    user: Option<String>,
    /// Print no summary at the end
    #[arg(long, env = "EGRESS_QUIET", value_parser = FalseyValueParser::new())]
    quiet: bool,
    /// The command and its arguments
    #[arg(last = true, value_name = "COMMAND", required_unless_present = "print_policy")]
    command: Vec<OsString>,
}

/// Runs the command and returns its exit code.
pub fn run(args: Args) -> Result<u8, Failure> {
    let own = |error| Failure::new(OWN_FAILURE, error);
    let policy = read_policy(&args).map_err(|Failure { code: _, error }| own(error))?;
    if args.print_policy {
        return print_policy(&policy);
    }
    descriptors::seal().map_err(own)?;
    let files = FileLimit::raise().map_err(own)?;
    preflight().map_err(own)?;
    let held = Held::hold().map_err(own)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("start the runtime").map_err(own)?.block_on(govern(&args, policy, &held, files))
}

/// Everything between the policy and the exit code.
async fn govern(args: &Args, policy: Policy, held: &Held, files: FileLimit) -> Result<u8, Failure> {
    let own = |error| Failure::new(OWN_FAILURE, error);
    let identity = identity(args).map_err(own)?;
    let mut supervisor = supervisor(args, policy, held).map_err(own)?;
    match supervisor.resolve().await {
        Ok(()) => {}
        Err(Unresolved::Interrupted(signal)) => {
            let code = supervise::Ending::Signal(u8::try_from(signal as i32).unwrap_or(u8::MAX)).code();
            return Err(Failure::new(code, anyhow!("{signal} came before the command was started")));
        }
        Err(Unresolved::Failed(error)) => return Err(own(error)),
    }
    let mut session = prepare(args, identity.as_ref(), &mut supervisor).map_err(own)?;
    let start = Inherited { identity, signals: held.original, files };
    let ending = supervised(args, start, &mut supervisor, &mut session).await;
    let ended = session.end();
    let code = ending?;
    ended.map_err(own)?;
    Ok(code)
}

/// Makes the cgroup and governs it.
fn prepare(args: &Args, identity: Option<&Identity>, supervisor: &mut Supervisor) -> anyhow::Result<Session> {
    let now = clock::now()?;
    let command = args.command.first().map(|command| command.to_string_lossy().into_owned()).unwrap_or_default();
    let policy = supervisor.engine.policy().name.to_string();
    let state = State {
        pid: std::process::id(),
        started: rfc3339(now.wall),
        policy,
        command,
        cgroup: None,
        cgroup_namespace: Some(runs::cgroup_namespace()?),
    };
    let mut session = Session::create(state)?;
    let uid = identity.map_or(Uid::current(), |identity| identity.uid);
    let names = supervisor.engine.policy().dns.addresses.total;
    let compiled = supervisor.engine.begin(clock::now()?)?;
    session.govern(uid.as_raw(), compiled, names)?;
    supervisor.engine.name_cgroup(session.cgroup()?.path().display().to_string());
    Ok(session)
}

/// What the command gets that this process does not have itself.
struct Inherited {
    identity: Option<Identity>,
    signals: SigSet,
    files: FileLimit,
}

/// Starts the command and stays until it and everything it started has ended.
async fn supervised(
    args: &Args,
    inherited: Inherited,
    supervisor: &mut Supervisor,
    session: &mut Session,
) -> Result<u8, Failure> {
    let own = |error| Failure::new(OWN_FAILURE, error);
    let directory = session.directory().to_path_buf();
    let refusals_file = RefusalsFile::create(&directory).map_err(own)?;
    let events = session.governor().and_then(kernel::Governor::events).map_err(own)?;
    let namespaces = Namespaces::begin(&mut supervisor.proxy, session).map_err(own)?;
    let Inherited { identity, signals, files } = inherited;
    let start = Start {
        command: &args.command,
        door: session.cgroup().and_then(cgroup::Cgroup::door).map_err(own)?,
        read_only: &directory,
        refusals: refusals_file.path(),
        identity,
        signals,
        files,
    };
    let mut child = spawn::start(start).map_err(|error| not_started(error, &args.command))?;
    let mut governed = Governed { session, events, refusals_file, namespaces };
    let ending = supervisor.stand_by(&mut governed, &mut child).await;
    let stopped = governed.session.stop();
    supervisor.drain(&mut governed).map_err(own)?;
    if !args.quiet {
        let losses = supervisor.losses(&mut governed).map_err(own)?;
        print_summary(&report::summary(&supervisor.engine, losses, style()));
    }
    let code = ending.map_err(own)?.code();
    stopped.map_err(own)?;
    Ok(code)
}

fn supervisor(args: &Args, policy: Policy, held: &Held) -> anyhow::Result<Supervisor> {
    let upstream = Upstream::new(&name_servers::choose(&args.resolver, &policy))?;
    let recording = if args.events.is_some() { Recording::Events } else { Recording::Refusals };
    Ok(Supervisor {
        lookups: Lookups::new(upstream, engine::exact_names(&policy)),
        proxy: Proxy::default(),
        // The command asks whomever it likes, and the kernel leads it to the proxy.
        engine: Engine::new(policy, recording),
        signals: held.watch()?,
        events_file: args.events.as_deref().map(EventsFile::create).transpose()?,
        says: say,
    })
}

fn identity(args: &Args) -> anyhow::Result<Option<Identity>> {
    let [uid, gid] = ["SUDO_UID", "SUDO_GID"].map(|name| std::env::var(name).ok());
    identity::choose(Wish {
        user: args.user.as_deref(),
        is_root: Uid::effective().is_root(),
        sudo: uid.as_deref().zip(gid.as_deref()),
    })
}

/// Nothing is governed half: what is missing is told, and the command is not started.
fn preflight() -> anyhow::Result<()> {
    let missing: Vec<String> = kernel::preflight::machine()
        .into_iter()
        // The kernel's verifier explains itself on thousands of lines.
        .filter_map(|Check { name, outcome }| Some(format!("{name}: {}", outcome.err()?.lines().next()?)))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(anyhow!("this machine cannot govern the command: {}; `egress doctor` tells more", missing.join("; ")))
}

fn not_started(error: NotStarted, command: &[OsString]) -> Failure {
    let name = command.first().map(|command| command.to_string_lossy().into_owned()).unwrap_or_default();
    match error {
        NotStarted::NotFound => Failure::new(NOT_FOUND, anyhow!("there is no command `{}`", name.escape_debug())),
        NotStarted::NotExecutable(error) => Failure::new(
            NOT_EXECUTABLE,
            anyhow::Error::from(error).context(format!("execute `{}`", name.escape_debug())),
        ),
        NotStarted::Prepare(error) => {
            Failure::new(OWN_FAILURE, error.context(format!("start `{}`", name.escape_debug())))
        }
    }
}

fn read_policy(args: &Args) -> Result<Policy, Failure> {
    let has_rules = !args.allow.is_empty() || !args.block_port.is_empty();
    let file = args.policy.clone().or_else(|| {
        let named = std::env::var_os("EGRESS_POLICY").filter(|named| !named.is_empty() && !has_rules);
        named.map(PathBuf::from)
    });
    match file {
        Some(file) => super::policy::load(&file),
        None if has_rules => policy::from_arguments(&args.allow, &args.block_port)
            .map_err(|problems| Failure::new(USAGE, anyhow!("the policy has problems\n{problems}"))),
        None => Err(Failure::new(
            USAGE,
            anyhow!("no policy was given; name a file with `--policy`, or what may be reached with `--allow`"),
        )),
    }
}

fn print_policy(policy: &Policy) -> Result<u8, Failure> {
    let written = std::io::stdout().write_all(policy::show(policy).as_bytes());
    written.context("print the policy").map_err(|error| Failure::new(OWN_FAILURE, error))?;
    Ok(OK)
}

fn style() -> Style {
    let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) && std::io::stderr().is_terminal();
    if colour { Style::Colour } else { Style::Plain }
}

/// A closed stderr is nobody's fault and nobody's to hear about.
fn print_summary(text: &str) {
    let written = std::io::stderr().write_all(text.as_bytes());
    drop(written);
}
