//! No code. See this package's `Cargo.toml`.
