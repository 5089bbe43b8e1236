//! What a traceroute shows.

use std::io;
use std::net::IpAddr;

use ctwhy_core::tuple::L3;

use super::ground::Ground;
use super::stage::Stage;

/// How it probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Udp,
    Echo,
    Tcp,
}

impl Method {
    pub(super) const ALL: [Method; 3] = [Method::Udp, Method::Echo, Method::Tcp];

    /// In a sentence.
    const fn noun(self) -> &'static str {
        match self {
            Method::Udp => "UDP",
            Method::Echo => "echo",
            Method::Tcp => "TCP",
        }
    }

    const fn option(self) -> &'static str {
        match self {
            Method::Udp => "",
            Method::Echo => "-I ",
            Method::Tcp => "-T ",
        }
    }

    /// The code of what is observed of it.
    const fn code(self) -> &'static str {
        match self {
            Method::Udp => "traceroute.udp",
            Method::Echo => "traceroute.echo",
            Method::Tcp => "traceroute.tcp",
        }
    }
}

/// For each TTL who answered; `None` is a star.
pub(super) type Hops = Vec<Option<IpAddr>>;

/// Runs a traceroute from the client to the server, and shows what it printed if that is wanted.
pub(super) fn traceroute(
    stage: &mut Stage,
    ground: &Ground<'_>,
    family: L3,
    method: Method,
    shown: bool,
) -> io::Result<Hops> {
    let six = if family == L3::V6 { "-6 " } else { "" };
    let (option, server) = (method.option(), ground.server(family)?);
    let line = format!("traceroute {six}{option}-n -q 1 -N 16 -w 1 -m 4 {server}");
    let (_, output) = ground.run(stage, "client", &line, |_| shown)?;
    Ok(read(&output))
}

/// Traceroutes of all families by these methods, those of IPv4 shown if that is wanted; `expected` says for a family and a
/// method what each is to show, and in words.
pub(super) fn all(
    stage: &mut Stage,
    ground: &Ground<'_>,
    methods: &[Method],
    shown: bool,
    expected: impl Fn(L3, Method) -> io::Result<(&'static str, Hops)>,
) -> io::Result<()> {
    let mut found = Vec::new();
    for family in ground.families {
        for method in methods {
            let hops = traceroute(stage, ground, *family, *method, shown && *family == L3::V4)?;
            found.push((*family, *method, hops));
        }
    }
    for (family, method, hops) in found {
        let (words, expected) = expected(family, method)?;
        let claim = format!("{} traceroute shows {words}", method.noun());
        let observation = ground.observation(method.code(), claim, hops == expected).family(family);
        let list: Vec<Option<String>> = hops.iter().map(|hop| hop.map(|hop| hop.to_string())).collect();
        stage.observe(observation.measured(words_of(&hops)).fact("hops", list));
    }
    Ok(())
}

/// In a line: `203.0.113.1, *, 192.0.2.80`.
fn words_of(hops: &Hops) -> String {
    let words = hops.iter().map(|hop| hop.map_or_else(|| "*".to_owned(), |hop| hop.to_string()));
    words.collect::<Vec<_>>().join(", ")
}

/// Reads the hops from what traceroute prints.
fn read(output: &str) -> Hops {
    let hop = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        words.next()?.parse::<u8>().ok()?;
        Some(words.next()?.parse().ok())
    };
    output.lines().filter(|line| line.starts_with(' ')).filter_map(hop).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hops_are_read() {
        let output =
            "traceroute to 192.0.2.80 (192.0.2.80), 4 hops max, 60 byte packets\n 1  *\n 2  192.0.2.1  0.1 ms\n";
        assert_eq!(read(output), [None, Some(IpAddr::from([192, 0, 2, 1]))]);
        assert_eq!(words_of(&read(output)), "*, 192.0.2.1");
        assert_eq!(read("traceroute: unknown host\n"), Hops::new());
    }
}
