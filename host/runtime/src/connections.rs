//! The limit `connections`: how many an extension holds open, to VMs, by HTTP and through forwarded ports together.
//!
//! The connection to a VM is shared by all that use it, so what counts is the VM: once, for as long as anything of the extension uses it, a
//! command that runs, a followed file, bytes on their way. An HTTP exchange counts until its body has ended or was let go of, and a
//! forwarded port until it is closed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use vers_client::VmId;

use crate::bindings::vers::harness::types::Error as WitError;

/// One of the connections there may be. Dropped by the last who uses it, it is free again.
pub(crate) type Lease = Arc<OwnedSemaphorePermit>;

/// Those of one instance.
pub(crate) struct Connections {
    most: u64,
    free: Arc<Semaphore>,
    vms: Mutex<HashMap<VmId, Weak<OwnedSemaphorePermit>>>,
}

impl Connections {
    pub(crate) fn new(most: u64) -> Self {
        let count = usize::try_from(most).unwrap_or(usize::MAX);
        Self {
            most,
            free: Arc::new(Semaphore::new(count.min(Semaphore::MAX_PERMITS))),
            vms: Mutex::default(),
        }
    }

    /// One more.
    pub(crate) fn one(&self) -> Result<Lease, WitError> {
        let free = self.free.clone().try_acquire_owned();
        free.map(Arc::new).map_err(|_| {
            WitError::Limit(format!(
                "{} connections are open already, as many as the limit `connections` allows",
                self.most
            ))
        })
    }

    /// The one to this VM: a new one, unless it is in use.
    pub(crate) fn to_vm(&self, vm: VmId) -> Result<Lease, WitError> {
        let mut vms = self.vms.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lease) = vms.get(&vm).and_then(Weak::upgrade) {
            return Ok(lease);
        }
        vms.retain(|_, lease| lease.strong_count() > 0);
        let lease = self.one()?;
        vms.insert(vm, Arc::downgrade(&lease));
        Ok(lease)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_vm_counts_once_and_until_nobody_uses_it() {
        let connections = Connections::new(2);
        let vm = |n: u8| format!("01234567-89ab-4def-8123-0000000000{n:02}").parse::<VmId>();
        let first = connections.to_vm(vm(1).unwrap()).unwrap();
        let again = connections.to_vm(vm(1).unwrap()).unwrap();
        let other = connections.one().unwrap();
        assert!(
            matches!(connections.one(), Err(WitError::Limit(why)) if why.contains("`connections`"))
        );
        drop(first);
        assert!(connections.to_vm(vm(2).unwrap()).is_err());
        drop(again);
        let second = connections.to_vm(vm(2).unwrap()).unwrap();
        drop((other, second));
        assert_eq!(connections.free.available_permits(), 2);
    }
}
