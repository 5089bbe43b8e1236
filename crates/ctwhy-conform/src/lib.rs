//! One case, many devices under test.
//!
//! - [`record`] puts the packets of a case into a running kernel and writes down what it decided and emitted.
//! - [`replay`] puts the same packets into the engine; [`log`] puts its reasons into the words of the kernel's log.
//! - [`scenario`] is where cases come from: each is a few lines of code that compose its packets. [`traceroute`] makes
//!   them from a real `traceroute` instead.
//! - [`fuzz`] makes up packets by the million and holds the engine against a kernel on every one of them.
//! - [`blackbox`] asks anybody's NAT, from both its sides, for what RFCs and the kernel say.
//! - [`probe`] asks from one end of a way whether errors come back, and what stands in between.
//! - [`world`] is a lab with a NAT in it, ours, the kernel's or somebody else's.
//!
//! What a kernel decided and what was decided again are compared by [`ctwhy_fixture::case::compare`].
#![forbid(unsafe_code)]

pub mod blackbox;
pub mod compose;
pub mod fuzz;
pub mod log;
pub mod probe;
pub mod record;
pub mod replay;
pub mod scenario;
pub mod table;
pub mod traceroute;
pub mod world;
