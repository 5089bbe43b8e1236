//! What an error must not end: the mapping, the connection (RFC 4787 REQ-12, RFC 5382 REQ-10, RFC 5508 REQ-6).

use super::bench::Bench;
use super::connection::Connection;
use super::flow::{ErrorKind, Flow, PORT_UNREACHABLE, PROHIBITED, Proto, Shape, TIME_EXCEEDED, TOO_BIG};
use super::nat::Side;
use super::requirement::{Group, Judged, Level, Requirement, Stop, fail, inconclusive, not_applicable};

const KINDS: [ErrorKind; 4] = [TIME_EXCEEDED, PORT_UNREACHABLE, PROHIBITED, TOO_BIG];

pub(super) fn requirements() -> Vec<Requirement> {
    let mut all = Vec::new();
    for proto in Proto::ALL {
        let (source, cites) = match proto {
            Proto::Udp => ("RFC4787-REQ-12", "RFC 4787 REQ-12; ICMP-REL-10"),
            Proto::Tcp => ("RFC5382-REQ-10", "RFC 5382 REQ-10; ICMP-REL-10"),
            Proto::Echo => ("RFC5508-REQ-6", "RFC 5508 REQ-6; ICMP-REL-10"),
        };
        for kind in KINDS {
            let (id, name) = (format!("{source}.{}.{}", proto.name(), kind.name), kind.name.replace('-', " "));
            let text = format!(
                "after {name} about {} the client has the same {} outside, and answers reach it",
                proto.first(),
                proto.number()
            );
            let probe = move |bench: &mut Bench<'_>| mapping(bench, proto, &kind);
            all.push(Requirement::new(Group::Survival, Level::Must, id, cites, text, probe));
            if proto == Proto::Tcp {
                let id = format!("{source}.established.{}", kind.name);
                let text = format!("after {name} an established connection goes on in both directions");
                let probe = move |bench: &mut Bench<'_>| established(bench, &kind);
                all.push(Requirement::new(Group::Survival, Level::Must, id, cites, text, probe));
            }
        }
    }
    all
}

/// The error comes, and whatever the NAT has to do because of it is done.
fn endure(bench: &mut Bench<'_>, flow: &Flow, quoted: &Flow, kind: &ErrorKind) -> Judged {
    let number = bench.fresh();
    let router = bench.hosts.router(number);
    let error = quoted.error(kind, router).ok_or_else(|| inconclusive("the family has no such error"))?;
    if bench.survey.of(flow.ends.proto).errors {
        bench.tell(flow, &error, kind.name)?;
    } else {
        bench.send(Side::Outside, &error, kind.name)?;
    }
    Ok(bench.settle()?)
}

fn mapping(bench: &mut Bench<'_>, proto: Proto, kind: &ErrorKind) -> Judged {
    let mut flow = bench.open(proto)?;
    if proto != Proto::Tcp {
        let before = next(bench, &flow, 2)?;
        if before.outer != flow.outer {
            return Err(not_applicable(format!("each packet has {} of its own anyhow", proto.number())));
        }
    }
    endure(bench, &flow, &flow, kind)?;
    // A SYN that is sent again is no affair of a socket's.
    if proto != Proto::Tcp {
        let again = next(bench, &flow, 3)?;
        if (again.external, again.outer) != (flow.external, flow.outer) {
            let (number, outer) = (proto.number(), flow.outer);
            return Err(fail(format!(
                "the client's next packet came out with {number} {} instead of {outer}",
                again.outer
            )));
        }
        flow = again;
    }
    match bench.answer(&flow, b"ctwhy conform nat: after all")? {
        Some(_) => Ok(()),
        None => Err(fail("an answer after the error did not reach the client")),
    }
}

/// The client's next packet.
fn next(bench: &mut Bench<'_>, flow: &Flow, seq: u16) -> Result<Flow, Stop> {
    let shape = Shape { seq, ..Shape::text("ctwhy conform nat: the next") };
    bench.again(flow, &shape)?.ok_or_else(|| fail("the client's next packet did not come out"))
}

fn established(bench: &mut Bench<'_>, kind: &ErrorKind) -> Judged {
    let mut connection = Connection::open(bench)?;
    let quoted = connection.say(bench, b"before the error")?;
    endure(bench, &connection.flow.clone(), &quoted, kind)?;
    connection
        .hear(bench, b"after the error")
        .map_err(|_| fail("what the server sent after the error did not arrive"))?;
    connection
        .say(bench, b"and the client goes on")
        .map_err(|_| fail("what the client sent after the error did not come out"))?;
    Ok(())
}
