//! `ctwhy lab run vmnat`: a guest in NAT mode whose traceroute shows only stars, from the first look to the cure.

mod bridge;

use std::io;

use ctwhy_conform::world::{Nat, Options};
use ctwhy_core::tuple::L3;
use ctwhy_diagnose::verdict::Kind;

use super::capture::{Recorder, Seen};
use super::compare::{self, Both, Expected};
use super::ground::{FAMILIES, Ground};
use super::hops::{self, Method};
use super::owner;
use super::stage::Stage;
use super::verdicts::{self, Diagnosis, Probed};
use super::{page, world};

const MAP: &str = "\
client, the guest  nat, the host         r1                 r2                 server
tun0 ~ ~ ~ ~ ~ ~ ~ wan ───────────────── 203.0.113.1 ────── 198.51.100.2 ───── 192.0.2.80
10.0.2.15          203.0.113.2           2001:db8:113::1    2001:db8:100::2    2001:db8:2::80
fd00:2::15         2001:db8:113::2
                   a NAT made of sockets, as vmnat is one
";

/// What the host's own packets start with, as those of Windows do; the guest's start with 64.
const HOST_TTL: &str = "128";

/// Tells the story.
pub(super) fn tell(stage: &mut Stage) -> io::Result<()> {
    stage
        .tell(&format!("A guest of VMware in NAT mode: traceroute shows only stars. Where are the errors?\n\n{MAP}"))?;
    nat_mode(stage)?;
    cure(stage)?;
    stage.act("How it is done right: a NAT that rewrites packets")?;
    stage.tell("First `ctwhy nat tun`, then the kernel's MASQUERADE, in the place of vmnat.")?;
    let masquerade = "*nat\n-A POSTROUTING -o wan -j MASQUERADE\nCOMMIT\n".to_owned();
    let rules = Some([masquerade.clone(), masquerade]);
    reference(stage, "nat-tun", Nat::NatTun, &Options { rules, ..Options::default() })?;
    reference(stage, "kernel", Nat::Kernel, &Options::default())?;
    stage.tell(
        "Linux reads the packet that an error quotes, turns it round, finds the flow, calls the error RELATED and\n\
         translates both headers. `ctwhy lab run traceroute` shows each of these steps.",
    )?;
    bridge::tell(stage)
}

/// Acts 1 to 5: the guest behind sockets.
fn nat_mode(stage: &mut Stage) -> io::Result<()> {
    let world = world(Nat::ProxyDrop, &Options::default())?;
    let ground = Ground { named: true, ..Ground::of("vmnat", &world) };
    ground.let_the_server_answer()?;
    ground.sysctl("nat", "net.ipv4.ip_default_ttl", HOST_TTL)?;
    ground.sysctl("nat", "net.ipv6.conf.wan.hop_limit", HOST_TTL)?;
    let recorder = Recorder::start(&ground)?;

    stage.act("In NAT mode the guest sees stars, though pages load")?;
    hops::all(stage, &ground, &[Method::Udp, Method::Echo], true, |family, method| {
        let server = ground.server(family)?;
        Ok(match method {
            Method::Echo => ("the server and no router", vec![None, None, Some(server)]),
            _ => ("only stars", vec![None; 4]),
        })
    })?;
    page(stage, &ground)?;

    stage.act("Two captures, guest and host: whose packets are these?")?;
    let owners = owner::look(stage, &ground)?;
    ground.last_pings()?;
    let captures = recorder.stop(stage.style().keep.as_deref())?;
    let both = Both::of(&captures);
    stage.tell(&format!(
        "The guest's connection is the host's as well, under another port: a process there has a socket for it.\n\
         So much `ss` says. Two captures ran all the while, on {} of the guest and on {} of the host:\n\n{}",
        ground.inside.1,
        ground.outside.1,
        table(&ground, &both)?
    ))?;
    owner::observe(stage, &ground, &both, &owners, true)?;
    for family in FAMILIES {
        compare::observe(stage, &ground, &both, family, Expected::New)?;
    }
    stage.tell(
        "Identification, port and the TTL of a connection are the host's. This NAT does not rewrite packets: it reads them,\n\
         and sends others from sockets of its own. Of datagrams it passes the TTL on, or no router would ever complain.",
    )?;

    stage.act("The errors did come back, as far as the host")?;
    let is = |packet: &&Seen| packet.family() == L3::V4 && packet.is_error();
    let list: Vec<String> = both.outside.iter().filter(is).map(|packet| format!("  {packet}")).collect();
    stage.tell(&format!(
        "{} holds these, and {} none:\n{}",
        captures.outside.name,
        captures.inside.name,
        list.join("\n")
    ))?;
    errors(stage, &ground, &both, false)?;
    stage.tell(
        "They are about packets of the host's own sockets, so the host's kernel took them, and that was that.\n\
         Nobody asked which flow of the guest's such a socket stands for.",
    )?;

    stage.act("`ctwhy diagnose` names what was swallowed, and what Linux would have done with it")?;
    let expected = Diagnosis { kind: Kind::SocketProxy, swallows: true };
    verdicts::diagnosed(stage, &ground, &captures, &expected)?;

    stage.act("`ctwhy probe` tells it from inside the guest alone")?;
    let swallowed = Probed {
        found: &["errors.swallowed_by_socket_nat"],
        not_found: &["errors.come_through", "routers.silent"],
        amiss: true,
    };
    verdicts::probed(stage, &ground, &swallowed)
}

/// One packet of each kind, side by side, for IPv4.
fn table(ground: &Ground<'_>, both: &Both) -> io::Result<String> {
    let server = ground.server(L3::V4)?;
    let [inside, outside] = [ground.inside, ground.outside].map(|(node, interface)| format!("{node}, {interface}"));
    let mut text = format!("{:<26}{inside:<24}{outside}\n", "");
    let mut row = |what: &str, field: &str, inside: String, outside: String| {
        text += &format!("{what:<18}{field:<8}{inside:<24}{outside}\n");
    };
    for (what, method) in
        [("TCP, a SYN", Method::Tcp), ("UDP, a datagram", Method::Udp), ("echo, a request", Method::Echo)]
    {
        let Some((own, other)) = both.sent(method, server).last().copied() else { continue };
        let port = if method == Method::Echo { "id" } else { "port" };
        row(what, "from", own.tuple.src_ip().to_string(), other.tuple.src_ip().to_string());
        row("", port, own.port().to_string(), other.port().to_string());
        row("", "IPID", format!("{:#06x}", own.mark()), format!("{:#06x}", other.mark()));
        row("", "TTL", own.ttl.to_string(), other.ttl.to_string());
    }
    Ok(text)
}

/// Observes the routers' errors at both sides.
fn errors(stage: &mut Stage, ground: &Ground<'_>, both: &Both, relayed: bool) -> io::Result<()> {
    for family in FAMILIES {
        let routers = ground.routers(family)?;
        let is = |packet: &Seen| packet.is_time_exceeded() && routers.contains(&packet.tuple.src_ip());
        let [inside, outside] = both.count(family, is);
        let (claim, observed) = match relayed {
            true => ("every time exceeded of a router came in", inside == outside),
            false => ("time exceeded of routers came back, and none came in", inside == 0),
        };
        let observation = ground.observation("errors", claim, observed && outside > 0).family(family);
        let observation = observation.measured(format!("{outside} outside, {inside} inside"));
        stage.observe(observation.fact("outside", outside).fact("inside", inside));
        if relayed {
            quotes(stage, ground, both, family)?;
        }
    }
    Ok(())
}

/// Observes that errors inside are about the client's own packets.
fn quotes(stage: &mut Stage, ground: &Ground<'_>, both: &Both, family: L3) -> io::Result<()> {
    let routers = ground.routers(family)?;
    let errors: Vec<&Seen> = both
        .inside
        .iter()
        .filter(|packet| packet.family() == family && routers.contains(&packet.tuple.src_ip()))
        .collect();
    let quoted =
        |error: &&&Seen| error.quoted.is_some_and(|quoted| both.inside.iter().any(|packet| packet.tuple == quoted));
    let own = errors.iter().filter(quoted).count();
    let claim = "what they quote is what the client had sent";
    let observation = ground.observation("quotes", claim, own > 0 && own == errors.len()).family(family);
    let observation = observation.measured(format!("{own} of {}", errors.len()));
    stage.observe(observation.fact("errors", errors.len()).fact("own", own));
    Ok(())
}

/// Act 6: the same NAT, which now asks.
fn cure(stage: &mut Stage) -> io::Result<()> {
    stage.act("The cure: ask whose packet the error is about")?;
    stage.tell(
        "The same NAT of sockets, started with `ctwhy proxy --errors relay`: it takes the errors from the error queues of\n\
         its sockets, finds the guest's datagram that each is about, and tells the guest.",
    )?;
    let world = world(Nat::ProxyRelay, &Options::default())?;
    let ground = Ground { named: true, ..Ground::of("vmnat-relay", &world) };
    ground.let_the_server_answer()?;
    let recorder = Recorder::start(&ground)?;
    hops::all(stage, &ground, &Method::ALL, true, |family, _| {
        let ([r1, r2], server) = (ground.routers(family)?, ground.server(family)?);
        Ok(("every router behind the host", vec![Some(r1), Some(r2), Some(server)]))
    })?;
    ground.last_pings()?;
    let both = Both::of(&recorder.stop(stage.style().keep.as_deref())?);
    errors(stage, &ground, &both, true)
}

/// Act 7: a NAT that rewrites packets in its place.
fn reference(stage: &mut Stage, name: &'static str, nat: Nat, options: &Options) -> io::Result<()> {
    let world = world(nat, options)?;
    let ground = Ground { named: true, ..Ground::of(name, &world) };
    ground.let_the_server_answer()?;
    let recorder = Recorder::start(&ground)?;
    hops::all(stage, &ground, &Method::ALL, nat == Nat::NatTun, |family, _| {
        let ([r1, r2], server) = (ground.routers(family)?, ground.server(family)?);
        let nat = ground.address("nat", "lan", family)?;
        Ok(("every hop", vec![Some(nat), Some(r1), Some(r2), Some(server)]))
    })?;
    page(stage, &ground)?;
    let owners = owner::look(stage, &ground)?;
    ground.last_pings()?;
    let both = Both::of(&recorder.stop(stage.style().keep.as_deref())?);
    owner::observe(stage, &ground, &both, &owners, false)?;
    for family in FAMILIES {
        compare::observe(stage, &ground, &both, family, Expected::Kept)?;
    }
    errors(stage, &ground, &both, true)
}
