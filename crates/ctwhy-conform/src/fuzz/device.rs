//! The kernel under test: a router in a namespace that says of every packet what conntrack called it.
//!
//! A rule behind conntrack adds to the mark of a packet what conntrack decided, and NFLOG hands the marks over, many at a
//! time. One CPU does all of that in order.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::time::Instant;

use ctwhy_core::direction::CtInfo;
use ctwhy_core::tuple::Tuple;
use ctwhy_fixture::case::{BoxInterface, Spec};
use ctwhy_linux::ctnetlink::{self, Entry, L4};
use ctwhy_linux::lab::{End, Lab, Topology};
use ctwhy_linux::nflog::Marks;
use ctwhy_linux::wire::HardwareAddress;
use ctwhy_linux::{program, sysctl};

use super::cables::{Cables, Layout, MARKER, Seen, far};
use super::compare::{self, Difference, Held, Times};
use super::counterpart::Counterpart;
use super::episode::UNLIMITED;
use super::window::{Port, Window};
use crate::record::{RecordError, box_node, stay_on_this_cpu, wait_for_addresses};
use crate::table;

/// The node under test.
pub(super) const BOX: &str = "box";
/// The NFLOG group of the rules.
const GROUP: u16 = 5;
/// Receive buffer in bytes.
const BUFFER: usize = 8 << 20;
/// Codes by their number, from 1.
pub(super) const CODES: [(CtInfo, &str); 7] = [
    (CtInfo::New, "ct direction original ct state new"),
    (CtInfo::Established, "ct direction original ct state established"),
    (CtInfo::EstablishedReply, "ct direction reply ct state established"),
    (CtInfo::Invalid, "ct state invalid"),
    (CtInfo::Related, "ct direction original ct state related"),
    (CtInfo::RelatedReply, "ct direction reply ct state related"),
    (CtInfo::Untracked, "ct state untracked"),
];
/// What costs time and is not looked at.
///
/// Nor does it believe errors about the MTU: one below `route.min_pmtu` is remembered for its destination, and then what
/// is forwarded there leaves in fragments.
const QUIET: [(&str, &str); 3] = [
    ("net.netfilter.nf_conntrack_events", "0"),
    ("net.netfilter.nf_conntrack_log_invalid", "0"),
    ("net.ipv4.ip_no_pmtu_disc", "3"),
];

/// What lets a box speak so that it can be understood: what it says has the mark of the packet that it is about, and
/// nothing is left to chance that need not be. Redirects tell hosts of one cable that there is a shorter way.
const SPEAKING: [(&str, &str); 5] = [
    ("net.ipv4.fwmark_reflect", "1"),
    ("net.ipv6.fwmark_reflect", "1"),
    ("net.ipv4.conf.all.send_redirects", "0"),
    ("net.ipv4.conf.default.send_redirects", "0"),
    ("net.ipv6.auto_flowlabels", "0"),
];

/// What the box is told besides what the recorder tells it. Unless it `speaks` nothing of its own leaves, not even an error.
fn ruleset(speaks: bool) -> String {
    let (marker, ..) = MARKER;
    let silence = if speaks { "" } else { "chain silence { type filter hook output priority -450; drop; }\n" };
    let mut text = format!(
        "table inet ctwhy {{\n\
         chain markers {{ type filter hook prerouting priority -300; ip saddr {marker} notrack; }}\n\
         {silence}\
         chain tell {{ log group {GROUP}; }}\n\
         chain prerouting {{ type filter hook prerouting priority -140;\n\
         iifname != {{ \"{}\", \"{}\" }} accept\n\
         ip saddr {marker} log group {GROUP} queue-threshold 1 accept\n",
        Port::Lan.name(),
        Port::Wan.name()
    );
    for ((_, matches), code) in CODES.iter().zip(1..) {
        // Writing into a string does not fail.
        let _ = writeln!(text, "{matches} meta mark set meta mark | {code} goto tell");
    }
    text + "}\n}\n"
}

/// A box in a lab.
pub(crate) struct Device {
    lab: Lab,
    addresses: [HardwareAddress; 2],
}

impl Device {
    /// Builds the box of a case, in which the kernel says what it decides.
    pub(crate) fn build(spec: &Spec, speaks: bool) -> Result<Device, RecordError> {
        let device = Device::build_silent(spec, speaks)?;
        let load = || program::run(device.lab.command(BOX, "nft")?.args(["-f", "-"]), &ruleset(speaks));
        load().map_err(RecordError::kernel("loading the observing rules"))?;
        Ok(device)
    }

    /// Builds the box of a case, in which the kernel only does what it does.
    pub(super) fn build_silent(spec: &Spec, speaks: bool) -> Result<Device, RecordError> {
        let speaking = SPEAKING.iter().chain(&UNLIMITED).filter(|_| speaks);
        let settings = QUIET.iter().chain(speaking);
        let node = settings.fold(box_node(BOX, spec), |node, (name, value)| node.sysctl(name, value));
        let mut topology = Topology::default().node(node);
        for (interface, port) in spec.interfaces.iter().zip(Port::BOTH) {
            let end =
                |interface: &str, addresses| End { node: BOX.to_owned(), interface: interface.to_owned(), addresses };
            let addresses = interface.addresses.iter().map(|own| (own.address(), own.length())).collect();
            topology = topology.link(end(&interface.name, addresses), end(&far(port), Vec::new()));
        }
        let lab = Lab::create(topology).map_err(RecordError::kernel("building the box"))?;
        let run = |program: &str, input: &str, arguments: &[&str]| -> io::Result<()> {
            program::run(lab.command(BOX, program)?.args(arguments), input).map(drop)
        };
        // Nobody answers for the neighbours, so nobody is asked.
        let mut silent: String = Port::BOTH.iter().map(|port| format!("link set {} arp off\n", port.name())).collect();
        for BoxInterface { name, mtu, .. } in &spec.interfaces {
            silent.extend(mtu.map(|mtu| format!("link set {name} mtu {mtu}\n")));
        }
        run("ip", &silent, &["-batch", "-"]).map_err(RecordError::kernel("silencing the interfaces of the box"))?;
        let address = |port: Port| lab.wire(BOX, port.name()).map(|wire| wire.hardware_address());
        let addresses = Port::BOTH.map(address);
        let [Ok(lan), Ok(wan)] = addresses else {
            let error = addresses.into_iter().find_map(Result::err);
            let error = error.unwrap_or_else(|| io::Error::from(io::ErrorKind::NotFound));
            return Err(RecordError::kernel("opening the interfaces of the box")(error));
        };
        wait_for_addresses(&lab, BOX, spec)?;
        Ok(Device { lab, addresses: [lan, wan] })
    }

    /// Ethernet addresses of the interfaces, where packets are sent.
    pub(crate) fn addresses(&self) -> [HardwareAddress; 2] {
        self.addresses
    }

    /// The lab that it is in.
    pub(super) fn lab(&self) -> &Lab {
        &self.lab
    }

    /// Runs `work` in a thread inside the box that stays on one CPU.
    pub(super) fn enter<T: Send, E: From<RecordError> + Send>(
        &self,
        work: impl FnOnce(&Device) -> Result<T, E> + Send,
    ) -> Result<T, E> {
        let run = || {
            stay_on_this_cpu()?;
            work(self)
        };
        self.lab.in_node(BOX, run).map_err(RecordError::kernel("entering the box"))?
    }

    /// Listens to the kernel. To be called inside.
    pub(super) fn kernel(&self, bytes_count: bool) -> Result<Kernel, RecordError> {
        Kernel::open(self.addresses, bytes_count)
    }
}

/// The kernel of the box, seen from inside.
pub(super) struct Kernel {
    marks: Marks,
    cables: Cables,
    /// The settings that were written last.
    sysctls: BTreeMap<String, String>,
}

impl Kernel {
    fn open(addresses: [HardwareAddress; 2], bytes_count: bool) -> Result<Kernel, RecordError> {
        let open = || -> io::Result<Kernel> {
            let cables = Cables::open(addresses, Layout::DECIDED, bytes_count, None)?;
            Ok(Kernel { marks: Marks::open(GROUP, BUFFER)?, cables, sysctls: BTreeMap::new() })
        };
        open().map_err(RecordError::kernel("listening to the box"))
    }

    /// The whole table.
    fn table(&self) -> Result<Vec<Entry>, RecordError> {
        ctnetlink::dump().map_err(RecordError::kernel("reading the table"))
    }
}

impl Counterpart for Kernel {
    fn begin(&mut self, sysctls: &BTreeMap<String, String>) -> Result<(), RecordError> {
        self.cables.forget_fragments(Some(&mut self.marks))?;
        ctnetlink::flush().map_err(RecordError::kernel("emptying the table"))?;
        for (name, value) in sysctls {
            if self.sysctls.get(name) != Some(value) {
                sysctl::write(name, value).map_err(RecordError::kernel("setting up conntrack"))?;
                self.sysctls.insert(name.clone(), value.clone());
            }
        }
        self.cables.begin();
        Ok(())
    }

    fn run(&mut self, window: &Window, seen: &mut Seen) -> Result<(), RecordError> {
        self.cables.run(window, seen, Some(&mut self.marks))
    }

    fn delivered_as(&self, original: &Tuple) -> Result<Option<u16>, RecordError> {
        let original = table::side(original, None);
        let found = self.table()?.into_iter().find(|entry| entry.orig == original);
        Ok(found.map(|entry| match entry.reply.l4 {
            L4::Ports { dport, .. } => dport,
            L4::Icmp { id, .. } => id,
            L4::Generic => 0,
        }))
    }

    fn table_differences(&self, held: &[Held], times: &Times) -> Result<(usize, Vec<Difference>), RecordError> {
        let started = Instant::now();
        let table = self.table()?;
        Ok((table.len(), compare::table(held, &table, times, (started, Instant::now()))))
    }
}
