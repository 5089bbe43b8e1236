//! `ctwhy lab run vmnat` and the like: experiments told in acts. Each fact that a story rests on is measured while it is told.

mod capture;
mod compare;
mod ground;
mod hops;
mod owner;
mod pmtu;
mod silent_router;
mod stage;
mod verdicts;
mod vmnat;
mod web;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use ctwhy_conform::world::{Nat, Options, World};
use ctwhy_linux::{lab, netns, program};

use super::NO_LAB;
use crate::fixture::not_hidden;
use crate::report::style::{Palette, When};
use ground::Ground;
use stage::{Stage, Style};

/// `ctwhy lab run vmnat` and the like.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Exit codes: 0 all that the story rests on was observed, 1 something was not, 2 it could not run, \
                        4 skipped because this machine does not allow it."
)]
pub(crate) struct SceneArgs {
    /// Show all that the commands print
    #[arg(short, long)]
    verbose: bool,
    /// One JSON object per act on standard output and one at the end, the story on standard error
    #[arg(long)]
    json: bool,
    /// Keep the captures in this folder
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// When to use colour
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    color: When,
}

/// `ctwhy lab run pmtu`.
#[derive(Args, Clone, Debug)]
pub(crate) struct PmtuArgs {
    /// Bytes that the narrow link takes; with fewer than 1280 it has no IPv6
    #[arg(long, value_name = "BYTES", default_value_t = 1280, value_parser = clap::value_parser!(u16).range(600..1500))]
    pub(super) mtu: u16,
    #[command(flatten)]
    pub(super) scene: SceneArgs,
}

/// An experiment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scene {
    Vmnat,
    SilentRouter,
    /// With a link of so many bytes.
    Pmtu(u16),
}

impl Scene {
    const fn name(self) -> &'static str {
        match self {
            Scene::Vmnat => "vmnat",
            Scene::SilentRouter => "silent-router",
            Scene::Pmtu(_) => "pmtu",
        }
    }

    /// The NATs that it needs.
    const fn nats(self) -> &'static [Nat] {
        match self {
            Scene::Vmnat => &[Nat::ProxyDrop, Nat::ProxyRelay, Nat::NatTun, Nat::Kernel],
            Scene::SilentRouter => &[Nat::Kernel],
            Scene::Pmtu(_) => &[Nat::Kernel, Nat::NatTun, Nat::ProxyDrop],
        }
    }
}

/// Runs an experiment and tells it.
///
/// # Errors
/// What went wrong, in one line.
pub(super) fn run(scene: Scene, args: &SceneArgs) -> io::Result<ExitCode> {
    if let Some(folder) = &args.keep {
        not_hidden(folder).map_err(|failure| io::Error::other(failure.to_string()))?;
        std::fs::create_dir_all(folder)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", folder.display())))?;
    }
    if let Err(reason) = enter(scene) {
        eprintln!("ctwhy lab: skipped: {reason}");
        return Ok(ExitCode::from(NO_LAB));
    }
    let palette = if args.json { Palette::PLAIN } else { Palette::stdout(args.color) };
    let style = Style { json: args.json, verbose: args.verbose, keep: args.keep.clone(), palette };
    let mut stage = Stage::new(scene.name(), style);
    match scene {
        Scene::Vmnat => vmnat::tell(&mut stage)?,
        Scene::SilentRouter => silent_router::tell(&mut stage)?,
        Scene::Pmtu(mtu) => pmtu::tell(&mut stage, mtu.into())?,
    }
    stage.finish()
}

/// Moves this process to where it can watch the interfaces of a lab.
///
/// # Errors
/// Why the scene cannot be played here, in a sentence.
fn enter(scene: Scene) -> Result<(), String> {
    lab::probe().map_err(|reason| reason.to_string())?;
    for tool in ["traceroute", "ping", "ss"] {
        program::find(tool).map_err(|missing| missing.to_string())?;
    }
    if let Some((nat, reason)) = scene.nats().iter().find_map(|nat| Some((nat, nat.unavailable()?))) {
        return Err(format!("{nat}: {reason}"));
    }
    match netns::is_privileged() {
        true => Ok(()),
        false => netns::isolate().map_err(|error| format!("no namespaces: {error}")),
    }
}

/// Builds a lab with this NAT in it.
fn world(nat: Nat, options: &Options) -> io::Result<World> {
    World::start(nat, &std::env::current_exe()?, options)
}

/// What most people want of a network: a page of the server, and a datagram that is answered.
fn page(stage: &mut Stage, ground: &Ground<'_>) -> io::Result<()> {
    for family in ground.families.iter().copied() {
        let answer = web::get(ground.lab, ground.server(family)?, "", || Ok(()));
        let answer = answer.unwrap_or_else(|error| error.to_string());
        let loads = answer.ends_with("200 OK");
        let observation = ground.observation("page", "a page of the server loads", loads).family(family);
        stage.observe(observation.measured(&answer).fact("answer", answer));
        let answered = web::ask(ground.lab, ground.server(family)?);
        let (answered, words) = match answered {
            Ok(true) => (true, "as it was sent".to_owned()),
            Ok(false) => (false, "another".to_owned()),
            Err(error) => (false, error.to_string()),
        };
        let observation = ground.observation("question", "a datagram is answered", answered).family(family);
        stage.observe(observation.measured(words));
    }
    Ok(())
}
