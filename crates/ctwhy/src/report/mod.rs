//! How a decision looks: one line per packet, steps under it, JSON beside it, totals at the end.

pub(crate) mod escape;
pub(crate) mod expectations;
pub(crate) mod json;
pub(crate) mod line;
pub(crate) mod style;
pub(crate) mod summary;
pub(crate) mod view;
#[cfg(target_os = "linux")]
pub(crate) mod writer;

use std::fmt::{self, Display, Formatter};

/// A closure that writes, as something that can be printed.
pub(crate) struct Show<F>(pub(crate) F);

impl<F: Fn(&mut Formatter<'_>) -> fmt::Result> Display for Show<F> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        (self.0)(f)
    }
}
