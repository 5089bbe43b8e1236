//! What no input may do, whatever its bytes: the bodies of the fuzz targets.
//!
//! Each takes bytes and panics when something is wrong: the code under test panicked, or what it gave does not agree with
//! itself. cargo-fuzz calls them from `fuzz/` on a nightly toolchain, and an ordinary test calls them with the inputs that
//! are kept there, on any.
#![forbid(unsafe_code)]
#![allow(clippy::panic, clippy::expect_used, clippy::unwrap_used)] // That is how something wrong is reported.

mod engine;
mod files;
mod packets;

pub use engine::{Op, engine, read_ops, write_ops};
pub use files::{capture, case, netlink, rules};
pub use packets::{packet, quoted};

/// A target: bytes in, nothing out.
pub type Target = fn(&[u8]);

/// All targets by name.
pub const TARGETS: [(&str, Target); 7] = [
    ("packet", packet),
    ("quoted", quoted),
    ("capture", capture),
    ("rules", rules),
    ("netlink", netlink),
    ("case", case),
    ("engine", engine),
];
