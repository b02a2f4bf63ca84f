//! x
pub mod diff;
pub mod edit;
pub mod glob;
pub mod limits;
pub mod page;
pub mod paths;
pub mod printable;
pub mod search;
pub mod tail;
pub mod wrapper;
