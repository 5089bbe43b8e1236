//! One packet: the line, and the steps under it.

use std::fmt::{self, Display, Formatter};
use std::io;

use ctwhy_core::conn::Flow;
use ctwhy_core::conntrack::Attached;
use ctwhy_core::direction::CtInfo;
use ctwhy_core::hook::{Egress, Engine, Ruling, Verdict};
use ctwhy_core::render::text::InNetwork;
use ctwhy_core::status::Status;
use ctwhy_core::trace::Step;

use super::Show;
use super::escape::Escaped;
use super::style::{Palette, Styled};
use super::view::{View, sctp_state, tcp_state, translation};

/// What is told of one packet.
pub(crate) struct Told<'a> {
    /// Counted from 1.
    pub(crate) number: u64,
    /// Nanoseconds since the first packet.
    pub(crate) since_start: u64,
    /// Name of the interface.
    pub(crate) interface: Option<&'a str>,
    /// The packet as it arrived and its length on the wire, from the IP header on.
    pub(crate) before: (&'a [u8], usize),
    /// As it left, where that is known.
    pub(crate) after: Option<&'a [u8]>,
    /// What was decided, or why nothing was.
    pub(crate) decided: Decided<'a>,
    /// The host that decided.
    pub(crate) engine: &'a Engine,
}

/// The decision about a packet of a capture.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Decided<'a> {
    /// By the engine.
    Ruling(&'a Ruling),
    /// It is not IP, or no packet at all: a stable code, and why in words.
    NotIp {
        /// For `--json`.
        code: &'static str,
        /// For people.
        text: &'a str,
    },
}

impl Decided<'_> {
    pub(crate) fn ruling(&self) -> Option<&Ruling> {
        match self {
            Decided::Ruling(ruling) => Some(ruling),
            Decided::NotIp { .. } => None,
        }
    }

    pub(crate) fn ctinfo(&self) -> Option<CtInfo> {
        self.ruling().and_then(|ruling| ruling.ctinfo.ok())
    }

    /// The stable code of the cause for which the packet is INVALID or was not seen.
    pub(crate) fn code(&self) -> Option<&'static str> {
        match self {
            Decided::NotIp { code, .. } => Some(code),
            Decided::Ruling(ruling) => match (ruling.ctinfo, &ruling.reason) {
                (Err(unseen), _) => Some(unseen.code()),
                (Ok(_), reason) => reason.as_ref().map(|reason| reason.code()),
            },
        }
    }
}

/// The flow of a packet and its number, wherever it is.
pub(crate) fn flow_of(ruling: &Ruling, engine: &Engine) -> Option<(Option<u32>, Flow)> {
    match &ruling.attached {
        Attached::Entry(id) => engine.conntrack.table.get(*id).map(|entry| (Some(entry.id), entry.flow)),
        Attached::Unconfirmed(own) => Some((None, own.flow)),
        Attached::None | Attached::Untracked => None,
    }
}

impl Told<'_> {
    /// The line, without its end.
    pub(crate) fn line(&self, palette: Palette) -> impl Display {
        Show(move |f: &mut Formatter<'_>| self.write_line(palette, f))
    }

    fn write_line(&self, palette: Palette, f: &mut Formatter<'_>) -> fmt::Result {
        let ctinfo = self.decided.ctinfo();
        let word = ctinfo.map_or("-", CtInfo::name);
        let (secs, micros) = (self.since_start / 1_000_000_000, self.since_start / 1000 % 1_000_000);
        let style = palette.ctinfo(ctinfo);
        write!(
            f,
            "{:>4} {secs:>3}.{micros:06} {:<6} {style}{word:<17}{style:#} ",
            self.number,
            Escaped(self.interface.unwrap_or("-")).to_string()
        )?;
        let ruling = match self.decided {
            Decided::NotIp { text, .. } => return write!(f, "{}", Styled(palette.faint(), Escaped(text))),
            Decided::Ruling(ruling) => ruling,
        };
        let before = View::new(self.before.0, self.before.1);
        if let Some(before) = &before {
            write!(f, "{before}")?;
        }
        let after = self.after.and_then(|after| View::new(after, self.before.1.max(after.len())));
        if let (Some(before), Some(after)) = (&before, &after)
            && let Some(changes) = translation(before, after)
        {
            write!(f, " => {changes}")?;
        }
        match flow_of(ruling, self.engine) {
            Some((Some(id), flow)) => {
                write!(f, " #{id}")?;
                if let Some(state) = tcp_state(&flow.protocol).or(sctp_state(&flow.protocol)) {
                    write!(f, " {state}")?;
                }
            }
            Some((None, flow)) if flow.status.contains(Status::CONFIRMED) => f.write_str(" (its entry ends)")?,
            Some((None, _)) => f.write_str(" (not confirmed)")?,
            None => {}
        }
        if let Err(unseen) = ruling.ctinfo {
            let separator = if before.is_some() { ": " } else { "" };
            write!(f, "{separator}{unseen}")?;
        }
        if let Some(reason) = &ruling.reason {
            write!(f, ": {reason}")?;
        }
        match ruling.verdict {
            Verdict::Drop(cause) => write!(f, "; dropped: {cause}"),
            Verdict::Accept if ruling.egress == Egress::Local => f.write_str("; for this host"),
            Verdict::Accept => Ok(()),
        }
    }

    /// Writes the line, and the steps under it when they are asked for.
    pub(crate) fn write(
        &self,
        steps: &[Step],
        with_steps: bool,
        palette: Palette,
        out: &mut impl io::Write,
    ) -> io::Result<()> {
        writeln!(out, "{}", self.line(palette))?;
        if with_steps { write!(out, "{}", self.steps(steps, palette)) } else { Ok(()) }
    }

    /// The steps, a line each, indented.
    pub(crate) fn steps(&self, steps: &[Step], palette: Palette) -> impl Display {
        Show(move |f: &mut Formatter<'_>| {
            for step in steps {
                let words = InNetwork { step, network: &self.engine.network };
                writeln!(f, "{:>9}{}", "", Styled(palette.faint(), Escaped(&words.to_string())))?;
            }
            if let Decided::Ruling(Ruling { reason: Some(reason), .. }) = self.decided {
                let style = palette.bad();
                writeln!(f, "{:>9}{style}INVALID{style:#} [{}]: {reason}", "", reason.code())?;
            }
            Ok(())
        })
    }
}
