//! What of the benchmark can be wrong without anybody noticing: its arithmetic, and the proxy that makes distance.

pub mod proxy;
pub mod stats;
