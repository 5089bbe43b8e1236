//! Captures, cases and recorded kernel decisions, read and written; this crate knows neither kernel nor engine.
//!
//! In the order in which a packet's data passes through: [`capture`] reads pcap and pcapng as a stream, [`link`] finds
//! the IP packet behind the link layer, [`anonymise`] takes out of it who and what it was about, [`write`](mod@write) puts packets with comments into a pcapng that Wireshark
//! opens, [`case`] ties packets, configuration and what a kernel decided about them into a folder, and [`coverage`] tells which
//! decisions a folder of cases shows.
#![forbid(unsafe_code)]

pub mod anonymise;
pub mod capture;
pub mod case;
pub mod coverage;
pub mod link;
pub mod linktype;
pub mod make;
pub mod write;
