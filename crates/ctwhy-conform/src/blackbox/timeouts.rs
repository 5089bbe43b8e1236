//! How long mappings live. Only time can tell, so this is asked on demand.

use std::time::Duration;

use super::bench::Bench;
use super::connection::Connection;
use super::flow::{Proto, Shape};
use super::requirement::{Group, Judged, Level, Requirement, fail};

/// An answer that comes that much before a timeout is in time.
const MARGIN: Duration = Duration::from_secs(2);

pub(super) fn requirements() -> Vec<Requirement> {
    let of = |id: &str, cites, text: &str, seconds, probe: fn(&mut Bench<'_>, Duration) -> Judged| {
        let wait = Duration::from_secs(seconds);
        let probe = move |bench: &mut Bench<'_>| probe(bench, wait);
        Requirement::new(Group::Timeouts, Level::Must, id, cites, text, probe).takes(seconds)
    };
    vec![
        of(
            "RFC4787-REQ-6.udp",
            "RFC 4787 REQ-6; TIMEOUT-02",
            "what a client sends keeps its mapping: after 20 seconds, another datagram, and 20 more an answer arrives",
            40,
            refreshed,
        ),
        of(
            "RFC5508-REQ-2.echo",
            "RFC 5508 REQ-2; ICMP-Q-06",
            "a mapping of an echo request lives for a minute",
            60,
            |bench, wait| lives(bench, Proto::Echo, wait),
        )
        .beyond("Linux gives ICMP 30 seconds (nf_conntrack_icmp_timeout)"),
        of("RFC4787-REQ-5.udp", "RFC 4787 REQ-5; A.7", "a mapping of UDP lives for two minutes", 120, |bench, wait| {
            lives(bench, Proto::Udp, wait)
        })
        .beyond("Linux gives UDP 30 seconds until it is a stream (nf_conntrack_udp_timeout)"),
        of(
            "RFC5382-REQ-5.transitory",
            "RFC 5382 REQ-5; A.7",
            "a connection that is being made has four minutes for it",
            240,
            |bench, wait| lives(bench, Proto::Tcp, wait),
        )
        .beyond("Linux gives a SYN two minutes (nf_conntrack_tcp_timeout_syn_sent)"),
        of(
            "RFC5382-REQ-5.established",
            "RFC 5382 REQ-5; A.7",
            "an idle connection lives for two hours and four minutes",
            7440,
            established,
        ),
    ]
}

fn lives(bench: &mut Bench<'_>, proto: Proto, wait: Duration) -> Judged {
    let flow = bench.open(proto)?;
    bench.pass(wait.saturating_sub(MARGIN))?;
    match bench.answer(&flow, b"ctwhy conform nat: just in time")? {
        Some(_) => Ok(()),
        None => Err(fail(format!("an answer after {} seconds did not arrive", wait.saturating_sub(MARGIN).as_secs()))),
    }
}

fn refreshed(bench: &mut Bench<'_>, wait: Duration) -> Judged {
    let flow = bench.open(Proto::Udp)?;
    bench.pass(wait / 2)?;
    if bench.again(&flow, &Shape::text("ctwhy conform nat: still there"))?.is_none() {
        return Err(fail("the client's second datagram did not come out"));
    }
    bench.pass(wait / 2)?;
    match bench.answer(&flow, b"ctwhy conform nat: just in time")? {
        Some(_) => Ok(()),
        None => Err(fail("the answer did not arrive")),
    }
}

fn established(bench: &mut Bench<'_>, wait: Duration) -> Judged {
    let mut connection = Connection::open(bench)?;
    bench.pass(wait)?;
    connection
        .hear(bench, b"ctwhy conform nat: still there?")
        .map_err(|_| fail("a segment of the server's did not arrive any more"))
}
