//! The part of the report that is about ICMP errors.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::{self, Write};

use ctwhy_core::network::Network;
use ctwhy_core::render::icmp::Named;
use ctwhy_core::render::text::InNetwork;
use ctwhy_core::tuple::L3;
use ctwhy_diagnose::errors::{Error, Fate, Field, Judged, Own, Why};
use ctwhy_diagnose::linux::Ruled;
use ctwhy_diagnose::observe::Protocol;
use ctwhy_diagnose::{Report, Side};

use crate::report::style::{Palette, Styled};
use crate::report::summary::Plural;
use crate::report::view::{View, translation};

/// Errors of which the same is to be said.
type Group = (Side, L3, u8, u8, Option<Protocol>, Fate, Vec<Field>);

/// Writes what is to be said of the errors.
pub(super) fn write(report: &Report, verbose: bool, palette: Palette, out: &mut impl Write) -> io::Result<()> {
    let errors = &report.errors;
    let mut groups: BTreeMap<Group, Vec<&Judged>> = BTreeMap::new();
    for error in &errors.judged {
        let fields = error.differences.iter().map(|difference| difference.field).collect();
        let Error { l3num, icmp_type, code, .. } = error.error;
        let key = (error.seen, l3num, icmp_type, code, error.protocol, error.fate, fields);
        groups.entry(key).or_default().push(error);
    }
    if groups.is_empty() && errors.own.is_empty() {
        return writeln!(out, "no ICMP error that met the NAT was seen");
    }
    // What Linux does is told in full once.
    let mut told = false;
    for (side, way) in [(Side::Outside, "on the way in"), (Side::Inside, "on the way out")] {
        let all: usize = groups.iter().filter(|(key, _)| key.0 == side).map(|(_, group)| group.len()).sum();
        if all == 0 {
            continue;
        }
        let heading = format!("{} seen {side}, {way}", Plural(all as u64, "ICMP error"));
        writeln!(out, "{}", Styled(palette.heading(), heading))?;
        for (key, group) in groups.iter().filter(|(key, _)| key.0 == side) {
            write_group(key, group, (verbose, &mut told), palette, out)?;
        }
    }
    write_own(&errors.own, verbose, out)?;
    if errors.unexplained > 0 {
        writeln!(
            out,
            "{} about packets of flows that were not seen at both sides: nothing is said of them",
            Plural(errors.unexplained, "ICMP error")
        )?;
    }
    Ok(())
}

fn write_group(
    (_, l3num, icmp_type, code, protocol, fate, _): &Group,
    group: &[&Judged],
    (verbose, told): (bool, &mut bool),
    palette: Palette,
    out: &mut impl Write,
) -> io::Result<()> {
    let named = Named { l3num: *l3num, icmp_type: *icmp_type, code: *code };
    let about = protocol.map_or("something else", Protocol::name);
    // Both families have a type 3.
    let over = if *l3num == L3::V6 { " over IPv6" } else { "" };
    let style = match fate {
        Fate::Relayed | Fate::Refused => palette.good(),
        fate if fate.is_amiss() => palette.bad(),
        _ => palette.faint(),
    };
    writeln!(out, "  {} x {named} about {about}{over}: {}", group.len(), Styled(style, fate_text(*fate)))?;
    let shown = if verbose { group.len() } else { 1 };
    for error in group.iter().take(shown) {
        writeln!(
            out,
            "    packet {} {}: {}",
            error.error.number,
            error.seen,
            view(&error.error.bytes, error.error.wire_len)
        )?;
        if let Some(result) = &error.came_out {
            let other = error.seen.opposite();
            writeln!(out, "    packet {} {other}: {}", result.number, view(&result.bytes, result.wire_len))?;
        }
        for difference in &error.differences {
            let mark = if difference.grave { palette.bad() } else { palette.faint() };
            writeln!(out, "      {}", Styled(mark, difference))?;
        }
        if error.reset_instead {
            writeln!(out, "      the host got a TCP reset instead, which does not say who refused what")?;
        }
        let Some(linux) = error.linux.as_ref().filter(|_| *fate != Fate::Relayed || verbose) else { continue };
        writeln!(out, "      Linux: {}", linux_text(error, linux))?;
        let in_full = verbose || (*fate == Fate::Swallowed && !*told);
        if in_full {
            *told |= *fate == Fate::Swallowed;
            for step in steps(linux) {
                writeln!(out, "         {step}")?;
            }
        }
    }
    Ok(())
}

/// The errors that the NAT made itself.
fn write_own(own: &[Own], verbose: bool, out: &mut impl Write) -> io::Result<()> {
    for (side, whose) in
        [(Side::Inside, "the NAT's own, or those of a router before it"), (Side::Outside, "made there")]
    {
        for (went_on, what) in [
            (false, "the packets that they quote were not seen behind it"),
            (true, "though the packets that they quote went on, and no such error came back"),
        ] {
            let group: Vec<&Own> = own.iter().filter(|own| own.seen == side && own.quoted_went_on == went_on).collect();
            if group.is_empty() {
                continue;
            }
            let count = Plural(group.len() as u64, "ICMP error");
            writeln!(out, "{count} seen {side} only, {whose}: {what}")?;
            let shown = if verbose { group.len() } else { 1 };
            for own in group.iter().take(shown) {
                writeln!(out, "    packet {}: {}", own.error.number, view(&own.error.bytes, own.error.wire_len))?;
            }
        }
    }
    Ok(())
}

/// What became of an error, as a sentence's end.
pub(super) const fn fate_text(fate: Fate) -> &'static str {
    match fate {
        Fate::Relayed => "relayed, as Linux would have sent it on",
        Fate::Altered => "relayed, and altered where it misleads nobody",
        Fate::Mistranslated => "mistranslated",
        Fate::Swallowed => "swallowed",
        Fate::Missing => {
            "not seen at the other side, where nearly all others of the kind were: the capture may lack it"
        }
        Fate::Refused => "did not come out, and would not have with Linux",
        Fate::LetThrough => "came out, though Linux would have refused it",
        Fate::Unjudged(Why::NotPaired) => "not judged: its flow was not recognised at the other side",
        Fate::Unjudged(Why::NotCovered) => {
            "not judged: nothing was seen of it, but the other capture has no later packet and may have been over"
        }
        Fate::Unjudged(Why::Unsure) => "not judged: its flow was recognised only by what others carry as well",
        Fate::Unjudged(Why::Cut) => {
            "not judged: the capture does not hold all of it; capture with a larger snap length"
        }
    }
}

/// A packet in a few words.
fn view(bytes: &[u8], len: usize) -> String {
    View::new(bytes, len).map_or_else(|| "unreadable".to_owned(), |view| view.to_string())
}

/// What Linux would have done with an error: `RELATED_REPLY, delivered to 192.168.1.2: …`.
pub(super) fn linux_text(error: &Judged, linux: &Ruled) -> String {
    let word: &dyn Display = match &linux.ctinfo {
        Ok(ctinfo) => ctinfo,
        Err(unseen) => return format!("not seen by conntrack: {unseen}"),
    };
    if let Some(reason) = &linux.reason {
        return format!("{word}: {reason}");
    }
    if let Some(cause) = &linux.dropped {
        return format!("{word}, dropped: {cause}");
    }
    let mut text = word.to_string();
    if let Some(to) = linux.delivered_to() {
        text += &format!(", delivered to {to}");
    }
    let before = View::new(&error.error.bytes, error.error.wire_len);
    let after = View::new(&linux.bytes, error.error.wire_len);
    match before.zip(after).and_then(|(before, after)| translation(&before, &after)) {
        Some(changes) => text + " => " + &changes,
        None => text,
    }
}

/// The steps of a ruling in words.
pub(super) fn steps(linux: &Ruled) -> impl Iterator<Item = String> {
    let network = Network::default();
    linux.steps.iter().map(move |step| InNetwork { step, network: &network }.to_string())
}
