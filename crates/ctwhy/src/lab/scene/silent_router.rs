//! `ctwhy lab run silent-router`: the other reason for stars. The NAT is honest, and the routers behind it say nothing.

use std::io;

use ctwhy_conform::world::{Nat, Options};
use ctwhy_core::tuple::L3;
use ctwhy_diagnose::verdict::Kind;

use super::capture::{Recorder, Seen};
use super::compare::{self, Both, Expected};
use super::ground::{FAMILIES, Ground};
use super::hops::{self, Hops, Method};
use super::stage::Stage;
use super::verdicts::{self, Diagnosis, Probed};
use super::{page, world};

const MAP: &str = "\
client ─────────── nat ───────────────── r1 ─────────────── r2 ─────────────── server
192.168.1.2        lan: 192.168.1.1      203.0.113.1        198.51.100.2       192.0.2.80
fd00:1::2          wan: 203.0.113.2      says nothing       says nothing       2001:db8:2::80
                   the kernel's NAT
";

/// What keeps a router silent.
const RULES: [(&str, &str); 2] = [
    ("iptables", "OUTPUT -p icmp --icmp-type time-exceeded -j DROP"),
    ("ip6tables", "OUTPUT -p icmpv6 --icmpv6-type time-exceeded -j DROP"),
];
const ROUTERS: [&str; 2] = ["r1", "r2"];

/// Tells the story.
pub(super) fn tell(stage: &mut Stage) -> io::Result<()> {
    let world = world(Nat::Kernel, &Options::default())?;
    let ground = Ground::of("silent-router", &world);
    ground.let_the_server_answer()?;
    stage.tell(&format!(
        "The other reason for stars: routers that say nothing, behind a NAT that hides nothing.\n\n{MAP}"
    ))?;
    for router in ROUTERS {
        for (tool, rule) in RULES {
            ground.must(router, &format!("{tool} -A {rule}"))?;
        }
    }
    let recorder = Recorder::start(&ground)?;
    stage.act("What the user sees: stars, though the page loads")?;
    hops::all(stage, &ground, &[Method::Udp, Method::Echo], true, |family, _| {
        let nat = ground.address("nat", "lan", family)?;
        Ok(("stars where the routers are", vec![Some(nat), None, None, Some(ground.server(family)?)]))
    })?;
    page(stage, &ground)?;
    ground.last_pings()?;
    let captures = recorder.stop(stage.style().keep.as_deref())?;

    stage.act("Two captures, before and behind the NAT: there was nothing to swallow")?;
    let both = Both::of(&captures);
    errors(stage, &ground, &both)?;
    stage.tell(
        "No router said anything, so the NAT had nothing to hide. What did come, the server's port unreachable,\n\
         is at both sides. And the packets outside are the client's own, with another address and one hop older:",
    )?;
    for family in FAMILIES {
        compare::observe(stage, &ground, &both, family, Expected::Kept)?;
    }

    stage.act("`ctwhy diagnose` finds nothing amiss")?;
    let expected = Diagnosis { kind: Kind::PacketNat, swallows: false };
    verdicts::diagnosed(stage, &ground, &captures, &expected)?;

    stage.act("`ctwhy probe` tells it from inside alone")?;
    let silent = Probed {
        found: &["errors.come_through", "routers.silent"],
        not_found: &["errors.none", "errors.first_hop_only", "errors.swallowed_by_socket_nat"],
        amiss: false,
    };
    verdicts::probed(stage, &ground, &silent)?;
    stage.tell(
        "The control is a closed port of the server: its error comes from farther away than the stars, and arrives.\n\
         A NAT that swallows errors would have swallowed that one, too.",
    )?;

    stage.act("Where the errors are: in the routers, which made them and dropped them")?;
    counters(stage, &ground)?;

    stage.act("The routers may speak again, and the NAT stays as it is")?;
    for router in ROUTERS {
        for (tool, rule) in RULES {
            let line = format!("{tool} -D {rule}");
            ground.must(router, &line)?;
            stage.ran(router, &line, "", |_| true)?;
        }
    }
    hops::all(stage, &ground, &[Method::Udp, Method::Echo], true, |family, _| {
        let nat = ground.address("nat", "lan", family)?;
        let [r1, r2] = ground.routers(family)?;
        let hops: Hops = vec![Some(nat), Some(r1), Some(r2), Some(ground.server(family)?)];
        Ok(("every hop", hops))
    })
}

/// Who spoke, and where that was seen.
fn errors(stage: &mut Stage, ground: &Ground<'_>, both: &Both) -> io::Result<()> {
    for family in FAMILIES {
        let routers = ground.routers(family)?;
        let server = ground.server(family)?;
        let of_routers = |packet: &Seen| packet.is_time_exceeded() && routers.contains(&packet.tuple.src_ip());
        let [_, outside] = both.count(family, of_routers);
        let claim = "outside no time exceeded of a router was seen";
        let observation = ground.observation("errors.none_outside", claim, outside == 0).family(family);
        stage.observe(observation.measured(outside).fact("outside", outside));
        let of_server = |packet: &Seen| packet.is_error() && packet.tuple.src_ip() == server;
        let [inside, outside] = both.count(family, of_server);
        let claim = "the server's errors are seen outside and inside";
        let observation = ground.observation("errors.control", claim, outside > 0 && inside == outside).family(family);
        let observation = observation.measured(format!("{outside} outside, {inside} inside"));
        stage.observe(observation.fact("outside", outside).fact("inside", inside));
    }
    Ok(())
}

/// What the routers' own rules have counted.
fn counters(stage: &mut Stage, ground: &Ground<'_>) -> io::Result<()> {
    for router in ROUTERS {
        for ((tool, _), family) in RULES.into_iter().zip(FAMILIES) {
            let (_, output) = ground.run(stage, router, &format!("{tool} -vnL OUTPUT"), |_| family == L3::V4)?;
            let dropped = output.lines().find(|line| line.contains("DROP")).and_then(|line| {
                let first = line.split_ascii_whitespace().next()?;
                first.parse::<u64>().ok()
            });
            let dropped = dropped.unwrap_or(0);
            let claim = format!("{router} dropped errors of its own");
            let observation = ground.observation("routers.dropped", claim, dropped > 0).family(family);
            stage.observe(observation.measured(dropped).fact("node", router).fact("dropped", dropped));
        }
    }
    Ok(())
}
