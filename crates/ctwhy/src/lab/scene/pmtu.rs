//! `ctwhy lab run pmtu`: a narrow link behind the NAT, and a rule that keeps anybody from hearing of it.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use ctwhy_conform::world::{Nat, Options, World};
use ctwhy_core::tuple::L3;
use ctwhy_diagnose::verdict::Kind;

use super::capture::{Recorder, Seen};
use super::compare::Both;
use super::ground::{FAMILIES, Ground};
use super::stage::Stage;
use super::verdicts::{self, Diagnosis, Probed};
use super::{page, web, world};

const MAP: &str = "\
client ─────────── nat ───────────────── r1 ═ ═ ═ ═ ═ ═ ═ ═ r2 ─────────────── server
192.168.1.2        wan: 203.0.113.2      203.0.113.1        198.51.100.2       192.0.2.80
fd00:1::2          2001:db8:113::2       2001:db8:113::1    2001:db8:100::2    2001:db8:2::80
";

/// Bytes that all other links take.
const WIDE: usize = 1500;
/// What takes fewer has no IPv6.
const IPV6_MIN_MTU: usize = 1280;

/// "ICMP is dangerous, only pings may come in."
const BAD_RULES: [(&str, &str); 2] = [
    ("iptables", "FORWARD -i wan -p icmp ! --icmp-type echo-reply -j DROP"),
    ("ip6tables", "FORWARD -i wan -p icmpv6 ! --icmpv6-type echo-reply -j DROP"),
];
/// What belongs in front of it.
const GOOD_RULE: &str = "FORWARD -i wan -m conntrack --ctstate RELATED -j ACCEPT";

/// How many bytes are uploaded.
const UPLOAD: usize = 100_000;
/// Nothing for so long is a stall, where one is expected.
const STALL: Duration = Duration::from_millis(2500);
/// Where none is.
const PATIENCE: Duration = Duration::from_secs(10);

/// The story, for a link of some width.
struct Pmtu {
    /// Bytes that the narrow link takes.
    narrow: usize,
}

/// Tells it.
pub(super) fn tell(stage: &mut Stage, narrow: usize) -> io::Result<()> {
    stage.tell(&format!(
        "Small things work, large ones hang: a narrow link behind the NAT, and nobody is told.\n\n\
         {MAP}{:41}takes {narrow} bytes",
        ""
    ))?;
    let story = Pmtu { narrow };
    let world = world(Nat::Kernel, &Options::default())?;
    story.black_hole(stage, &world)?;
    story.cured(stage, &world)?;
    story.clamped(stage, &world)?;
    drop(world);
    story.others(stage)
}

impl Pmtu {
    /// Where an act plays.
    fn ground<'a>(&self, name: &'static str, world: &'a World) -> Ground<'a> {
        let families = if self.narrow < IPV6_MIN_MTU { &FAMILIES[..1] } else { &FAMILIES };
        Ground { named: true, families, ..Ground::of(name, world) }
    }

    /// Makes the link between the routers narrow.
    fn make_narrow(&self, ground: &Ground<'_>) -> io::Result<()> {
        for (node, interface) in [("r1", "r2"), ("r2", "r1")] {
            ground.must(node, &format!("ip link set {interface} mtu {}", self.narrow))?;
        }
        Ok(())
    }

    /// Acts 1 to 4.
    fn black_hole(&self, stage: &mut Stage, world: &World) -> io::Result<()> {
        let ground = self.ground("black-hole", world);
        ground.let_the_server_answer()?;
        self.make_narrow(&ground)?;
        stage.act("What the user sees: small things work, large ones hang")?;
        stage.tell("Somebody has read that ICMP is dangerous, and lets only the answers to pings in:")?;
        for (tool, text) in BAD_RULES {
            rule(stage, &ground, &format!("{tool} -A {text}"))?;
        }
        let recorder = Recorder::start(&ground)?;
        pings(stage, &ground, &[(self.narrow, true), (WIDE, false)])?;
        page(stage, &ground)?;
        uploads(stage, &ground, false)?;
        ground.last_pings()?;
        let captures = recorder.stop(stage.style().keep.as_deref())?;

        stage.act("Two captures: the errors are there, outside")?;
        let both = Both::of(&captures);
        let is = |packet: &&Seen| packet.family() == L3::V4 && packet.announced_mtu().is_some();
        let list: Vec<String> = both.outside.iter().filter(is).take(4).map(|packet| format!("  {packet}")).collect();
        stage.tell(&format!("{}, the first of them:\n{}", captures.outside.name, list.join("\n")))?;
        self.errors(stage, &ground, &both, false)?;
        self.again(stage, &ground, &both)?;
        stage.tell(
            "The packets may not be cut (DF; IPv6 never cuts), so r1 says how long they may be, and the NAT's rule drops that.\n\
             The client can only try again, and it does. Whatever fits the link works, which is why nobody suspects a rule.",
        )?;

        stage.act("`ctwhy diagnose` says which errors were swallowed")?;
        let expected = Diagnosis { kind: Kind::PacketNat, swallows: true };
        verdicts::diagnosed(stage, &ground, &captures, &expected)?;

        stage.act("`ctwhy probe` finds it from inside alone")?;
        let hole = Probed { found: &["mtu.black_hole"], not_found: &["mtu.told", "errors.come_through"], amiss: true };
        verdicts::probed(stage, &ground, &hole)
    }

    /// Act 5: a rule that asks what an error is about.
    fn cured(&self, stage: &mut Stage, world: &World) -> io::Result<()> {
        let ground = self.ground("cured", world);
        stage.act("The cure: let in what is RELATED")?;
        for tool in ["iptables", "ip6tables"] {
            rule(stage, &ground, &format!("{tool} -I {GOOD_RULE}"))?;
        }
        let recorder = Recorder::start(&ground)?;
        self.told(stage, &ground)?;
        forget(&ground)?;
        uploads(stage, &ground, true)?;
        self.known(stage, &ground)?;
        ground.last_pings()?;
        let both = Both::of(&recorder.stop(stage.style().keep.as_deref())?);
        self.errors(stage, &ground, &both, true)?;
        stage.tell(
            "Conntrack has read what the error quotes, found the flow and called it RELATED: that is all the rule asks. An error\n\
             about nothing that the client sent is INVALID, and still dropped.",
        )
    }

    /// Act 6: TCP is told to make shorter segments.
    fn clamped(&self, stage: &mut Stage, world: &World) -> io::Result<()> {
        let ground = self.ground("clamped", world);
        stage.act("The other remedy: a lower MSS, which cures TCP only")?;
        for (tool, headers) in [("iptables", 40), ("ip6tables", 60)] {
            ground.must("nat", &format!("{tool} -D {GOOD_RULE}"))?;
            let line = format!(
                "{tool} -t mangle -A FORWARD -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --set-mss {}",
                self.narrow - headers
            );
            rule(stage, &ground, &line)?;
        }
        stage.tell("The cure is taken out again, and the client has forgotten what it learned:")?;
        forget(&ground)?;
        for line in FORGET {
            stage.ran("client", line, "", |_| true)?;
        }
        let recorder = Recorder::start(&ground)?;
        uploads(stage, &ground, true)?;
        pings(stage, &ground, &[(WIDE, false)])?;
        ground.last_pings()?;
        let both = Both::of(&recorder.stop(stage.style().keep.as_deref())?);
        for family in ground.families {
            let answers = both.answered(ground.server(*family)?);
            let mss = answers.last().map(|(own, other)| (other.mss(), own.mss()));
            let observed = mss.is_some_and(|(before, behind)| behind < before && behind.is_some());
            let claim = "the server's MSS is lowered on its way to the client";
            let words = mss.map_or("no connection".to_owned(), |(before, behind)| {
                let words = |mss: Option<u16>| mss.map_or("none".to_owned(), |mss| mss.to_string());
                format!("{} => {}", words(before), words(behind))
            });
            stage.observe(ground.observation("mss", claim, observed).family(*family).measured(words));
        }
        stage.tell(
            "No connection sends anything that is too long, so none needs to be told. UDP, and whatever else may not be cut,\n\
             is where it was: QUIC, VPNs, DNS over UDP.",
        )
    }

    /// Act 7: NATs without any rule.
    fn others(&self, stage: &mut Stage) -> io::Result<()> {
        stage.act("Two other NATs before the same link")?;
        for (name, nat, text) in [
            ("nat-tun", Nat::NatTun, "`ctwhy nat tun` passes every error on that belongs to a flow:"),
            (
                "vmnat",
                Nat::ProxyDrop,
                "A NAT of sockets that swallows errors (`ctwhy lab run vmnat`): connections are the host's, whose kernel is told of\n\
                 the MTU and cuts them fitly. So only what is not TCP hangs.",
            ),
        ] {
            let world = world(nat, &Options::default())?;
            let ground = self.ground(name, &world);
            ground.let_the_server_answer()?;
            self.make_narrow(&ground)?;
            stage.tell(text)?;
            let recorder = Recorder::start(&ground)?;
            match nat {
                Nat::NatTun => {
                    self.told(stage, &ground)?;
                    forget(&ground)?;
                }
                _ => pings(stage, &ground, &[(self.narrow, true), (WIDE, false)])?,
            }
            uploads(stage, &ground, true)?;
            ground.last_pings()?;
            let both = Both::of(&recorder.stop(stage.style().keep.as_deref())?);
            self.errors(stage, &ground, &both, nat == Nat::NatTun)?;
        }
        Ok(())
    }

    /// A ping that is too long, and is told so.
    fn told(&self, stage: &mut Stage, ground: &Ground<'_>) -> io::Result<()> {
        for family in ground.families {
            let (_, output) = ping(stage, ground, *family, WIDE)?;
            let [r1, _] = ground.routers(*family)?;
            let from = format!("From {r1}");
            let said = output.lines().find(|line| line.starts_with(&from)).unwrap_or("nothing");
            let claim = format!("a ping of {WIDE} bytes is told how long it may be");
            let observed = said.contains(&self.narrow.to_string());
            let observation = ground.observation("ping.told", claim, observed).family(*family);
            stage.observe(observation.measured(said).fact("said", said));
        }
        Ok(())
    }

    /// The MTU that the client has learned.
    fn known(&self, stage: &mut Stage, ground: &Ground<'_>) -> io::Result<()> {
        for family in ground.families {
            let line = format!("ip route get {}", ground.server(*family)?);
            let (_, output) = ground.run(stage, "client", &line, |_| *family == L3::V4)?;
            let mut words = output.split_ascii_whitespace().skip_while(|word| *word != "mtu").skip(1);
            let mtu: Option<usize> = words.next().and_then(|word| word.parse().ok());
            let observation =
                ground.observation("route.mtu", "the client knows the MTU", mtu == Some(self.narrow)).family(*family);
            stage.observe(observation.measured(mtu.map_or("none".to_owned(), |mtu| mtu.to_string())).fact("mtu", mtu));
        }
        Ok(())
    }

    /// Observes at both sides the errors that announce the MTU.
    fn errors(&self, stage: &mut Stage, ground: &Ground<'_>, both: &Both, relayed: bool) -> io::Result<()> {
        for family in ground.families {
            let [r1, _] = ground.routers(*family)?;
            let narrow = u32::try_from(self.narrow).ok();
            let is = |packet: &Seen| packet.announced_mtu() == narrow && packet.tuple.src_ip() == r1;
            let [inside, outside] = both.count(*family, is);
            let (claim, observed) = match relayed {
                true => ("every error that says the MTU came in", inside == outside),
                false => ("errors that say the MTU came back, and none came in", inside == 0),
            };
            let observation = ground.observation("errors", claim, observed && outside > 0).family(*family);
            let observation = observation.measured(format!("{outside} outside, {inside} inside"));
            stage.observe(observation.fact("outside", outside).fact("inside", inside));
        }
        Ok(())
    }

    /// Observes that the client sends the same again.
    fn again(&self, stage: &mut Stage, ground: &Ground<'_>, both: &Both) -> io::Result<()> {
        for family in ground.families {
            let server = ground.server(*family)?;
            let mut times: HashMap<u32, usize> = HashMap::new();
            for packet in both.inside.iter().filter(|packet| packet.len() > self.narrow) {
                if let Some(sequence) = packet.segment_to(server) {
                    *times.entry(sequence).or_default() += 1;
                }
            }
            let most = times.values().copied().max().unwrap_or(0);
            let claim = format!("a segment longer than {} bytes is sent again and again", self.narrow);
            let observation = ground.observation("again", claim, most > 2).family(*family);
            stage.observe(observation.measured(format!("{most} times")).fact("times", most));
        }
        Ok(())
    }
}

/// A command of the NAT's owner.
fn rule(stage: &mut Stage, ground: &Ground<'_>, line: &str) -> io::Result<()> {
    ground.must("nat", line)?;
    stage.ran("nat", line, "", |_| true)
}

/// Bytes of headers before what a ping carries.
const fn headers(family: L3) -> usize {
    match family {
        L3::V4 => 28,
        L3::V6 => 48,
    }
}

/// A ping of so many bytes in all that may not be cut; whether it was answered, and what was printed.
fn ping(stage: &mut Stage, ground: &Ground<'_>, family: L3, length: usize) -> io::Result<(bool, String)> {
    let carried = length - headers(family);
    let line = format!("ping -n -c 1 -W 1 -M do -s {carried} {}", ground.server(family)?);
    ground.run(stage, "client", &line, |line| family == L3::V4 && !line.is_empty() && !line.starts_with("rtt"))
}

/// Pings of some lengths, each with whether it is to be answered. One that is not is to be lost without a word.
fn pings(stage: &mut Stage, ground: &Ground<'_>, lengths: &[(usize, bool)]) -> io::Result<()> {
    for (length, expected) in lengths {
        for family in ground.families {
            let (answered, output) = ping(stage, ground, *family, *length)?;
            let error = output.contains("mtu");
            let (claim, observed) = match expected {
                true => (format!("a ping of {length} bytes is answered"), answered),
                false => (format!("a ping of {length} bytes is lost without a word"), !answered && !error),
            };
            let measured = match (answered, error) {
                (true, _) => "an answer",
                (false, false) => "no answer, no error",
                (false, true) => "no answer, but an error",
            };
            let observation = ground.observation("ping", claim, observed).family(*family).measured(measured);
            stage.observe(observation.fact("length", *length).fact("answered", answered).fact("error", error));
        }
    }
    Ok(())
}

/// Has the client forget the MTUs that it knows.
fn forget(ground: &Ground<'_>) -> io::Result<()> {
    FORGET.iter().try_for_each(|line| ground.must("client", line).map(drop))
}

/// How a host forgets them.
const FORGET: [&str; 2] = ["ip route flush cache", "ip -6 route flush cache"];

/// Uploads, and whether they go through.
fn uploads(stage: &mut Stage, ground: &Ground<'_>, expected: bool) -> io::Result<()> {
    for family in ground.families {
        let patience = if expected { PATIENCE } else { STALL };
        let web::Upload { arrived, of } = web::upload(ground.lab, ground.server(*family)?, UPLOAD, patience)?;
        let (claim, observed) = match expected {
            true => ("an upload goes through", arrived == of),
            false => ("an upload stalls", arrived < of),
        };
        let observation = ground.observation("upload", claim, observed && of > WIDE).family(*family);
        let observation = observation.measured(format!("{arrived} of {of} bytes arrived"));
        stage.observe(observation.fact("arrived", arrived).fact("of", of));
    }
    Ok(())
}
