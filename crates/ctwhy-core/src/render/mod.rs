//! Traces as text and JSON.

pub mod tcp;
