//! What the raw table asks of conntrack before it sees a packet: `-j CT` (`IPS_TEMPLATE`; TMPL-01).

use core::fmt;

use crate::event::Causes;
use crate::zone::Zone;

/// How a packet is to be looked up, and what the flow that it may begin gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Template {
    /// The zone of the look-up, and of a flow that begins.
    pub zone: Zone,
    /// The helper of a flow that begins.
    pub helper: Option<HelperName>,
    /// What is told about a flow that begins; `None` for everything.
    pub events: Option<Causes>,
}

impl Template {
    /// That of a packet about which no rule says anything.
    pub const NONE: Template = Template { zone: Zone { id: 0, only: None }, helper: None, events: None };
}

/// The name of a helper: at most 15 bytes (`NF_CT_HELPER_NAME_LEN`).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct HelperName {
    bytes: [u8; HelperName::LONGEST],
    len: u8,
}

impl HelperName {
    /// Bytes of the longest name.
    pub const LONGEST: usize = 15;

    /// The name; `None` when it is empty or too long.
    #[must_use]
    pub fn new(name: &str) -> Option<HelperName> {
        let mut bytes = [0; HelperName::LONGEST];
        bytes.get_mut(..name.len()).filter(|part| !part.is_empty())?.copy_from_slice(name.as_bytes());
        Some(HelperName { bytes, len: name.len() as u8 })
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let name = self.bytes.get(..usize::from(self.len)).unwrap_or_default();
        core::str::from_utf8(name).unwrap_or_default()
    }
}

impl fmt::Debug for HelperName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for HelperName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_helper_name_has_1_to_15_bytes() {
        assert_eq!(HelperName::new("Q.931").map(|name| name.as_str().len()), Some(5));
        assert_eq!(HelperName::new("netbios-ns-12345"), None);
        assert_eq!(HelperName::new("netbios-ns-1234").map(|name| name.as_str() == "netbios-ns-1234"), Some(true));
        assert_eq!(HelperName::new(""), None);
    }
}
