//! x
pub mod edit;
pub mod limits;
pub mod page;
pub mod paths;
pub mod printable;
pub mod tail;
pub mod wrapper;
