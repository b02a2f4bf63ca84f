//! x
pub mod judge;
