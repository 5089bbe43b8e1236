//! How a decision looks: one line per packet, steps under it, JSON beside it, totals at the end.

pub(crate) mod escape;
pub(crate) mod json;
pub(crate) mod line;
pub(crate) mod style;
pub(crate) mod summary;
pub(crate) mod view;
