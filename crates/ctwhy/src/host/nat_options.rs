//! `--nat-option`: where NAT is to do otherwise than the kernel.

use std::num::NonZeroU16;
use std::str::FromStr;

use clap::Args;
use ctwhy_core::nat::blocks::PortBlocks;
use ctwhy_core::nat::options::{Filtering, Options};
use ctwhy_core::rules::Network;
use ctwhy_core::tuple::{Addr, L3};
use ctwhy_fixture::case::Prefix;

use crate::failure::Failure;

/// Options of NAT, for every command whose engine translates.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct NatOptions {
    /// Let NAT do otherwise than the kernel, may be repeated: endpoint-independent-mapping, filtering=WHO, hairpin,
    /// port-blocks=PREFIX,SIZE or PREFIX,SIZE,FIRST, verify-quoted-header, drop-source-quench
    #[arg(long = "nat-option", value_name = "NAME[=VALUE]")]
    given: Vec<NatOption>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NatOption {
    Mapping,
    Filtering(Filtering),
    Hairpin,
    Blocks(PortBlocks),
    VerifyQuotedHeader,
    DropSourceQuench,
}

const NAMES: [&str; 6] = [
    "endpoint-independent-mapping",
    "filtering",
    "hairpin",
    "port-blocks",
    "verify-quoted-header",
    "drop-source-quench",
];

impl NatOption {
    const fn name(&self) -> &'static str {
        match self {
            NatOption::Mapping => NAMES[0],
            NatOption::Filtering(_) => NAMES[1],
            NatOption::Hairpin => NAMES[2],
            NatOption::Blocks(_) => NAMES[3],
            NatOption::VerifyQuotedHeader => NAMES[4],
            NatOption::DropSourceQuench => NAMES[5],
        }
    }
}

impl FromStr for NatOption {
    type Err = String;

    fn from_str(text: &str) -> Result<NatOption, String> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        };
        match (name, value) {
            ("endpoint-independent-mapping", None) => Ok(NatOption::Mapping),
            ("hairpin", None) => Ok(NatOption::Hairpin),
            ("verify-quoted-header", None) => Ok(NatOption::VerifyQuotedHeader),
            ("drop-source-quench", None) => Ok(NatOption::DropSourceQuench),
            ("filtering", Some(value)) => filtering(value).map(NatOption::Filtering),
            ("port-blocks", Some(value)) => blocks(value).map(NatOption::Blocks),
            ("filtering", None) => Err(format!("write filtering=WHO, which is {}", names_of_filtering())),
            ("port-blocks", None) => Err(BLOCKS.to_owned()),
            (known, Some(_)) if NAMES.contains(&known) => Err(format!("{known} takes no value")),
            _ => Err(format!("there is no option '{name}' of NAT; known are {}", NAMES.join(", "))),
        }
    }
}

const FILTERINGS: [Filtering; 3] =
    [Filtering::EndpointIndependent, Filtering::AddressDependent, Filtering::AddressAndPortDependent];

fn names_of_filtering() -> String {
    FILTERINGS.map(Filtering::name).join(", ")
}

fn filtering(value: &str) -> Result<Filtering, String> {
    let known = FILTERINGS.into_iter().find(|filtering| filtering.name() == value);
    known.ok_or_else(|| format!("'{value}' is no way of filtering; known are {}", names_of_filtering()))
}

const BLOCKS: &str = "write port-blocks=PREFIX,SIZE[,FIRST], such as port-blocks=10.0.1.0/24,256,1024: \
                      the addresses inside, how many ports each has, and where the first block begins";

fn blocks(value: &str) -> Result<PortBlocks, String> {
    /// Where blocks begin unless it is said: behind the ports that servers have.
    const FIRST: u16 = 1024;
    let mut parts = value.split(',');
    let (Some(inside), Some(size)) = (parts.next(), parts.next()) else { return Err(BLOCKS.to_owned()) };
    let inside: Prefix = inside.parse().map_err(|_| format!("'{inside}' is no prefix such as 10.0.1.0/24"))?;
    let size: NonZeroU16 = size.parse().map_err(|_| format!("'{size}' is no number of ports from 1 to 65535"))?;
    let first = match parts.next() {
        Some(first) => first.parse().map_err(|_| format!("'{first}' is no port"))?,
        None => FIRST,
    };
    if parts.next().is_some() {
        return Err(BLOCKS.to_owned());
    }
    let l3num = if inside.address().is_ipv4() { L3::V4 } else { L3::V6 };
    let network = Network { address: Addr::from(inside.address()), prefix: inside.length() };
    let blocks = PortBlocks { l3num, inside: network, size, first };
    if blocks.per_address() == 0 {
        return Err(format!("no block of {size} ports begins at {first}: take fewer ports, or begin earlier"));
    }
    Ok(blocks)
}

impl NatOptions {
    /// What is asked for; as the kernel does it where nothing is.
    ///
    /// # Errors
    /// An option that is there twice, or one that means nothing without another.
    pub(crate) fn options(&self) -> Result<Options, Failure> {
        let mut options = Options::KERNEL;
        let mut who = None;
        for (index, option) in self.given.iter().enumerate() {
            let name = option.name();
            if self.given.iter().take(index).any(|earlier| earlier.name() == name) {
                return Err(Failure::usage(format!("--nat-option {name} is there twice")));
            }
            match *option {
                NatOption::Mapping => {}
                NatOption::Filtering(filtering) => who = Some(filtering),
                NatOption::Hairpin => options.hairpin = true,
                NatOption::Blocks(blocks) => options.blocks = Some(blocks),
                NatOption::VerifyQuotedHeader => options.verify_quoted_header = true,
                NatOption::DropSourceQuench => options.drop_source_quench = true,
            }
        }
        if self.given.contains(&NatOption::Mapping) {
            options.mapping = Some(who.unwrap_or(Filtering::AddressAndPortDependent));
        } else if who.is_some() {
            let missing = "--nat-option filtering needs --nat-option endpoint-independent-mapping: \
                           without it an end outside does not stand for one inside";
            return Err(Failure::usage(missing));
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // A test that cannot go on fails.

    use super::*;

    fn options(given: &[&str]) -> Result<Options, String> {
        let given = given.iter().map(|text| text.parse()).collect::<Result<_, String>>()?;
        NatOptions { given }.options().map_err(|failure| format!("{failure:?}"))
    }

    #[test]
    fn options_are_what_they_say() {
        let independent = |filtering| Options { mapping: Some(filtering), ..Options::KERNEL };
        assert_eq!(options(&[]), Ok(Options::KERNEL));
        assert_eq!(options(&["endpoint-independent-mapping"]), Ok(independent(Filtering::AddressAndPortDependent)));
        for filtering in FILTERINGS {
            let text = format!("filtering={}", filtering.name());
            assert_eq!(options(&[&text, "endpoint-independent-mapping"]), Ok(independent(filtering)));
        }
        let rest = options(&["hairpin", "verify-quoted-header", "drop-source-quench", "port-blocks=10.0.1.0/24,256"]);
        let inside = Network { address: Addr::from("10.0.1.0".parse::<std::net::IpAddr>().unwrap()), prefix: 24 };
        let blocks = PortBlocks { l3num: L3::V4, inside, size: NonZeroU16::new(256).unwrap(), first: 1024 };
        let expected = Options {
            mapping: None,
            hairpin: true,
            blocks: Some(blocks),
            verify_quoted_header: true,
            drop_source_quench: true,
        };
        assert_eq!(rest, Ok(expected));
        let later = options(&["port-blocks=10.0.1.0/24,256,5000"]).unwrap().blocks;
        assert_eq!(later, Some(PortBlocks { first: 5000, ..blocks }));
    }

    #[test]
    fn what_is_not_understood_says_what_would_be() {
        for (given, says) in [
            (&["symmetric"][..], "known are endpoint-independent-mapping, filtering"),
            (&["hairpin=yes"], "takes no value"),
            (&["filtering"], "filtering=WHO"),
            (&["filtering=none", "endpoint-independent-mapping"], "known are endpoint-independent, address-dependent"),
            (&["filtering=address-dependent"], "needs --nat-option endpoint-independent-mapping"),
            (&["hairpin", "hairpin"], "twice"),
            (&["port-blocks"], "PREFIX,SIZE"),
            (&["port-blocks=10.0.1.0/24"], "PREFIX,SIZE"),
            (&["port-blocks=10.0.1.0/24,1,2,3"], "PREFIX,SIZE"),
            (&["port-blocks=inside,256"], "no prefix"),
            (&["port-blocks=10.0.1.0/24,0"], "no number of ports"),
            (&["port-blocks=10.0.1.0/24,256,70000"], "no port"),
            (&["port-blocks=10.0.1.0/24,256,65500"], "no block of 256 ports begins at 65500"),
        ] {
            let error = options(given).unwrap_err();
            assert!(error.contains(says), "{given:?}: {error}");
        }
    }
}
