//! TFTP (`nf_conntrack_tftp.c`, `nf_nat_tftp.c`): the server answers from another port.

use super::{Helper, HelperDrop, HelperStep, Seen, tell};
use crate::direction::Direction;
use crate::expect::{Expectation, Follow};
use crate::packet::be16;
use crate::status::Status;
use crate::table::Table;
use crate::trace::Sink;
use crate::track::udp;
use crate::tuple::proto;

const READ: u16 = 1;
const WRITE: u16 = 2;

/// `tftp_help`.
pub(super) fn help<S: Sink>(seen: &Seen<'_>, table: &mut Table, sink: &mut S) -> Result<(), HelperDrop> {
    let writes = match be16(seen.l4, udp::HEADER) {
        Some(READ) => false,
        Some(WRITE) => true,
        _ => return Ok(()),
    };
    tell(sink, || HelperStep::TftpRequest { writes });
    let reply = seen.flow.tuple(Direction::Reply);
    let mut expected = Expectation::new(
        (seen.id, Helper::Tftp, seen.flow.zone.id),
        (reply.l3num, proto::UDP),
        (reply.src, None),
        (reply.dst, reply.dst_u),
    );
    if seen.flow.status.intersects(Status::NAT_MASK) {
        let port = seen.flow.tuple(Direction::Original).src_u;
        expected.follow = Follow::Master { direction: Direction::Reply, port };
    }
    table.expect(expected, seen.now, sink).map_err(HelperDrop::Refused)
}
