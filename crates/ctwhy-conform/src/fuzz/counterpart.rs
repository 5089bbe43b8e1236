//! What stands beside the router of this process and gets the same packets.

use std::collections::BTreeMap;

use ctwhy_core::tuple::Tuple;
use ctwhy_linux::wire::HardwareAddress;

use super::cables::Seen;
use super::compare::{Difference, Held, Times};
use super::device::Device;
use super::ours::QueueBox;
use super::tun::TunBox;
use super::window::Window;
use crate::record::RecordError;

/// A box, seen from inside.
pub(crate) trait Counterpart {
    /// Begins an episode: the table is empty, and these are the settings of conntrack.
    fn begin(&mut self, sysctls: &BTreeMap<String, String>) -> Result<(), RecordError>;

    /// Sends the packets of a window and waits for what becomes of them.
    fn run(&mut self, window: &Window, seen: &mut Seen) -> Result<(), RecordError>;

    /// The source port or id that a flow has behind NAT, by its original tuple.
    fn delivered_as(&self, original: &Tuple) -> Result<Option<u16>, RecordError>;

    /// How many entries the table has, and where they differ from what the engine has.
    fn table_differences(&self, held: &[Held], times: &Times) -> Result<(usize, Vec<Difference>), RecordError>;
}

/// A box in a lab.
pub(crate) enum Place {
    Kernel(Device),
    Queue(QueueBox),
    Tun(TunBox),
}

impl Place {
    /// Ethernet addresses of the interfaces, where packets are sent.
    pub(crate) fn addresses(&self) -> [HardwareAddress; 2] {
        match self {
            Place::Kernel(device) => device.addresses(),
            Place::Queue(queue) => queue.addresses(),
            Place::Tun(_) => [[0; 6]; 2],
        }
    }

    /// Runs `work` in a thread inside the box that stays on one CPU.
    pub(crate) fn enter<T: Send, E: From<RecordError> + Send>(
        &self,
        bytes_count: bool,
        work: impl FnOnce(&mut dyn Counterpart) -> Result<T, E> + Send,
    ) -> Result<T, E> {
        match self {
            Place::Kernel(device) => device.enter(|device| work(&mut device.kernel(bytes_count)?)),
            Place::Queue(queue) => queue.device.enter(|_| work(&mut queue.open()?)),
            Place::Tun(tun) => tun.enter(work),
        }
    }
}
