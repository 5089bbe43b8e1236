//! Where kernels differ by release, and which release is imitated (catalogue part J).
//!
//! What this crate decides is what Linux 6.18 decides. [`PROFILES`] says what others do instead, each row by the first
//! release that does so; stable releases got some of it later than the series that they belong to began. Rows stand on
//! the sources of 6.1.192 and 6.12.117, on the change logs of their series, and on what 6.18.44 was seen to do.

use core::fmt;

use crate::tuple::proto;

/// A kernel's release, as far as it orders behaviour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release {
    /// `6` of 6.12.48.
    pub major: u16,
    /// `12` of 6.12.48.
    pub minor: u16,
    /// `48` of 6.12.48; [`Release::LATEST`] where nothing is said of it.
    pub patch: u16,
}

impl Release {
    /// The newest of its series.
    pub const LATEST: u16 = u16::MAX;

    const fn new(major: u16, minor: u16, patch: u16) -> Release {
        Release { major, minor, patch }
    }

    /// Reads `uname -r`, such as `6.12.48+deb13-amd64`. `6.12` is the newest release of that series, and so is
    /// `6.12.0-55-generic`: a distribution that counts behind a zero does not tell the patch level.
    #[must_use]
    pub fn parse(text: &str) -> Option<Release> {
        let mut rest = text;
        let major = number(&mut rest)?;
        rest = rest.strip_prefix('.')?;
        let minor = number(&mut rest)?;
        let mut patch = Release::LATEST;
        if let Some(behind) = rest.strip_prefix('.') {
            rest = behind;
            patch = number(&mut rest)?;
        }
        let counts = rest.strip_prefix('-').is_some_and(|rest| rest.starts_with(|next: char| next.is_ascii_digit()));
        if patch == 0 && counts {
            patch = Release::LATEST;
        }
        let ends = !rest.starts_with(|next: char| next.is_ascii_alphanumeric());
        ends.then_some(Release { major, minor, patch })
    }
}

/// Takes the digits off the front of `text`.
fn number(text: &mut &str) -> Option<u16> {
    let end = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at_checked(end)?;
    *text = rest;
    digits.parse().ok()
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Release { major, minor, patch } = *self;
        match patch {
            0 | Release::LATEST => write!(f, "{major}.{minor}"),
            _ => write!(f, "{major}.{minor}.{patch}"),
        }
    }
}

/// What a kernel of one release, and of those after it up to the next row, does in its own way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    /// The first release that behaves so.
    pub release: Release,
    /// An accepted RST that leaves the connection ESTABLISHED gives it the timeout of unacknowledged data, not that of
    /// CLOSE (VER-02; "use UNACK timeout for non-closing RST packets", bf80e6802273, 6.12.117).
    pub open_rst_unacknowledged: bool,
    /// An RST may answer a SYN of its own side that was let through and ignored (VER-08; until "do not force CLOSE on
    /// invalid-seq RST without direction check", bed6e04be8e6, 6.1.176, 6.12.93).
    pub rst_answers_own_syn: bool,
    /// Two packets of one flow of a protocol without a tracker may both pass when they clash at confirm (CLASH-02, VER-05;
    /// "Add allow_clash to generic protocol handler", 6.1.165, 6.12.75).
    pub generic_clash: bool,
    /// As `generic_clash`, for GRE (VER-09; in 6.12, not in 6.1).
    pub gre_clash: bool,
    /// A packet whose flow is another one seen from the other side is merged with it, and its port stays (CLASH-02a,
    /// VER-05; `nf_ct_match_reverse`, `nf_nat_used_tuple_new`: in 6.12, not in 6.1). Before, it was enough that the flow
    /// that came first had no bindings.
    pub mirrored_clash: bool,
    /// A port search evicts connections that are over (NAT-PORT-05, VER-05; `nf_nat_used_tuple_harder`: in 6.12, not in
    /// 6.1).
    pub evicts_finished: bool,
    /// A range of destination ports is tried from its first port on, not from a random one (NAT-PORT-03, VER-10; in 6.12,
    /// not in 6.1).
    pub destination_ports_in_order: bool,
    /// Multicast router discovery over IPv6 is not tracked (ICMP6-U-01, VER-11; in 6.12, not in 6.1, where it is
    /// INVALID).
    pub router_discovery_untracked: bool,
    /// The log names TCP packets that begin no connection (VER-03; in 6.12, not in 6.1).
    pub logs_invalid_new: bool,
    /// The log names SCTP packets that are INVALID (VER-03; "use nf log infrastructure for invalid packets", 6.1.184, and
    /// in 6.12).
    pub logs_sctp: bool,
    /// The log of a timeout that INVALID packets lowered has no numbers (VER-03; "defer invalid log until after unlock",
    /// 6.1.184, 6.12.104).
    pub logs_lowered_briefly: bool,
    /// What this release does besides and this crate does not imitate.
    pub beyond: &'static [&'static str],
}

/// How a kernel of 6.18 behaves, seen on 6.18.44. It is what holds where nothing is said.
pub const DEFAULT: &Profile = &V6_18;

/// All profiles, the oldest first.
pub static PROFILES: [&Profile; 10] = [
    &V6_1,
    &Profile { release: Release::new(6, 1, 165), generic_clash: true, ..V6_1 },
    &Profile { release: Release::new(6, 1, 176), generic_clash: true, rst_answers_own_syn: false, ..V6_1 },
    &Profile {
        release: Release::new(6, 1, 184),
        generic_clash: true,
        rst_answers_own_syn: false,
        logs_sctp: true,
        logs_lowered_briefly: true,
        ..V6_1
    },
    &V6_12,
    &Profile { release: Release::new(6, 12, 75), generic_clash: true, ..V6_12 },
    &Profile { release: Release::new(6, 12, 93), generic_clash: true, rst_answers_own_syn: false, ..V6_12 },
    &V6_12_104,
    &Profile { release: Release::new(6, 12, 117), open_rst_unacknowledged: true, ..V6_12_104 },
    &V6_18,
];

/// What no row says of a release before 6.17: its tracker of DCCP (VER-01).
const DCCP: &str = "DCCP has a tracker there and none here";
/// `__nf_conntrack_update`, until 6.1's successors.
const QUEUED: &str = "a packet that waited in a queue moves to the entry that was first there, and is dropped here";

/// The trackers of SCTP and the window checks of TCP are as they were since 6.1.80.
const V6_1: Profile = Profile {
    release: Release::new(6, 1, 80),
    gre_clash: false,
    mirrored_clash: false,
    evicts_finished: false,
    destination_ports_in_order: false,
    router_discovery_untracked: false,
    logs_invalid_new: false,
    logs_sctp: false,
    beyond: &[DCCP, QUEUED],
    ..V6_12
};

const V6_12: Profile = Profile {
    release: Release::new(6, 12, 0),
    rst_answers_own_syn: true,
    generic_clash: false,
    beyond: &[DCCP],
    ..V6_18
};

const V6_12_104: Profile = Profile {
    release: Release::new(6, 12, 104),
    generic_clash: true,
    rst_answers_own_syn: false,
    logs_lowered_briefly: true,
    ..V6_12
};

const V6_18: Profile = Profile {
    release: Release::new(6, 18, 0),
    open_rst_unacknowledged: false,
    rst_answers_own_syn: false,
    generic_clash: true,
    gre_clash: true,
    mirrored_clash: true,
    evicts_finished: true,
    destination_ports_in_order: true,
    router_discovery_untracked: true,
    logs_invalid_new: true,
    logs_sctp: true,
    logs_lowered_briefly: false,
    beyond: &[],
};

/// Why no profile is known for a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownRelease {
    /// It is none that [`Release::parse`] reads.
    Unreadable,
    /// It is older than all of [`PROFILES`].
    TooOld(Release),
}

impl fmt::Display for UnknownRelease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UnknownRelease::Unreadable => f.write_str("is no kernel release such as 6.12 or 6.12.48-amd64")?,
            UnknownRelease::TooOld(_) => f.write_str("is older than what is known")?,
        }
        f.write_str("; known is what kernels do from ")?;
        for (at, profile) in PROFILES.iter().enumerate() {
            write!(f, "{}{}", if at == 0 { "" } else { ", " }, profile.release)?;
        }
        f.write_str(" on")
    }
}

impl core::error::Error for UnknownRelease {}

impl Profile {
    /// The newest profile that is not newer than the release that `uname -r` names. What stable releases of one series got
    /// later says nothing about the next series.
    ///
    /// # Errors
    /// [`UnknownRelease`] when the release cannot be read or is older than all.
    pub fn for_release(release: &str) -> Result<&'static Profile, UnknownRelease> {
        let release = Release::parse(release).ok_or(UnknownRelease::Unreadable)?;
        let series = |release: Release| (release.major, release.minor);
        let mut found: Option<&'static Profile> = None;
        for profile in PROFILES.into_iter().filter(|profile| profile.release <= release) {
            let newer = found.is_none_or(|found| series(found.release) < series(profile.release));
            if newer || series(profile.release) == series(release) {
                found = Some(profile);
            }
        }
        found.ok_or(UnknownRelease::TooOld(release))
    }

    /// As [`Profile::for_release`], for a kernel that is there: the oldest profile where it is older than all, and the
    /// default where its release cannot be read.
    #[must_use]
    pub fn nearest(release: &str) -> &'static Profile {
        let [oldest, ..] = PROFILES;
        Profile::for_release(release).unwrap_or_else(|unknown| match unknown {
            UnknownRelease::Unreadable => DEFAULT,
            UnknownRelease::TooOld(_) => oldest,
        })
    }

    /// May two packets of one flow of the protocol both pass when they clash at confirm (`allow_clash`, CLASH-02)? Where a
    /// lost packet is sent again they never may (CLASH-03).
    #[must_use]
    pub const fn allows_clash(&self, protonum: u8) -> bool {
        match protonum {
            proto::TCP | proto::SCTP | proto::ICMP | proto::ICMPV6 => false,
            proto::UDP | proto::UDPLITE => true,
            proto::GRE => self.gre_clash,
            _ => self.generic_clash,
        }
    }

    /// Is it what holds where nothing is said?
    #[must_use]
    pub fn is_default(&self) -> bool {
        self == DEFAULT
    }
}

impl Default for &Profile {
    fn default() -> Self {
        DEFAULT
    }
}

impl fmt::Display for Profile {
    /// The first release that behaves so.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.release.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString as _;

    fn name(release: &str) -> alloc::string::String {
        Profile::for_release(release).unwrap().to_string()
    }

    #[test]
    fn rows_are_in_order_and_differ() {
        for pair in PROFILES.windows(2) {
            assert!(pair[0].release < pair[1].release);
            assert_ne!(Profile { release: pair[1].release, ..*pair[0] }, *pair[1], "{}", pair[1]);
        }
        assert!(PROFILES[PROFILES.len() - 1].is_default());
    }

    #[test]
    fn a_release_gets_the_newest_row_of_its_series_that_it_has() {
        assert_eq!(name("6.18.44-fc-v669"), "6.18");
        assert_eq!(name("6.12.48-amd64"), "6.12");
        assert_eq!(name("6.12.92"), "6.12.75");
        assert_eq!(name("6.12.117+deb13-amd64"), "6.12.117");
        assert_eq!(name("6.12"), "6.12.117");
        assert_eq!(name("6.1.0-49-amd64"), "6.1.184");
        assert_eq!(name("6.1.80"), "6.1.80");
        assert_eq!(name("7.3-rc1"), "6.18");
    }

    #[test]
    fn what_a_stable_series_got_later_is_not_taken_on_to_the_next() {
        assert_eq!(name("6.6.100"), "6.1.80");
        assert_eq!(name("6.13.2"), "6.12");
    }

    #[test]
    fn what_is_no_release_or_too_old_is_refused_with_all_that_are_known() {
        for text in ["", "6", "6.", "linux", "6.12x", "6.12.", "six.1", "99999999.1"] {
            assert_eq!(Profile::for_release(text), Err(UnknownRelease::Unreadable), "{text}");
        }
        for text in ["5.15.0-91-generic", "6.1.0", "6.1.79-x", "6.0"] {
            assert!(matches!(Profile::for_release(text), Err(UnknownRelease::TooOld(_))), "{text}");
        }
        assert_eq!(Profile::nearest("5.15.0-91-generic").to_string(), "6.1.80");
        assert!(Profile::nearest("linux").is_default());
        let said = UnknownRelease::Unreadable.to_string();
        assert!(said.contains("from 6.1.80, 6.1.165") && said.ends_with("6.12.117, 6.18 on"), "{said}");
    }
}
