//! Our own NAT in the place of the kernel's: a program on a box, started anew for every episode.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead, BufReader, Write};
use std::net::Shutdown;
use std::path::Path;

use ctwhy_core::tuple::Tuple;
use ctwhy_fixture::case::Spec;
use ctwhy_linux::ctnetlink::format_extended;
use ctwhy_linux::lab::Lab;
use ctwhy_linux::wire::HardwareAddress;
use ctwhy_linux::{peer, program, signal};

use super::cables::{Cables, Layout, MARKER, Queues, Seen};
use super::compare::{Difference, Held, Times};
use super::counterpart::Counterpart;
use super::device::{BOX, Device};
use super::window::Window;
use crate::record::RecordError;
use crate::world::process::{Process, Ready};

/// What the program is called where nobody says.
const NAME: &str = "nat";

/// `ctwhy nat` with the rules of a suite.
pub(super) struct Program<'a> {
    lab: &'a Lab,
    own: &'a Path,
    /// The front end and its arguments.
    arguments: Vec<String>,
    process: Option<Process>,
}

impl<'a> Program<'a> {
    /// The program `own` with these arguments; nothing runs yet. Markers are not tracked.
    pub(super) fn new(
        lab: &'a Lab,
        own: &'a Path,
        spec: &Spec,
        mut arguments: Vec<String>,
    ) -> Result<Program<'a>, RecordError> {
        let notrack = format!("*raw\n-A PREROUTING -s {} -j CT --notrack\nCOMMIT\n", MARKER.0);
        let of_v4 = notrack + spec.rules.as_deref().unwrap_or_default();
        for (option, text) in [("rules", Some(of_v4.as_str())), ("rules6", spec.rules6.as_deref())] {
            let Some(text) = text else { continue };
            // Into the lab's own /run, which goes with it.
            let path = format!("/run/{option}");
            let written = lab.command(BOX, "tee").and_then(|mut tee| program::run(tee.arg(&path), text));
            written.map_err(RecordError::kernel("writing the rules of the NAT"))?;
            arguments.extend([format!("--{option}"), path]);
        }
        Ok(Program { lab, own, arguments, process: None })
    }

    /// Ends the one that runs and starts another, with an empty table and `more` arguments.
    pub(super) fn restart(&mut self, sysctls: &BTreeMap<String, String>, more: &[&str]) -> Result<(), RecordError> {
        self.end()?;
        let start = || {
            let mut command = self.lab.command(BOX, &self.own.to_string_lossy())?;
            command.arg("nat").args(&self.arguments).args(more);
            for (name, value) in sysctls {
                command.args(["--sysctl", &format!("{name}={value}")]);
            }
            Process::start("ctwhy nat", command, Ready::Line("ctwhy nat: ready"))
        };
        self.process = Some(start().map_err(RecordError::kernel("starting the NAT"))?);
        Ok(())
    }

    /// Ends the one that runs. It must not have lost anything.
    fn end(&mut self) -> Result<(), RecordError> {
        let Some(process) = self.process.take() else { return Ok(()) };
        let (status, said) = process.end(signal::SIGINT).map_err(RecordError::kernel("ending the NAT"))?;
        if !status.success() {
            let error = io::Error::other(format!("{status}: {}", said.join(" / ")));
            return Err(RecordError::kernel("ending the NAT")(error));
        }
        let lost = said.iter().find(|line| line.trim_start().starts_with("lost "));
        lost.map_or(Ok(()), |line| Err(RecordError::Confused { seen: format!("the NAT says: {line}") }))
    }

    /// Its table, as `ctwhy nat status` prints it.
    fn table(&self) -> Result<Vec<String>, RecordError> {
        let ask = || -> io::Result<Vec<String>> {
            let mut stream = peer::connect(NAME)?;
            stream.write_all(b"table\n")?;
            stream.shutdown(Shutdown::Write)?;
            BufReader::new(stream).lines().collect()
        };
        ask().map_err(RecordError::kernel("asking the NAT for its table"))
    }

    /// As [`Counterpart::delivered_as`].
    pub(super) fn delivered_as(&self, original: &Tuple) -> Result<Option<u16>, RecordError> {
        let found = self.table()?.into_iter().find_map(|line| {
            let (there, back) = line.split_once(" src=")?.1.split_once(" src=")?;
            let there: BTreeMap<&str, &str> = values("src=", there);
            let back = values("src=", back);
            let is = |name: &str, value: String| there.get(name).is_some_and(|found| *found == value);
            let hosts = is("src", original.src_ip().to_string()) && is("dst", original.dst_ip().to_string());
            let (ends, port) = if original.is_icmp() {
                let kind = is("type", original.icmp_type().to_string()) && is("code", original.icmp_code().to_string());
                (kind && is("id", original.src_u.to_string()), "id")
            } else {
                (is("sport", original.src_u.to_string()) && is("dport", original.dst_u.to_string()), "dport")
            };
            let protocol = line.split_ascii_whitespace().nth(3)? == original.protonum.to_string();
            if hosts && ends && protocol { back.get(port)?.parse().ok() } else { None }
        });
        Ok(found)
    }

    /// As [`Counterpart::table_differences`], but for how long each entry still has.
    pub(super) fn table_differences(
        &self,
        held: &[Held],
        times: &Times,
    ) -> Result<(usize, Vec<Difference>), RecordError> {
        let sure_of_streams = times.sure_of_streams();
        let timeless = |line: &str| {
            let mut words: Vec<&str> = line.split_ascii_whitespace().collect();
            let is_udp = words.get(2) == Some(&"udp");
            // Family, its number, protocol, its number, seconds.
            words.drain(4..words.len().min(5));
            words.retain(|word| !(is_udp && !sure_of_streams && *word == "[ASSURED]"));
            words.join(" ")
        };
        let theirs: BTreeSet<String> = self.table()?.iter().map(|line| timeless(line)).collect();
        let ours: BTreeSet<String> = held.iter().map(|held| timeless(&format_extended(&held.entry))).collect();
        let missing =
            ours.difference(&theirs).map(|line| Difference::Entry { kernel: None, engine: Some(line.clone()) });
        let more = theirs.difference(&ours).map(|line| Difference::Entry { kernel: Some(line.clone()), engine: None });
        Ok((theirs.len(), missing.chain(more).collect()))
    }
}

/// The values of `first`, which has lost its name, and of all that follows.
fn values<'a>(first: &'a str, text: &'a str) -> BTreeMap<&'a str, &'a str> {
    let (head, rest) = text.split_once(' ').unwrap_or((text, ""));
    let more = rest.split_ascii_whitespace().filter_map(|word| word.split_once('='));
    [(first.trim_end_matches('='), head)].into_iter().chain(more).collect()
}

/// `ctwhy nat queue` on a box where the kernel forwards.
pub(crate) struct QueueBox {
    pub(super) device: Device,
    own: std::path::PathBuf,
    spec: Spec,
}

impl QueueBox {
    /// Builds the box of a suite, in which the kernel translates nothing.
    pub(crate) fn build(spec: &Spec, own: &Path) -> Result<QueueBox, RecordError> {
        let plain = Spec { rules: None, rules6: None, ..spec.clone() };
        Ok(QueueBox { device: Device::build_silent(&plain, true)?, own: own.to_owned(), spec: spec.clone() })
    }

    pub(super) fn addresses(&self) -> [HardwareAddress; 2] {
        self.device.addresses()
    }

    /// To be called inside.
    pub(super) fn open(&self) -> Result<Queue<'_>, RecordError> {
        // The bits below are a packet's name.
        let arguments = ["queue", "--install-rules", "--mark-mask", "0xfc000000"].map(str::to_owned).to_vec();
        let queues = Queues::open([0, 1]).map(Some);
        let cables = queues.and_then(|queues| Cables::open(self.addresses(), Layout::SHARED, true, queues));
        Ok(Queue {
            program: Program::new(self.device.lab(), &self.own, &self.spec, arguments)?,
            cables: cables.map_err(RecordError::kernel("listening to the box"))?,
        })
    }
}

/// The box, seen from inside.
pub(super) struct Queue<'a> {
    program: Program<'a>,
    cables: Cables,
}

impl Counterpart for Queue<'_> {
    fn begin(&mut self, sysctls: &BTreeMap<String, String>) -> Result<(), RecordError> {
        self.cables.forget_fragments(None)?;
        self.program.restart(sysctls, &[])?;
        self.cables.begin();
        Ok(())
    }

    fn run(&mut self, window: &Window, seen: &mut Seen) -> Result<(), RecordError> {
        self.cables.run(window, seen, None)?;
        seen.assume(window);
        Ok(())
    }

    fn delivered_as(&self, original: &Tuple) -> Result<Option<u16>, RecordError> {
        self.program.delivered_as(original)
    }

    fn table_differences(&self, held: &[Held], times: &Times) -> Result<(usize, Vec<Difference>), RecordError> {
        self.program.table_differences(held, times)
    }
}
