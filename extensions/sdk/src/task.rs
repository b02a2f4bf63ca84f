//! Tasks beside the one that runs.

/// Runs this beside the caller, on the same thread. It belongs to the call, command or event that spawns it, and ends with that; what
/// shall go on belongs to [`background::spawn`](crate::background::spawn).
pub fn spawn(work: impl Future<Output = ()> + 'static) {
    crate::contract::spawn(work);
}

/// Lets the other tasks run. For the loop of a long computation, which would stop every other call of the extension.
pub async fn yield_now() {
    crate::contract::yield_now().await;
}
