//! An address with a prefix length, as `ip address` and `ip route` write it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An address and how many of its leading bits name the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

/// Why a text is no [`Prefix`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrefixError {
    text: String,
    problem: &'static str,
}

impl fmt::Display for PrefixError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` {}; write it like 10.0.1.1/24 or 2001:db8::1/64", self.text, self.problem)
    }
}

impl std::error::Error for PrefixError {}

impl Prefix {
    /// An address with the first `length` bits as its network; `None` when it has not so many.
    #[must_use]
    pub fn new(address: IpAddr, length: u8) -> Option<Self> {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        (length <= bits).then_some(Prefix { address, length })
    }

    /// The address as written, host bits and all.
    #[must_use]
    pub fn address(self) -> IpAddr {
        self.address
    }

    /// How many bits name the network.
    #[must_use]
    pub fn length(self) -> u8 {
        self.length
    }

    /// The network: the address with its host bits cleared.
    #[must_use]
    pub fn network(self) -> IpAddr {
        let shift = |bits: u8| u32::from(bits - self.length.min(bits));
        match self.address {
            IpAddr::V4(a) => Ipv4Addr::from_bits(a.to_bits() & u32::MAX.checked_shl(shift(32)).unwrap_or(0)).into(),
            IpAddr::V6(a) => Ipv6Addr::from_bits(a.to_bits() & u128::MAX.checked_shl(shift(128)).unwrap_or(0)).into(),
        }
    }

    /// Whether the address is in the network; never across families.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        Prefix::new(address, self.length)
            .is_some_and(|other| other.address.is_ipv4() == self.address.is_ipv4() && other.network() == self.network())
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let error = |problem| PrefixError { text: text.to_owned(), problem };
        let (address, length) = text.split_once('/').ok_or_else(|| error("has no prefix length"))?;
        let address = address.parse().map_err(|_| error("does not start with an IP address"))?;
        let length = length.parse().map_err(|_| error("has a prefix length that is no number"))?;
        Prefix::new(address, length).ok_or_else(|| error("has a prefix length beyond the address"))
    }
}

impl Serialize for Prefix {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Prefix {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_and_what_they_contain() {
        let lan: Prefix = "10.0.1.77/24".parse().unwrap();
        assert_eq!((lan.network(), lan.to_string()), ("10.0.1.0".parse().unwrap(), "10.0.1.77/24".to_owned()));
        assert!(lan.contains("10.0.1.255".parse().unwrap()));
        assert!(!lan.contains("10.0.2.1".parse().unwrap()));
        assert!(!lan.contains("2001:db8::1".parse().unwrap()));
        for all in ["0.0.0.0/0", "1.2.3.4/0"] {
            let all: Prefix = all.parse().unwrap();
            assert!(all.contains("255.255.255.255".parse().unwrap()));
            assert!(!all.contains("::".parse().unwrap()));
        }
        let v6: Prefix = "2001:db8::1/64".parse().unwrap();
        assert!(v6.contains("2001:db8::ffff:0:0:1".parse().unwrap()));
        assert!(!v6.contains("10.0.0.1".parse().unwrap()));
        assert_eq!("::1/128".parse::<Prefix>().unwrap().network(), "::1".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn what_is_no_prefix_says_why() {
        for (text, problem) in [
            ("10.0.1.1", "has no prefix length"),
            ("lan/24", "does not start with an IP address"),
            ("10.0.1.1/x", "has a prefix length that is no number"),
            ("10.0.1.1/33", "has a prefix length beyond the address"),
            ("::/129", "has a prefix length beyond the address"),
        ] {
            assert!(text.parse::<Prefix>().unwrap_err().to_string().contains(problem), "{text}");
        }
    }
}
