//! Linux connection tracking and NAT as a pure library, and the trace of each decision.
//!
//! A packet meets the rooms of this crate in this order:
//!
//! 1. [`packet`]: a view of the bytes; the packet inside an ICMP error is a type of its own.
//! 2. [`mod@tuple`]: who sends what to whom; inversion.
//! 3. [`related`]: an ICMP error -> the flow of the packet that it quotes.
//! 4. [`table`] and [`conn`]: [`zone`] and tuple -> entry; unconfirmed and confirmed entries.
//! 5. [`track`]: what the protocol says about the packet.
//! 6. [`conntrack`]: steps 1 to 5 in their order, for one packet.
//! 7. [`rules`]: what raw, mangle and filter do to it; [`template`] is what raw asks of conntrack.
//! 8. [`nat`]: the binding of the flow; rewriting of packets and of quoted packets.
//! 9. [`helper`], [`expect`] and [`seqadj`]: flows to come, what NAT writes into payloads, and the numbers behind that.
//!    What few flows need of it is in [`extension`].
//! 10. [`confirm`]: the entry goes into the table.
//! 11. [`hook`]: the order of all that; [`hook::Engine`] is where a caller begins.
//!
//! [`mirror`] is the same engine beside a kernel.
//!
//! [`trace`] is what happened, as data; [`render`] turns it into text.
//!
//! What other releases of the kernel do otherwise is in [`profile`].
//!
//! There is no I/O, no clock, no chance and no global here: time and the random seed are arguments.
//!
//! ```
//! use ctwhy_core::direction::CtInfo;
//! use ctwhy_core::hook::Engine;
//! use ctwhy_core::time::Time;
//! use ctwhy_core::trace::Trace;
//!
//! let mut engine = Engine::new(0);
//! // 10.0.0.2:5000 -> 192.0.2.1:53, an empty UDP datagram without checksum.
//! let mut packet = [
//!     0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0xae, 0xce, 10, 0, 0, 2, 192, 0, 2, 1, //
//!     0x13, 0x88, 0, 53, 0, 8, 0, 0,
//! ];
//! let mut trace = Trace::default();
//! let ruling = engine.receive(&mut packet, 28, None, Time(0), &mut trace);
//! assert_eq!(ruling.ctinfo, Ok(CtInfo::New));
//! assert_eq!(engine.conntrack.table.len(), 1);
//! ```
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod checksum;
pub mod confirm;
pub mod conn;
pub mod conntrack;
pub mod counters;
pub mod defrag;
pub mod direction;
pub mod event;
pub mod expect;
pub mod extension;
pub mod helper;
pub mod hook;
pub mod mirror;
pub mod nat;
pub mod network;
pub mod packet;
mod prefetch;
pub mod profile;
pub mod random;
pub mod reason;
pub mod refragment;
pub mod related;
pub mod render;
pub mod rules;
pub mod seqadj;
pub mod status;
pub mod sysctl;
pub mod table;
pub mod template;
pub mod time;
pub mod trace;
pub mod track;
pub mod tuple;
pub mod zone;
