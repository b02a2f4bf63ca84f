//! `vers:harness/timers`.

use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use wasmtime::component::{Accessor, HasSelf};

use crate::bindings::vers::harness::timers::{Host, HostWithStore};
use crate::bindings::vers::harness::types::Error;
use crate::guest::{Ask, Guest, Has};

/// The zero of `ticks`: the same for all guests of the process.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Host for Guest {
    fn now(&mut self) -> wasmtime::Result<u64> {
        Ok(SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, millis))
    }

    fn ticks(&mut self) -> wasmtime::Result<u64> {
        Ok(millis(START.elapsed()))
    }
}

impl HostWithStore<Guest> for HasSelf<Guest> {
    async fn sleep(
        accessor: &Accessor<Guest, Has>,
        duration: u64,
    ) -> wasmtime::Result<Result<(), Error>> {
        let ask = match Ask::of(accessor) {
            Ok(ask) => ask,
            Err(denied) => return Ok(Err(denied)),
        };
        Ok(ask
            .owner
            .race(tokio::time::sleep(Duration::from_millis(duration)))
            .await)
    }
}
