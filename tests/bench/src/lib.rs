//! What of the benchmark can be wrong without anybody noticing: its arithmetic, and the proxies that make distance and boots.

pub mod booting;
pub mod proxy;
pub mod stats;
