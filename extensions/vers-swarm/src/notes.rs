//! Failures that nobody waits for: a line of the log.

use pi_vers_sdk::harness::log;
use pi_vers_sdk::{Error, outcome};

/// Says what did not go well. A call or a session that ends is no news.
pub(crate) fn warn(what: &str, done: Result<(), Error>) {
    match done {
        Ok(()) | Err(Error::Cancelled) => {}
        Err(error) => log::write(
            log::Level::Warn,
            &format!("{what}: {}", outcome::explain(&error)),
        ),
    }
}
