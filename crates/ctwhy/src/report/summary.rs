//! What all packets amount to.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

use ctwhy_core::direction::CtInfo;

use super::Show;
use super::line::Decided;
use super::style::{Palette, Styled};

/// Packets by ctinfo, and the causes of those that were INVALID or not seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Summary {
    packets: u64,
    by_ctinfo: BTreeMap<CtInfo, u64>,
    invalid: BTreeMap<&'static str, u64>,
    unseen: BTreeMap<&'static str, u64>,
    dropped: BTreeMap<&'static str, u64>,
    wrong_checksums: u64,
}

impl Summary {
    /// Counts one packet.
    pub(crate) fn count(&mut self, decided: &Decided<'_>) {
        self.packets += 1;
        match (decided.ctinfo(), decided.code()) {
            (Some(ctinfo), code) => {
                *self.by_ctinfo.entry(ctinfo).or_default() += 1;
                if let Some(code) = code {
                    *self.invalid.entry(code).or_default() += 1;
                }
            }
            (None, Some(code)) => *self.unseen.entry(code).or_default() += 1,
            (None, None) => {}
        }
        let reason = decided.ruling().and_then(|ruling| ruling.reason);
        self.wrong_checksums += u64::from(reason.is_some_and(|reason| reason.is_checksum()));
        if let Some(ctwhy_core::hook::Verdict::Drop(cause)) = decided.ruling().map(|ruling| ruling.verdict) {
            *self.dropped.entry(cause.code()).or_default() += 1;
        }
    }

    /// Packets that were not seen for this cause.
    pub(crate) fn unseen(&self, code: &str) -> u64 {
        self.unseen.get(code).copied().unwrap_or(0)
    }

    /// Packets that were dropped for this cause.
    pub(crate) fn dropped(&self, code: &str) -> u64 {
        self.dropped.get(code).copied().unwrap_or(0)
    }

    /// Packets whose transport checksum is wrong.
    pub(crate) fn wrong_checksums(&self) -> u64 {
        self.wrong_checksums
    }

    /// All packets.
    pub(crate) fn packets(&self) -> u64 {
        self.packets
    }

    /// As text, several lines.
    pub(crate) fn show(&self, palette: Palette) -> impl Display {
        Show(move |f: &mut Formatter<'_>| {
            let total = format_args!("{}: ", Plural(self.packets, "packet")).to_string();
            write!(f, "{}", Styled(palette.heading(), total))?;
            let known = CtInfo::ALL.into_iter().filter_map(|ctinfo| Some((ctinfo, *self.by_ctinfo.get(&ctinfo)?)));
            let mut separator = "";
            for (ctinfo, count) in known {
                write!(f, "{separator}{count} {}", Styled(palette.ctinfo(Some(ctinfo)), ctinfo.name()))?;
                separator = ", ";
            }
            let unseen: u64 = self.unseen.values().sum();
            if unseen > 0 {
                write!(f, "{separator}{unseen} not seen by conntrack")?;
            }
            writeln!(f)?;
            for (what, causes) in [("INVALID", &self.invalid), ("not seen", &self.unseen), ("dropped", &self.dropped)] {
                for (code, count) in causes {
                    writeln!(f, "  {what:<8} {count:>6}  {code}")?;
                }
            }
            Ok(())
        })
    }
}

/// `1 packet`, `2 packets`.
pub(crate) struct Plural(pub(crate) u64, pub(crate) &'static str);

impl Display for Plural {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}{}", self.0, self.1, if self.0 == 1 { "" } else { "s" })
    }
}
