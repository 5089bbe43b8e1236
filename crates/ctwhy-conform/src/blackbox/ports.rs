//! Which ports a NAT picks (RFC 4787 section 4.2).

use super::bench::Bench;
use super::flow::{Ends, Proto, Shape};
use super::requirement::{Group, Judged, Level, Requirement, fail, noted};
use super::survey::Change;

/// Where the ports of servers end.
const WELL_KNOWN: u16 = 1024;

pub(super) fn requirements() -> Vec<Requirement> {
    let mut all = Vec::new();
    for proto in [Proto::Udp, Proto::Tcp] {
        let name = proto.name();
        let cites = "RFC 4787 REQ-3a; NAT-PORT-02";
        let id = format!("RFC4787-REQ-3a.{name}.low");
        let text = format!("a port of {proto} below 1024 is another one below 1024 outside, where it cannot stay");
        all.push(Requirement::new(Group::Ports, Level::Should, id, cites, text, move |bench| range(bench, proto, 600)));
        let id = format!("RFC4787-REQ-3a.{name}.high");
        let text = format!("a port of {proto} from 1024 on is another one from 1024 on outside, where it cannot stay");
        all.push(Requirement::new(Group::Ports, Level::Should, id, cites, text, move |bench| {
            range(bench, proto, 30_000)
        }));
    }
    let text = "an even port of UDP is an even one outside, an odd one an odd one";
    let parity = Requirement::new(
        Group::Ports,
        Level::Should,
        "RFC4787-REQ-4.udp",
        "RFC 4787 REQ-4; RFC 7857 section 8",
        text,
        parity,
    );
    all.push(parity.beyond("where Linux changes a port it draws any"));
    for proto in Proto::ALL {
        let id = format!("NOTE-PRESERVATION.{}", proto.name());
        let text = format!("does a client keep its {} of {proto}?", proto.number());
        all.push(Requirement::new(Group::Ports, Level::Note, id, "NAT-PORT-06", text, move |bench| {
            preserved(bench, proto)
        }));
    }
    all
}

fn range(bench: &mut Bench<'_>, proto: Proto, from: u16) -> Judged {
    bench.require(proto)?;
    for _ in 0..4 {
        let fresh = bench.ends(proto);
        let ends = Ends { port: from + fresh.port % 400, ..fresh };
        bench.occupy(&ends)?;
        let Some(flow) = bench.start(&ends, &Shape::default())? else {
            return Err(fail(format!("{} from port {} did not come out", proto.first(), ends.port)));
        };
        if (flow.outer < WELL_KNOWN) != (ends.port < WELL_KNOWN) {
            return Err(fail(format!("port {} became {}", ends.port, flow.outer)));
        }
    }
    Ok(())
}

/// By chance one port in two is right.
fn parity(bench: &mut Bench<'_>) -> Judged {
    bench.require(Proto::Udp)?;
    for odd in [0, 1].repeat(5) {
        let fresh = bench.ends(Proto::Udp);
        let ends = Ends { port: fresh.port + odd, ..fresh };
        bench.occupy(&ends)?;
        let Some(flow) = bench.start(&ends, &Shape::default())? else {
            return Err(fail(format!("a UDP datagram from port {} did not come out", ends.port)));
        };
        if flow.outer % 2 != ends.port % 2 {
            return Err(fail(format!("port {} became {}", ends.port, flow.outer)));
        }
    }
    Ok(())
}

fn preserved(bench: &mut Bench<'_>, proto: Proto) -> Judged {
    bench.require(proto)?;
    Err(noted(match bench.survey.of(proto).change {
        Change::Always => "no",
        Change::Collision => "yes, where no other client has it already",
        Change::Never => "yes, even where another client has it already",
    }))
}
