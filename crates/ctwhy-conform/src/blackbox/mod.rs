//! A suite for anybody's NAT, as a black box: packets on one side, packets on the other, and the sentences of RFCs and of the
//! kernel's behaviour held against what it makes of them.
//!
//! On both sides the suite is everybody itself, by raw packets: two clients inside; servers and routers outside. No socket
//! of a kernel answers in between, and what a NAT lets through is compared byte for byte with what was put in.
//!
//! - [`nat`] is what a NAT looks like from here; [`cables`] is one between two interfaces.
//! - `flow` makes packets by hand and follows them; `bench` waits for them; `read` and `compare` look at them.
//! - `survey` finds out what can be asked: which protocols come out, and how ports can be made to change. Kept ports hide
//!   mistakes in the quote.
//! - [`requirement`] is what is asked. Each group of requirements has a file.
//! - [`run`](mod@run) asks them all; [`capture`] keeps the packets.
//! - [`subject`] has NATs in the lab to ask.

mod bench;
pub mod cables;
pub mod capture;
mod compare;
mod connection;
mod errors_in;
mod errors_out;
mod filtering;
mod flow;
mod forged;
mod fragments;
mod hairpin;
mod kind;
mod mapping;
mod mtu;
pub mod nat;
mod ports;
mod quotes;
mod read;
pub mod requirement;
pub mod run;
pub mod subject;
mod survey;
mod survival;
mod timeouts;
mod ttl;

pub use bench::{Bench, Hosts, Logged};
pub use survey::{Change, Known, Survey};
