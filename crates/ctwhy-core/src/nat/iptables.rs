//! The text form of rules: the nat table as `iptables-save` and `ip6tables-save` print it.
//!
//! A rule that is not understood is an error, never skipped: a ruleset that is understood in part decides wrongly.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::IpAddr;

use super::range::Range;
use super::rules::{Chain, Condition, Matches, Network, Rule, Ruleset, Target, address_bits};
use crate::tuple::{Addr, L3, has_ports, proto};

/// What a ruleset may hold, for errors.
const SUPPORTED: &str = "-s -d -i -o -p --sport --dport -m tcp|udp|comment, and the targets MASQUERADE, SNAT, DNAT, REDIRECT, ACCEPT, RETURN";

/// A ruleset, and what else stood in the text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parsed {
    /// The nat table; `None` when the text has none.
    pub nat: Option<Ruleset>,
    /// Names of the other tables. They were not read: they do not translate.
    pub other_tables: Vec<String>,
}

/// A line that was not understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleError {
    /// Counted from 1.
    pub line: u32,
    /// What is wrong, and what would be right.
    pub problem: String,
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.problem)
    }
}

impl core::error::Error for RuleError {}

/// Reads the nat table of one family.
///
/// # Errors
/// [`RuleError`] names the first line that is not understood.
pub fn parse(text: &str, l3num: L3) -> Result<Parsed, RuleError> {
    let mut parsed = Parsed::default();
    let mut in_nat = false;
    for (line, number) in text.lines().zip(1u32..) {
        let error = |problem: String| RuleError { line: number, problem };
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(table) = line.strip_prefix('*') {
            in_nat = table == "nat";
            if in_nat {
                parsed.nat.get_or_insert_default();
            } else {
                parsed.other_tables.push(table.to_owned());
            }
            continue;
        }
        if line == "COMMIT" {
            in_nat = false;
            continue;
        }
        let Some(ruleset) = parsed.nat.as_mut().filter(|_| in_nat) else {
            if parsed.other_tables.is_empty() {
                return Err(error(alloc::format!(
                    "'{}' stands before any table: the text should be the output of iptables-save, with a line '*nat' first",
                    word(line)
                )));
            }
            continue;
        };
        if let Some(declaration) = line.strip_prefix(':') {
            declare(ruleset, declaration).map_err(error)?;
        } else {
            let (chain, rule) = RuleParser { l3num, line: number }.rule(line).map_err(error)?;
            chain_named(ruleset, chain).map_err(error)?.rules.push(rule);
        }
    }
    Ok(parsed)
}

/// The first word, for errors.
fn word(line: &str) -> &str {
    line.split_whitespace().next().unwrap_or("")
}

/// `PREROUTING ACCEPT [0:0]`
fn declare(ruleset: &mut Ruleset, declaration: &str) -> Result<(), String> {
    let mut words = declaration.split_whitespace();
    let name = words.next().unwrap_or("");
    let drops = match words.next() {
        Some("ACCEPT") => false,
        Some("DROP") => true,
        _ => {
            return Err(alloc::format!(
                "chain '{name}' is not a base chain; only PREROUTING, INPUT, OUTPUT and POSTROUTING are supported"
            ));
        }
    };
    base_chain(ruleset, name)?.drops = drops;
    Ok(())
}

/// The chains of the table, with what may be done in them.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ChainName {
    Prerouting,
    Input,
    Output,
    Postrouting,
}

impl ChainName {
    fn parse(name: &str) -> Result<ChainName, String> {
        Ok(match name {
            "PREROUTING" => ChainName::Prerouting,
            "INPUT" => ChainName::Input,
            "OUTPUT" => ChainName::Output,
            "POSTROUTING" => ChainName::Postrouting,
            _ => {
                return Err(alloc::format!(
                    "chain '{name}' is not supported; only PREROUTING, INPUT, OUTPUT and POSTROUTING are"
                ));
            }
        })
    }

    /// Does the target make sense there? iptables refuses the others.
    const fn takes(self, target: &Target) -> bool {
        match target {
            Target::Accept | Target::Drop => true,
            Target::Masquerade(_) => matches!(self, ChainName::Postrouting),
            Target::Snat(_) => matches!(self, ChainName::Postrouting | ChainName::Input),
            Target::Dnat(_) | Target::Redirect(_) => matches!(self, ChainName::Prerouting | ChainName::Output),
        }
    }
}

fn base_chain<'a>(ruleset: &'a mut Ruleset, name: &str) -> Result<&'a mut Chain, String> {
    ChainName::parse(name).and_then(|name| chain_named(ruleset, name))
}

fn chain_named(ruleset: &mut Ruleset, name: ChainName) -> Result<&mut Chain, String> {
    Ok(match name {
        ChainName::Prerouting => &mut ruleset.prerouting,
        ChainName::Input => &mut ruleset.input,
        ChainName::Output => &mut ruleset.output,
        ChainName::Postrouting => &mut ruleset.postrouting,
    })
}

struct RuleParser {
    l3num: L3,
    line: u32,
}

impl RuleParser {
    /// `[1:2] -A POSTROUTING -s 10.0.0.0/8 -o wan -j MASQUERADE`
    fn rule(&self, line: &str) -> Result<(ChainName, Rule), String> {
        let words = split_words(line)?;
        let mut words = words.iter().map(String::as_str).peekable();
        if words.peek().is_some_and(|word| word.starts_with('[')) {
            words.next();
        }
        let chain = match (words.next(), words.next()) {
            (Some("-A"), Some(chain)) => ChainName::parse(chain)?,
            (Some(other), _) => {
                return Err(alloc::format!(
                    "'{other}' is not supported; a rule begins with -A and the name of a chain"
                ));
            }
            (None, _) => return Err("empty rule".to_owned()),
        };
        let mut matches = Matches::default();
        let mut target = None;
        let mut negated = false;
        while let Some(option) = words.next() {
            if option == "!" {
                negated = true;
                continue;
            }
            let mut value = || words.next().ok_or_else(|| alloc::format!("'{option}' needs a value"));
            match option {
                "-s" | "--source" => set(&mut matches.src, self.network(value()?)?, negated, option)?,
                "-d" | "--destination" => set(&mut matches.dst, self.network(value()?)?, negated, option)?,
                "-i" | "--in-interface" => set(&mut matches.in_interface, value()?.to_owned(), negated, option)?,
                "-o" | "--out-interface" => set(&mut matches.out_interface, value()?.to_owned(), negated, option)?,
                "-p" | "--protocol" => set(&mut matches.protocol, protocol(value()?)?, negated, option)?,
                "--sport" | "--source-port" => set(&mut matches.sport, ports(value()?, ':')?, negated, option)?,
                "--dport" | "--destination-port" => set(&mut matches.dport, ports(value()?, ':')?, negated, option)?,
                "-m" | "--match" if !negated => match value()? {
                    "tcp" | "udp" | "comment" => {}
                    other => return Err(unsupported("match", other)),
                },
                "--comment" if !negated => {
                    value()?;
                }
                "-j" | "--jump" if !negated => {
                    let name = value()?;
                    target = Some(self.target(name, &mut words)?);
                    break;
                }
                other if negated => {
                    return Err(alloc::format!("'! {other}' is not supported; supported are {SUPPORTED}"));
                }
                other => return Err(unsupported("option", other)),
            }
            negated = false;
        }
        let target = target.ok_or_else(|| "the rule has no target (-j)".to_owned())?;
        if !chain.takes(&target) {
            return Err("this target is not allowed in this chain: MASQUERADE belongs in POSTROUTING, SNAT in POSTROUTING or INPUT, DNAT and REDIRECT in PREROUTING or OUTPUT".to_owned());
        }
        self.check_ports(&matches, &target)?;
        Ok((chain, Rule { line: self.line, matches, target }))
    }

    /// Ports, wherever they stand, need a protocol that has some.
    fn check_ports(&self, matches: &Matches, target: &Target) -> Result<(), String> {
        let to_ports = match target {
            Target::Accept | Target::Drop => false,
            Target::Masquerade(range) | Target::Snat(range) | Target::Dnat(range) | Target::Redirect(range) => {
                range.ports.is_some()
            }
        };
        let with_ports = matches.protocol.is_some_and(|protocol| !protocol.negated && has_ports(protocol.value));
        if (to_ports || matches.sport.is_some() || matches.dport.is_some()) && !with_ports {
            return Err("a rule with ports needs -p tcp, udp, udplite or sctp".to_owned());
        }
        Ok(())
    }

    fn target<'a>(&self, name: &str, words: &mut impl Iterator<Item = &'a str>) -> Result<Target, String> {
        let mut range = Range::default();
        let address_option = match name {
            "SNAT" => Some("--to-source"),
            "DNAT" => Some("--to-destination"),
            _ => None,
        };
        let takes_ports = matches!(name, "MASQUERADE" | "REDIRECT");
        let translates = takes_ports || address_option.is_some();
        let mut addressed = false;
        while let Some(option) = words.next() {
            let mut value = || words.next().ok_or_else(|| alloc::format!("'{option}' needs a value"));
            match option {
                "--to-ports" if takes_ports => range.ports = Some(ports(value()?, '-')?),
                _ if Some(option) == address_option => {
                    if addressed {
                        return Err(alloc::format!("'{option}' stands twice; one range is supported"));
                    }
                    addressed = true;
                    let Range { addresses, ports, .. } = self.address_range(value()?)?;
                    range = Range { addresses, ports, ..range };
                }
                "--random" | "--random-fully" if translates => range.random = true,
                "--persistent" if address_option.is_some() => range.persistent = true,
                other => return Err(unsupported("option", other)),
            }
        }
        match name {
            "MASQUERADE" => Ok(Target::Masquerade(range)),
            "REDIRECT" => Ok(Target::Redirect(range)),
            "SNAT" if addressed => Ok(Target::Snat(range)),
            "DNAT" if addressed => Ok(Target::Dnat(range)),
            "SNAT" | "DNAT" => Err(alloc::format!("{name} needs {}", address_option.unwrap_or_default())),
            // In a base chain RETURN means the policy, and the policy of nat is ACCEPT in all that matters.
            "ACCEPT" | "RETURN" => Ok(Target::Accept),
            "DROP" => Ok(Target::Drop),
            other => Err(unsupported("target", other)),
        }
    }

    fn address(&self, text: &str) -> Result<Addr, String> {
        let address: IpAddr = text.parse().map_err(|_| alloc::format!("'{text}' is not an IP address"))?;
        match (self.l3num, address) {
            (L3::V4, IpAddr::V4(_)) | (L3::V6, IpAddr::V6(_)) => Ok(address.into()),
            (L3::V4, _) => Err(alloc::format!("'{text}' is an IPv6 address in IPv4 rules")),
            (L3::V6, _) => Err(alloc::format!("'{text}' is an IPv4 address in IPv6 rules")),
        }
    }

    /// `10.0.0.0/8`, `10.0.0.0/255.0.0.0`, `2001:db8::/32`, an address alone.
    fn network(&self, text: &str) -> Result<Network, String> {
        let bits = address_bits(self.l3num);
        let (address, prefix) = match text.split_once('/') {
            None => (text, bits),
            Some((address, mask)) => {
                let prefix = match mask.parse::<u8>() {
                    Ok(prefix) if prefix <= bits => Some(prefix),
                    Ok(_) => None,
                    Err(_) => self.address(mask).ok().and_then(|mask| contiguous(mask, bits)),
                };
                (
                    address,
                    prefix
                        .ok_or_else(|| alloc::format!("'{mask}' is not a prefix length or a mask of ones and zeros"))?,
                )
            }
        };
        Ok(Network { address: self.address(address)?, prefix })
    }

    /// `192.0.2.1`, `192.0.2.1-192.0.2.9:1024-2047`, `:8080`, `[2001:db8::1]:80`.
    fn address_range(&self, text: &str) -> Result<Range, String> {
        let (addresses, to_ports) = match self.l3num {
            L3::V6 => match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
                Some((addresses, "")) => (addresses, None),
                Some((addresses, rest)) => {
                    let rest = rest.strip_prefix(':');
                    (addresses, Some(rest.ok_or_else(|| alloc::format!("'{text}' is not [address]:port"))?))
                }
                None => (text, None),
            },
            L3::V4 => match text.split_once(':') {
                Some((addresses, to_ports)) => (addresses, Some(to_ports)),
                None => (text, None),
            },
        };
        let to_ports = to_ports.map(|text| ports(text, '-')).transpose()?;
        if addresses.is_empty() {
            return Ok(Range { ports: to_ports, ..Range::default() });
        }
        let (first, last) = addresses.split_once('-').unwrap_or((addresses, addresses));
        let (first, last) =
            (self.address(first.trim_matches(['[', ']']))?, self.address(last.trim_matches(['[', ']']))?);
        if first > last {
            return Err(alloc::format!("'{addresses}' ends before it begins"));
        }
        Ok(Range { addresses: Some((first, last)), ports: to_ports, ..Range::default() })
    }
}

fn unsupported(what: &str, word: &str) -> String {
    alloc::format!("{what} '{word}' is not supported; supported are {SUPPORTED}")
}

fn set<T>(condition: &mut Option<Condition<T>>, value: T, negated: bool, option: &str) -> Result<(), String> {
    match condition.replace(Condition { value, negated }) {
        None => Ok(()),
        Some(_) => Err(alloc::format!("'{option}' stands twice")),
    }
}

/// The length of a mask that is ones and then zeros.
fn contiguous(mask: Addr, bits: u8) -> Option<u8> {
    let value = u128::from_be_bytes(mask.0);
    let ones = value.leading_ones();
    (ones + value.trailing_zeros().min(128) == 128 && ones <= u32::from(bits)).then_some(ones as u8)
}

/// `80`, `1024:2047` in matches, `1024-2047` in targets. `1024:` and `:2047` are open ranges.
fn ports(text: &str, separator: char) -> Result<(u16, u16), String> {
    let wrong = || alloc::format!("'{text}' is not a port or a range of ports");
    let port = |text: &str| text.parse::<u16>().map_err(|_| wrong());
    let (first, last) = match text.split_once(separator) {
        None => (port(text)?, port(text)?),
        Some(("", last)) if separator == ':' => (0, port(last)?),
        Some((first, "")) if separator == ':' => (port(first)?, u16::MAX),
        Some((first, last)) => (port(first)?, port(last)?),
    };
    if first > last { Err(wrong()) } else { Ok((first, last)) }
}

fn protocol(text: &str) -> Result<u8, String> {
    Ok(match text {
        "tcp" => proto::TCP,
        "udp" => proto::UDP,
        "icmp" => proto::ICMP,
        "ipv6-icmp" | "icmpv6" => proto::ICMPV6,
        "gre" => proto::GRE,
        "sctp" => proto::SCTP,
        "udplite" => proto::UDPLITE,
        "esp" => 50,
        "ah" => 51,
        number => number.parse().map_err(|_| alloc::format!("protocol '{number}' is not known; give its number"))?,
    })
}

/// Words as `iptables-save` quotes them: `"` around, `\` before a quote or a backslash.
fn split_words(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut chars = line.chars().peekable();
    while let Some(&first) = chars.peek() {
        if first.is_whitespace() {
            chars.next();
            continue;
        }
        let mut word = String::new();
        if first == '"' {
            chars.next();
            loop {
                match chars.next() {
                    Some('"') => break,
                    Some('\\') => word.extend(chars.next()),
                    Some(other) => word.push(other),
                    None => return Err("a quotation mark is not closed".to_owned()),
                }
            }
        } else {
            while let Some(other) = chars.next_if(|c| !c.is_whitespace()) {
                word.push(other);
            }
        }
        words.push(word);
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nat(rules: &str, l3num: L3) -> Result<Ruleset, RuleError> {
        let text = alloc::format!("*nat\n:POSTROUTING ACCEPT [0:0]\n{rules}\nCOMMIT\n");
        parse(&text, l3num).map(|parsed| parsed.nat.unwrap_or_default())
    }

    #[test]
    fn a_ruleset_as_the_tool_prints_it() {
        let text = "# Generated by iptables-save v1.8.9 (nf_tables)\n*mangle\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -j MARK --set-mark 1\nCOMMIT\n*nat\n:PREROUTING ACCEPT [5:300]\n:INPUT ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n[3:180] -A PREROUTING -d 203.0.113.1/32 -i wan -p tcp -m tcp --dport 80:81 -m comment --comment \"the \\\"web\\\" server\" -j DNAT --to-destination 10.0.1.2:8080\n-A POSTROUTING -s 10.0.1.0/24 ! -d 10.0.0.0/255.0.0.0 -o wan -j MASQUERADE --random-fully\nCOMMIT\n# Completed\n";
        let parsed = parse(text, L3::V4).unwrap();
        assert_eq!(parsed.other_tables, ["mangle"]);
        let ruleset = parsed.nat.unwrap();
        let [dnat] = &ruleset.prerouting.rules[..] else { panic!() };
        assert_eq!(dnat.line, 11);
        assert_eq!(dnat.matches.dport, Some(Condition { value: (80, 81), negated: false }));
        let Target::Dnat(range) = dnat.target else { panic!() };
        assert_eq!(range.ports, Some((8080, 8080)));
        assert_eq!(range.addresses.unwrap().0.ip(L3::V4), IpAddr::from([10, 0, 1, 2]));
        let [masquerade] = &ruleset.postrouting.rules[..] else { panic!() };
        assert!(matches!(masquerade.target, Target::Masquerade(Range { random: true, .. })));
        let dst = masquerade.matches.dst.unwrap();
        assert!(dst.negated && dst.value.prefix == 8);
    }

    #[test]
    fn ipv6_addresses_stand_in_brackets_before_a_port() {
        let ruleset =
            nat("-A PREROUTING -p udp -j DNAT --to-destination [2001:db8::1-2001:db8::9]:53-54", L3::V6).unwrap();
        let Target::Dnat(range) = ruleset.prerouting.rules[0].target else { panic!() };
        assert_eq!(range.ports, Some((53, 54)));
        assert_eq!(range.addresses.unwrap().1.ip(L3::V6), "2001:db8::9".parse::<IpAddr>().unwrap());
        assert!(nat("-A POSTROUTING -j SNAT --to-source 2001:db8::1", L3::V6).is_ok());
    }

    #[test]
    fn what_is_not_understood_is_named_with_its_line() {
        for (rule, named) in [
            ("-A POSTROUTING -m statistic --mode random -j MASQUERADE", "'statistic'"),
            ("-A POSTROUTING --frobnicate 1 -j MASQUERADE", "'--frobnicate'"),
            ("-A DOCKER -j MASQUERADE", "'DOCKER'"),
            ("-A POSTROUTING -j DOCKER", "'DOCKER'"),
            ("-A POSTROUTING -j NETMAP --to 10.0.0.0/8", "'--to'"),
            ("-A PREROUTING -j MASQUERADE", "POSTROUTING"),
            ("-A POSTROUTING -j DNAT --to-destination 10.0.0.1", "PREROUTING"),
            ("-A POSTROUTING -s 10.0.0.0/33 -j MASQUERADE", "'33'"),
            ("-A POSTROUTING -s 10.0.0.0/255.0.255.0 -j MASQUERADE", "'255.0.255.0'"),
            ("-A POSTROUTING -s 2001:db8::1 -j MASQUERADE", "IPv6"),
            ("-A POSTROUTING -s host.example -j MASQUERADE", "'host.example'"),
            ("-A POSTROUTING -p tcp -j SNAT --to-source 10.0.0.9-10.0.0.1", "ends before"),
            ("-A POSTROUTING -j SNAT --to-source 10.0.0.1:80", "-p tcp"),
            ("-A PREROUTING --dport 80 -j REDIRECT", "-p tcp"),
            ("-A POSTROUTING -p tcp --dport 70000 -j MASQUERADE", "'70000'"),
            ("-A POSTROUTING -p carrier-pigeon -j MASQUERADE", "'carrier-pigeon'"),
            ("-A POSTROUTING -j SNAT", "--to-source"),
            ("-A POSTROUTING -s", "needs a value"),
            ("-A POSTROUTING -s 10.0.0.1", "no target"),
            ("-A POSTROUTING -s 10.0.0.1 -s 10.0.0.2 -j MASQUERADE", "twice"),
            ("-I POSTROUTING -j MASQUERADE", "'-I'"),
            ("-A POSTROUTING -m comment --comment \"open -j MASQUERADE", "quotation"),
        ] {
            let error = nat(rule, L3::V4).unwrap_err();
            assert_eq!(error.line, 3, "{rule}");
            assert!(error.problem.contains(named), "{rule}: {error}");
        }
        assert_eq!(parse("-A POSTROUTING -j MASQUERADE\n", L3::V4).unwrap_err().line, 1);
        assert_eq!(parse("*filter\n-A FORWARD -j DROP\nCOMMIT\n", L3::V4).unwrap().nat, None);
    }
}
