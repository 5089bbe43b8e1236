//! What is found out about a NAT before anything is asked of it.

use std::io;
use std::net::IpAddr;

use super::bench::Bench;
use super::flow::{Flow, Proto, Shape, TIME_EXCEEDED};
use super::nat::Side;

/// How a NAT comes to change a client's port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Change {
    /// By itself.
    Always,
    /// When another client has that port already.
    Collision,
    /// Not even then.
    #[default]
    Never,
}

/// What is known about a protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Does it come out?
    pub passes: bool,
    /// When are its ports or ids others outside?
    pub change: Change,
    /// Does an error about it come in?
    pub errors: bool,
}

/// What is known about a NAT, for a family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    known: [Known; 3],
    /// The address of clients outside.
    pub external: Option<IpAddr>,
}

impl Survey {
    pub(super) fn of(&self, proto: Proto) -> Known {
        let [udp, tcp, echo] = self.known;
        match proto {
            Proto::Udp => udp,
            Proto::Tcp => tcp,
            Proto::Echo => echo,
        }
    }

    /// Does anything come out?
    #[must_use]
    pub fn passes(&self) -> bool {
        self.known.iter().any(|known| known.passes)
    }

    /// What is known about `udp`, `tcp` and `echo`.
    #[must_use]
    pub fn protocols(&self) -> [(&'static str, Known); 3] {
        Proto::ALL.map(|proto| (proto.name(), self.of(proto)))
    }
}

/// The first packet may be lost while neighbours find each other.
const TRIES: usize = 3;

impl Bench<'_> {
    /// Finds out what can be asked.
    pub(super) fn find_out(&mut self) -> io::Result<()> {
        let mut survey = Survey::default();
        for (proto, known) in Proto::ALL.into_iter().zip(&mut survey.known) {
            if let Some(flow) = self.first(proto)? {
                survey.external = Some(flow.external);
                let change = self.change(&flow)?;
                *known = Known { passes: true, change, errors: false };
            }
        }
        self.survey = survey;
        for proto in Proto::ALL {
            let errors = self.errors(proto)?;
            if let Some(known) = self.survey.known.iter_mut().zip(Proto::ALL).find(|(_, of)| *of == proto) {
                known.0.errors = errors;
            }
        }
        Ok(())
    }

    /// A flow; it is tried more than once.
    fn first(&mut self, proto: Proto) -> io::Result<Option<Flow>> {
        for _ in 0..TRIES {
            let ends = self.ends(proto);
            if let Some(flow) = self.start(&ends, &Shape::default())? {
                return Ok(Some(flow));
            }
        }
        Ok(None)
    }

    fn change(&mut self, flow: &Flow) -> io::Result<Change> {
        if flow.changed() {
            return Ok(Change::Always);
        }
        let ends = self.ends(flow.ends.proto);
        let [other, _] = self.hosts.clients;
        let taken = self.start(&ends.clone().from(other), &Shape::default())?;
        let second = self.start(&ends, &Shape::default())?;
        let changed = taken.is_some() && second.is_some_and(|second| second.changed());
        Ok(if changed { Change::Collision } else { Change::Never })
    }

    /// Does an error of a router's reach the client as one?
    fn errors(&mut self, proto: Proto) -> io::Result<bool> {
        let Ok(flow) = self.open(proto) else { return Ok(false) };
        let router = self.hosts.router(1);
        let Some(error) = flow.error(&TIME_EXCEEDED, router) else { return Ok(false) };
        self.send(Side::Outside, &error, "time exceeded")?;
        let client = flow.ends.client;
        let came = self.wait(Side::Inside, "the error", |seen| seen.dst == client && seen.is_error())?;
        Ok(came.is_some())
    }
}
