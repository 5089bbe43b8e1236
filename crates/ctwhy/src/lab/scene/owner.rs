//! Whose connection it is: what `ss` lists while one is open.

use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, SocketAddr};

use ctwhy_core::tuple::{L3, Tuple};

use super::compare::Both;
use super::ground::Ground;
use super::hops::Method;
use super::stage::Stage;
use super::web;

/// A connected socket.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Socket {
    local: SocketAddr,
    /// The program that it belongs to, where that can be seen.
    program: Option<String>,
}

/// The sockets of client and NAT while a connection was open.
pub(super) struct Owners {
    family: L3,
    client: Vec<Socket>,
    nat: Vec<Socket>,
}

/// Opens a connection to the server for each family, looks at both nodes while it is open, and shows that of IPv4.
pub(super) fn look(stage: &mut Stage, ground: &Ground<'_>) -> io::Result<Vec<Owners>> {
    let stage = RefCell::new(stage);
    let of = |family| {
        let server = ground.server(family)?;
        let line = match family {
            L3::V4 => format!("ss -tnp dst {server}"),
            L3::V6 => format!("ss -tnp dst [{server}]"),
        };
        let list = |node| -> io::Result<Vec<Socket>> {
            let (_, output) = ground.run(&mut stage.borrow_mut(), node, &line, |_| family == L3::V4)?;
            Ok(sockets(&output, server))
        };
        let (mut client, mut nat) = (Vec::new(), Vec::new());
        web::get(ground.lab, server, "held-open", || {
            (client, nat) = (list("client")?, list("nat")?);
            Ok(())
        })?;
        Ok(Owners { family, client, nat })
    };
    ground.families.iter().copied().map(of).collect()
}

/// The established connections to a host's web port that `ss -tnp` lists.
fn sockets(output: &str, server: IpAddr) -> Vec<Socket> {
    let peer = SocketAddr::new(server, web::PORT);
    let socket = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let (state, local, found) = (words.next()?, words.nth(2)?, words.next()?);
        let program = words.next().and_then(|users| Some(users.split('"').nth(1)?.to_owned()));
        let same = state == "ESTAB" && found.parse() == Ok(peer);
        same.then_some(Socket { local: local.parse().ok()?, program })
    };
    output.lines().filter_map(socket).collect()
}

/// Observes whether the NAT's node has a socket for what was seen outside, or none.
pub(super) fn observe(
    stage: &mut Stage,
    ground: &Ground<'_>,
    both: &Both,
    owners: &[Owners],
    owned: bool,
) -> io::Result<()> {
    for Owners { family, client, nat } in owners {
        let claim = match owned {
            true => "the connection outside belongs to a socket of the host's",
            false => "the NAT has no socket for the connection",
        };
        let connections = both.sent(Method::Tcp, ground.server(*family)?);
        let Some((own, other)) = connections.last() else {
            stage.observe(ground.observation("owner", claim, false).family(*family).measured("no connection was seen"));
            continue;
        };
        let from = |tuple: &Tuple| SocketAddr::new(tuple.src_ip(), tuple.src_u);
        let (inside, outside) = (from(&own.tuple), from(&other.tuple));
        let clients = client.iter().any(|socket| socket.local == inside);
        let socket = nat.iter().find(|socket| socket.local == outside);
        let observed = clients && if owned { socket.is_some() } else { nat.is_empty() };
        let whose = match socket {
            Some(Socket { program: Some(program), .. }) => format!("{outside} of {program} on nat"),
            Some(_) => format!("{outside} of a program on nat"),
            None => format!("none for {outside} among {} on nat", nat.len()),
        };
        let own = if clients { inside.to_string() } else { format!("none for {inside}") };
        let measured = format!("sockets are {own} on client, {whose}");
        let observation = ground.observation("owner", claim, observed).family(*family).measured(measured);
        let observation = observation.fact("inside", inside.to_string()).fact("outside", outside.to_string());
        stage.observe(observation.fact("program", socket.and_then(|socket| socket.program.clone())));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_read() {
        let output = "State Recv-Q Send-Q Local Address:Port Peer Address:PortProcess\n\
            ESTAB 0      0      203.0.113.2:53322 192.0.2.80:80 users:((\"ctwhy\",pid=5,fd=9))\n\
            TIME-WAIT 0  0      203.0.113.2:53320 192.0.2.80:80\n\
            ESTAB 0      0      203.0.113.2:53324 192.0.2.80:443\n";
        let local = SocketAddr::from(([203, 0, 113, 2], 53322));
        let expected = Socket { local, program: Some("ctwhy".to_owned()) };
        assert_eq!(sockets(output, IpAddr::from([192, 0, 2, 80])), [expected]);
        let output = "ESTAB 0 0 [fd00:2::15]:40000 [2001:db8:2::80]:80\n";
        let found = sockets(output, "2001:db8:2::80".parse().unwrap());
        assert_eq!(found[0].local, "[fd00:2::15]:40000".parse().unwrap());
    }
}
