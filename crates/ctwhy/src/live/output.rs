//! A live run as text or JSON.
use super::*;
use ctwhy_core::packet::Packet;

pub(crate) struct Plain { pub(crate) verbose: bool }

impl Report for Plain {
    fn ready(&mut self, options: &Options, flows: usize, copies: bool) {
        eprintln!("ctwhy live: ready, queue {}, {flows} flows known, copies: {copies}", options.queue);
    }
    fn packet(&mut self, seen: &Seen<'_>, _engine: &Engine) {
        let what = Packet::parse(seen.bytes, seen.len).map(|p| format!("{} -> {} {:?}", p.src.ip(p.l3num), p.dst.ip(p.l3num), p.transport.map(|t| t.protonum)));
        println!("{} {:?} {} {:?} engine {:?} kernel {:?} {:?} {:?} {:?} => {:?}", seen.number, seen.ruling.hook, seen.interface.as_deref().unwrap_or("-"), what, seen.ruling.ctinfo, seen.kernel, seen.ruling.verdict, seen.ruling.egress, seen.left, seen.agrees());
        if self.verbose {
            for step in &seen.trace.steps { println!("      {step}"); }
            if let Some(reason) = &seen.ruling.reason { println!("      INVALID: {reason}"); }
        }
    }
    fn note(&mut self, text: &str) { eprintln!("note: {text}"); }
    fn totals(&mut self, totals: &Totals) { println!("{totals:#?}"); }
    fn is_closed(&self) -> bool { false }
}
