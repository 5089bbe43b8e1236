//! What happened to a packet, as data. Nothing here formats anything: see [`crate::render`].
//!
//! The engine reports [`Step`]s to a [`Sink`]. The sink is a type parameter of the one code path there is; with the
//! empty sink `()` the closures that build steps are never called and the compiler removes them.

mod step;

use alloc::vec::Vec;

pub use step::{Part, Protected, Step, TimeoutRule, Unchecked, Update};

/// Receives the steps of a decision while it is being taken.
pub trait Sink {
    /// Takes the step that `step` builds. An implementation may leave `step` uncalled.
    fn step(&mut self, step: impl FnOnce() -> Step);
}

/// The empty sink: the fast run.
impl Sink for () {
    #[inline(always)]
    fn step(&mut self, _: impl FnOnce() -> Step) {}
}

/// The steps of one packet, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// The steps, oldest first.
    pub steps: Vec<Step>,
}

impl Sink for Trace {
    fn step(&mut self, step: impl FnOnce() -> Step) {
        self.steps.push(step());
    }
}
