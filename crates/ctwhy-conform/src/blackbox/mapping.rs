//! Which address and port a client has outside (RFC 4787 section 4).

use super::bench::Bench;
use super::connection::Connection;
use super::flow::{Ends, Proto, Shape};
use super::requirement::{Group, Judged, Level, Requirement, Stop, fail};

pub(super) fn requirements() -> Vec<Requirement> {
    let mut all = Vec::new();
    for proto in Proto::ALL {
        let name = proto.name();
        let (level, id) = match proto {
            Proto::Udp => (Level::Must, "RFC4787-REQ-1.udp"),
            Proto::Tcp => (Level::Must, "RFC5382-REQ-1.tcp"),
            Proto::Echo => (Level::Should, "RFC5508-REQ-1a.echo"),
        };
        let number = proto.number();
        let text = format!(
            "a client's {number} of {proto} is the same one outside whomever it talks to, and whoever else has it inside"
        );
        let cites = "RFC 4787 REQ-1, RFC 5382 REQ-1, RFC 5508 REQ-1a; NAT-PORT-06, D.3";
        let why = "Linux looks for a port towards each destination";
        let probe = move |bench: &mut Bench<'_>| independent(bench, proto);
        all.push(Requirement::new(Group::Mapping, level, id, cites, text, probe).beyond(why));
        let (level, id, cites) = match proto {
            Proto::Udp => (Level::Must, "RFC4787-REQ-3.udp".to_owned(), "RFC 4787 REQ-3; NAT-PORT-06"),
            Proto::Tcp => (Level::Must, "RFC5382-REQ-7.tcp".to_owned(), "RFC 5382 REQ-7; NAT-PORT-06"),
            Proto::Echo => (Level::Note, "NOTE-OVERLOADING.echo".to_owned(), "NAT-PORT-08"),
        };
        let text = format!("two clients never have the same {number} of {proto} outside, whomever they talk to");
        let probe = move |bench: &mut Bench<'_>| overloading(bench, proto);
        let requirement = Requirement::new(Group::Mapping, level, id, cites, text, probe);
        if level == Level::Must {
            all.push(requirement.beyond("in Linux clients share a port while they talk to different servers"));
        }
        let id = format!("RFC4787-REQ-11.{name}");
        let text = format!("as long as a flow of {proto} goes on, its {number} outside stays");
        let cites = "RFC 4787 REQ-11; NAT-SET-03";
        all.push(Requirement::new(Group::Mapping, Level::Must, id, cites, text, move |bench| stays(bench, proto)));
    }
    let text = "all flows of a client have one address outside";
    let cites = "RFC 4787 REQ-2; RFC 6888 REQ-2; NAT-PORT-11, D.3";
    all.push(Requirement::new(Group::Mapping, Level::Should, "RFC4787-REQ-2", cites, text, paired));
    all
}

fn missing(proto: Proto) -> Stop {
    fail(format!("{} did not come out", proto.first()))
}

fn independent(bench: &mut Bench<'_>, proto: Proto) -> Judged {
    bench.require(proto)?;
    let first = bench.ends(proto);
    let elsewhere = bench.ends(proto);
    let second = Ends { server: elsewhere.server, dport: elsewhere.dport, ..first.clone() };
    let [other, _] = bench.hosts.clients;
    // The other client is there first, with the second server.
    bench.start(&second.clone().from(other), &Shape::default())?;
    let one = bench.start(&first, &Shape::default())?.ok_or_else(|| missing(proto))?;
    let two = bench.start(&second, &Shape::default())?.ok_or_else(|| missing(proto))?;
    if (one.external, one.outer) == (two.external, two.outer) {
        return Ok(());
    }
    let (from, port) = (proto.number(), first.port);
    Err(fail(format!(
        "{from} {port} is {} port {} to one server and {} port {} to another",
        one.external, one.outer, two.external, two.outer
    )))
}

fn overloading(bench: &mut Bench<'_>, proto: Proto) -> Judged {
    bench.require(proto)?;
    let first = bench.ends(proto);
    let elsewhere = bench.ends(proto);
    let [other, _] = bench.hosts.clients;
    let second = Ends { server: elsewhere.server, dport: elsewhere.dport, ..first.clone() }.from(other);
    let one = bench.start(&first, &Shape::default())?.ok_or_else(|| missing(proto))?;
    let two = bench.start(&second, &Shape::default())?.ok_or_else(|| missing(proto))?;
    if (one.external, one.outer) == (two.external, two.outer) {
        return Err(fail(format!("both clients have {} {} outside", proto.number(), one.outer)));
    }
    Ok(())
}

fn stays(bench: &mut Bench<'_>, proto: Proto) -> Judged {
    let (flow, later) = match proto {
        // A SYN that is sent again is no affair of a socket's.
        Proto::Tcp => {
            let mut connection = Connection::open(bench)?;
            let later = (0..3).map(|_| connection.say(bench, b"ctwhy conform nat")).collect::<Result<Vec<_>, _>>()?;
            (connection.flow, later)
        }
        Proto::Udp | Proto::Echo => {
            let flow = bench.open(proto)?;
            let mut later = Vec::new();
            for seq in 2..5 {
                let shape = Shape { seq, ..Shape::default() };
                later.push(bench.again(&flow, &shape)?.ok_or_else(|| missing(proto))?);
            }
            (flow, later)
        }
    };
    for again in later {
        if (again.external, again.outer) != (flow.external, flow.outer) {
            return Err(fail(format!("{} {} became {}", proto.number(), flow.outer, again.outer)));
        }
    }
    Ok(())
}

fn paired(bench: &mut Bench<'_>) -> Judged {
    let protos: Vec<Proto> = bench.passing().collect();
    let mut known = None;
    for proto in protos.into_iter().cycle().take(6) {
        let flow = bench.open(proto)?;
        let first = *known.get_or_insert(flow.external);
        if flow.external != first {
            return Err(fail(format!("{first} for one flow and {} for another", flow.external)));
        }
    }
    Ok(())
}
