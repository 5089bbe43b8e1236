//! Where packets come from: a file, standard input, a case, or the capture that is part of the program.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::path::Path;

use ctwhy_conform::replay;
use ctwhy_core::hook::Engine;
use ctwhy_core::profile::Profile;
use ctwhy_fixture::case::{Case, Generated, Spec};

use crate::failure::Failure;

const SPEC: &str = "case.toml";
const PACKETS: &str = "packets.pcapng";
/// A traceroute through a masquerading kernel, as it was recorded.
const EMBEDDED: (&str, &[u8]) = (
    include_str!("../../../../fixtures/traceroute-udp-v4-masquerade/case.toml"),
    include_bytes!("../../../../fixtures/traceroute-udp-v4-masquerade/packets.pcapng"),
);

/// What the host of a case sent itself, by the number of the packet that it answered. The capture of a case holds only what
/// the host received, and later packets may rest on these.
pub(super) type Made = BTreeMap<u64, Vec<Generated>>;

/// A capture and the host that its packets meet.
pub(super) struct Input {
    /// What errors call the capture.
    pub(super) name: String,
    pub(super) bytes: Box<dyn Read>,
    /// The host of a case; without one, a host of which nothing is known.
    pub(super) engine: Engine,
    /// What the capture is, when the user named none.
    pub(super) about: Option<String>,
    pub(super) made: Made,
    /// How many packets of a case were held back while it was recorded.
    pub(super) held: usize,
    pub(super) identity: Identity,
}

impl Input {
    /// Opens the capture at `path`; `-` is standard input.
    ///
    /// # Errors
    /// When it cannot be opened, or a case cannot be read.
    pub(super) fn open(path: Option<&Path>) -> Result<Input, Failure> {
        // Without a kernel beside it any draw is as good as another; a fixed one makes runs repeat.
        let engine = Engine::new(0);
        let Some(path) = path else { return Input::embedded() };
        if path.as_os_str() == "-" {
            let stdin = io::stdin();
            let identity = Identity::of_stdin(&stdin);
            return Ok(Input {
                name: "-".to_owned(),
                bytes: Box::new(stdin),
                engine,
                about: None,
                made: Made::new(),
                held: 0,
                identity,
            });
        }
        if path.is_dir() {
            return Input::case(path);
        }
        let (file, identity) = open(path)?;
        Ok(Input {
            name: path.display().to_string(),
            bytes: Box::new(file),
            engine,
            about: None,
            made: Made::new(),
            held: 0,
            identity,
        })
    }

    /// The folder of a case: packets, and the host that they were recorded on.
    fn case(folder: &Path) -> Result<Input, Failure> {
        let file = folder.join(SPEC);
        let text = fs::read_to_string(&file).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                let folder = folder.display();
                Failure::usage(format!("{folder}: is a folder without {SPEC}, so no case; name a capture file"))
            }
            _ => Failure::io(&file, &error),
        })?;
        let spec = Spec::parse(&text, &file).map_err(|error| Failure::usage(error.to_string()))?;
        let held = spec.holds.len();
        let mut engine =
            replay::engine(&spec).map_err(|error| Failure::usage(format!("{}: {error}", file.display())))?;
        let case = Case::read(folder).map_err(|error| Failure::usage(error.to_string()))?;
        let newest = case.recordings.into_values().next_back();
        if let Some(recording) = &newest {
            engine.conntrack.table.kernel = Profile::nearest(&recording.release);
        }
        let outcomes = newest.map(|recording| recording.outcome.packets).unwrap_or_default();
        let made = outcomes.into_iter().filter_map(|outcome| Some((outcome.packet, outcome.generated?))).collect();
        let packets = folder.join(PACKETS);
        let (bytes, identity) = open(&packets)?;
        Ok(Input {
            name: packets.display().to_string(),
            bytes: Box::new(bytes),
            engine,
            about: None,
            made,
            held,
            identity,
        })
    }

    fn embedded() -> Result<Input, Failure> {
        let (text, packets) = EMBEDDED;
        let spec = Spec::parse(text, Path::new(SPEC)).map_err(|error| Failure::usage(error.to_string()))?;
        let engine = replay::engine(&spec).map_err(|error| Failure::usage(error.to_string()))?;
        let about = format!("The capture inside ctwhy, recorded from a kernel. {}: {}", spec.title, spec.shows.trim());
        Ok(Input {
            name: "the capture inside ctwhy".to_owned(),
            bytes: Box::new(packets),
            engine,
            about: Some(about),
            made: Made::new(),
            held: 0,
            identity: Identity(None),
        })
    }
}

fn open(path: &Path) -> Result<(File, Identity), Failure> {
    let cannot = |error: io::Error| Failure::usage(format!("{}: cannot be opened: {error}", path.display()));
    let file = File::open(path).map_err(cannot)?;
    let identity = Identity(file.metadata().ok());
    Ok((file, identity))
}

/// Which file is being read, whatever its name.
pub(super) struct Identity(Option<Metadata>);

impl Identity {
    #[cfg(unix)]
    fn of_stdin(stdin: &io::Stdin) -> Identity {
        use std::os::fd::AsFd;
        let own = stdin.as_fd().try_clone_to_owned();
        Identity(own.ok().and_then(|descriptor| File::from(descriptor).metadata().ok()))
    }

    #[cfg(not(unix))]
    fn of_stdin(_: &io::Stdin) -> Identity {
        Identity(None)
    }

    /// Writing into the file that is being read would destroy it.
    ///
    /// # Errors
    /// When `output` is that file.
    #[cfg(unix)]
    pub(super) fn refuse(&self, output: &Path) -> Result<(), Failure> {
        use std::os::unix::fs::MetadataExt;
        let same = |input: &Metadata, output: &Metadata| {
            input.is_file() && (input.dev(), input.ino()) == (output.dev(), output.ino())
        };
        match (&self.0, fs::metadata(output)) {
            (Some(input), Ok(found)) if same(input, &found) => {
                Err(Failure::usage(format!("{}: this is the input; write to another file", output.display())))
            }
            _ => Ok(()),
        }
    }

    #[cfg(not(unix))]
    pub(super) fn refuse(&self, output: &Path) -> Result<(), Failure> {
        let _ = (&self.0, output);
        Ok(())
    }
}
