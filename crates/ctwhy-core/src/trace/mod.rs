//! What happened to a packet, as data. Nothing here formats anything: see [`crate::render`].
//!
//! The engine reports [`Step`]s to a [`Sink`]. The sink is a type parameter of the one code path there is; with the
//! empty sink `()` the closures that build steps are never called and the compiler removes them.

mod beyond;
mod fragment;
mod step;

use alloc::vec::Vec;

use crate::event::Event;

pub use beyond::BeyondStep;
pub use fragment::FragmentStep;
pub use step::{Part, Protected, Ruled, Step, TimeoutRule, Unchecked, Update};

/// Receives the steps of a decision while it is being taken, and the events that the kernel would emit.
pub trait Sink {
    /// Takes the step that `step` builds. An implementation may leave `step` uncalled.
    fn step(&mut self, step: impl FnOnce() -> Step);

    /// Takes the event that `event` builds. Unless an implementation says otherwise `event` is left uncalled.
    #[inline(always)]
    fn event(&mut self, event: impl FnOnce() -> Event) {
        drop(event);
    }
}

/// The empty sink: the fast run.
impl Sink for () {
    #[inline(always)]
    fn step(&mut self, _: impl FnOnce() -> Step) {}
}

/// Those who want to know of events only.
impl Sink for Vec<Event> {
    #[inline(always)]
    fn step(&mut self, _: impl FnOnce() -> Step) {}

    fn event(&mut self, event: impl FnOnce() -> Event) {
        self.push(event());
    }
}

/// The steps of one packet and the events that it caused, each in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// The steps, oldest first.
    pub steps: Vec<Step>,
    /// The events, oldest first.
    pub events: Vec<Event>,
}

impl Sink for Trace {
    fn step(&mut self, step: impl FnOnce() -> Step) {
        self.steps.push(step());
    }

    fn event(&mut self, event: impl FnOnce() -> Event) {
        self.events.push(event());
    }
}
