//! What NAT makes of an expected flow before any rule is asked (`nf_nat_follow_master`, `pptp_expectfn`; NAT-SET-07).

use super::Help;
use crate::conn::Flow;
use crate::direction::Direction;
use crate::expect::{Expectation, Follow};
use crate::extension::Master;
use crate::nat::options::Options;
use crate::nat::range::Range;
use crate::nat::setup::Choice;
use crate::nat::{Manip, NatDrop};
use crate::random::Random;
use crate::table::Table;
use crate::time::Time;
use crate::trace::{Sink, Step};
use crate::tuple::{Tuple, proto};

/// `exp->expectfn`: binds the flow as its master's bindings ask.
pub(crate) fn follow<S: Sink>(
    flow: &mut Flow,
    expected: &Expectation,
    master: &Master,
    (table, now): (&mut Table, Time),
    random: &mut Random,
    sink: &mut S,
) {
    let Some(of_master) = table.get(master.id).map(|entry| entry.flow) else { return };
    match expected.follow {
        Follow::None => {}
        Follow::Master { direction, port } => {
            bind(flow, &of_master, direction, [None, Some(port)], (table, now), random, sink);
        }
        Follow::Pptp { nat } => {
            let other = match nat {
                Some((direction, _)) => other_call(&of_master, direction, calls(table, &of_master)),
                None => expected.tuple.invert(),
            };
            unexpect(other, expected.zone, (table, now), sink);
            if let Some((direction, key)) = nat {
                let keys = match direction {
                    Direction::Original => [Some(key), None],
                    Direction::Reply => [None, Some(key)],
                };
                bind(flow, &of_master, direction, keys, (table, now), random, sink);
            }
        }
    }
}

/// Source as where the master sends to, destination as where it comes from; ports or keys where they are given.
fn bind<S: Sink>(
    flow: &mut Flow,
    master: &Flow,
    direction: Direction,
    ports: [Option<u16>; 2],
    (table, now): (&mut Table, Time),
    random: &mut Random,
    sink: &mut S,
) {
    let back = master.tuple(direction.opposite());
    let mut choice = Choice { table, random, options: &Options::KERNEL, now, sink };
    for (manip, address, port) in [(Manip::Src, back.dst, ports[0]), (Manip::Dst, back.src, ports[1])] {
        let range = Range { ports: port.map(|port| (port, port)), ..Range::address(address) };
        // As the kernel does it, a binding is always found.
        let _: Result<(), NatDrop> = choice.bind(flow, &range, manip);
    }
}

/// The call ids of the control connection: as the server knows them, and as the client's side does.
#[derive(Default)]
struct Calls {
    pns: u16,
    pac: u16,
    inner_pns: u16,
    inner_pac: u16,
}

fn calls(table: &Table, master: &Flow) -> Calls {
    let help = master.extension.and_then(|id| table.extensions.get(id)).and_then(|extension| extension.help.as_ref());
    match help {
        Some(Help::Pptp(pptp)) => {
            Calls { pns: pptp.pns, pac: pptp.pac, inner_pns: pptp.nat_pns, inner_pac: pptp.nat_pac }
        }
        _ => Calls::default(),
    }
}

/// `pptp_nat_expected`: the expected tuple of the other direction of a call.
fn other_call(master: &Flow, direction: Direction, calls: Calls) -> Option<Tuple> {
    let (src_u, dst_u) = match direction {
        Direction::Original => (calls.pac, calls.pns),
        Direction::Reply => (calls.inner_pns, calls.inner_pac),
    };
    Some(Tuple { src_u, dst_u, protonum: proto::GRE, ..*master.tuple(direction.opposite()) })
}

/// `nf_ct_unexpect_related`.
pub(super) fn unexpect<S: Sink>(
    tuple: Option<Tuple>,
    zone: u16,
    (table, now): (&mut Table, Time),
    sink: &mut S,
) -> bool {
    let found = tuple.and_then(|tuple| table.expectations.find(&tuple, zone, now)).copied();
    let Some(found) = found else { return false };
    sink.step(|| Step::ExpectationRemoved { tuple: found.tuple });
    table.unexpect(&found)
}
