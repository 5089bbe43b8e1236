//! Labs with a NAT in them: each forwards once it is started, not when it was killed, and again after a restart.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A test fails by panicking.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use ctwhy_conform::world::{Nat, Options, World};
use ctwhy_linux::{signal, testing};

fn start(nat: Nat, options: &Options) -> io::Result<World> {
    World::start(nat, Path::new(env!("CARGO_BIN_EXE_ctwhy")), options)
}

/// A datagram there and one back; where it came from, as the server saw it.
fn asked(world: &World, server: IpAddr, patience: Duration) -> io::Result<IpAddr> {
    let any: IpAddr = if server.is_ipv4() { [0; 4].into() } else { [0u16; 8].into() };
    let listener = world.lab().in_node("server", || UdpSocket::bind(SocketAddr::new(server, 5300)))??;
    listener.set_read_timeout(Some(patience))?;
    let socket = world.lab().in_node("client", || UdpSocket::bind(SocketAddr::new(any, 0)))??;
    socket.set_read_timeout(Some(patience))?;
    socket.connect((server, 5300)).and_then(|()| socket.send(b"there"))?;
    let (_, from) = listener.recv_from(&mut [0; 16])?;
    listener.send_to(b"back", from)?;
    socket.recv(&mut [0; 16])?;
    Ok(from.ip())
}

fn each_family_is_forwarded(world: &World) {
    let place = world.server().into_iter().zip(world.external()).flat_map(|(server, external)| server.zip(external));
    for (server, external) in place {
        let from = asked(world, server, Duration::from_secs(10));
        assert_eq!(from.map_err(|error| error.to_string()), Ok(external), "{} to {server}", world.nat());
    }
}

#[test]
fn every_nat_forwards_until_it_is_killed_and_again_when_it_is_restarted() {
    if !testing::require_lab() {
        return;
    }
    let missing = |nat: Nat| nat.unavailable().map(|why| format!("{nat}: {why}"));
    let why: Vec<String> = Nat::ALL.into_iter().filter_map(missing).collect();
    if !why.is_empty() {
        testing::skip(&format_args!("not for {}", why.join(", ")));
    }
    for nat in Nat::ALL.into_iter().filter(|nat| nat.unavailable().is_none()) {
        let mut world = start(nat, &Options::default()).unwrap();
        each_family_is_forwarded(&world);
        let (node, interface) = world.inside();
        let addresses = world.lab().command(node, "ip").unwrap().args(["address", "show", interface]).output().unwrap();
        let addresses = String::from_utf8(addresses.stdout).unwrap();
        for client in world.client().into_iter().flatten() {
            assert!(addresses.contains(&format!(" {client}/")), "{nat}: {client} in {addresses}");
        }
        if [Nat::Kernel, Nat::KernelRandom].contains(&nat) {
            assert_eq!(world.kill().unwrap_err().to_string(), format!("{nat}: no program of it runs"));
            assert!(world.restart().is_err());
            continue;
        }
        world.kill().unwrap();
        for server in world.server().into_iter().flatten() {
            assert!(asked(&world, server, Duration::from_millis(20)).is_err(), "{nat}");
        }
        world.restart().unwrap();
        each_family_is_forwarded(&world);
        // Once more while it runs, and then a good end, of those that know one.
        world.restart().unwrap();
        let (status, said) = world.end(signal::SIGINT).unwrap();
        assert!(status.success() || [Nat::Slirp4netns, Nat::Pasta].contains(&nat), "{nat}: {status} {said:?}");
    }
}

#[test]
fn a_narrow_link_and_options_that_do_not_fit() {
    if !testing::require_lab() {
        return;
    }
    let narrow = |mtu| Options { mtu, ..Options::default() };
    let families = |world: &World| world.server().into_iter().flatten().count();
    let world = start(Nat::KernelRandom, &narrow(1200)).unwrap();
    assert_eq!(families(&world), 1);
    each_family_is_forwarded(&world);
    let world = start(Nat::NatQueue, &narrow(1280)).unwrap();
    assert_eq!(families(&world), 2);
    each_family_is_forwarded(&world);
    let error = |nat, options: Options| start(nat, &options).unwrap_err().to_string();
    let arguments = Options { arguments: vec!["--no-such".to_owned()], ..Options::default() };
    assert_eq!(error(Nat::Kernel, arguments.clone()), "kernel takes no arguments");
    let rules = Options { rules: Some(Default::default()), ..Options::default() };
    assert_eq!(error(Nat::Pasta, rules), "pasta takes no rules");
    let nothing = "*filter\n-A FORWARD -j REJECT\nCOMMIT\n".to_owned();
    let nothing = Options { rules: Some([nothing.clone(), nothing]), ping_sockets: false, ..Options::default() };
    let said = error(Nat::Kernel, nothing);
    assert!(said.starts_with("kernel forwards no ping of client to 192.0.2.80: "), "{said}");
    let said = error(Nat::NatQueue, arguments);
    assert!(said.starts_with("ctwhy nat queue ended; it said last: ") && said.contains("--no-such"), "{said}");
}
