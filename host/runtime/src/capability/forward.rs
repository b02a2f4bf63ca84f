//! `shell.forward-port`: ports of this machine's loopback interface that lead to a VM.
//!
//! A forward belongs to the guest's handle: dropping that, or the instance, closes it. When the call that opened it is
//! given up, it is closed before that call returns.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use pi_vers_policy::Request;
use wasmtime::component::Resource;

use super::vms::facts;
use crate::bindings::vers::harness::types::Error;
use crate::bindings::vers::platform::shell::HostForward;
use crate::connections::Lease;
use crate::guest::{Ask, Guest};
use crate::owner::Stoppable;

/// How long closing may take before a call that is given up returns without it.
const CLOSING: Duration = Duration::from_secs(5);

/// The resource behind `forward`.
#[allow(unreachable_pub, reason = "the bindings re-export it")]
pub struct Forward {
    /// None: of a tape.
    open: Option<Arc<Open>>,
    /// By which a tape knows it.
    number: u64,
}

impl Forward {
    /// A port of a tape: nothing is open.
    pub(crate) fn replayed(number: u64) -> Self {
        Self { open: None, number }
    }

    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn set_number(&mut self, number: u64) {
        self.number = number;
    }
}

struct Open {
    what: String,
    forward: vers_client::ssh::Forward,
    _lease: Lease,
}

impl Stoppable for Open {
    fn what(&self) -> String {
        self.what.clone()
    }

    fn stop(&self) -> BoxFuture<'_, bool> {
        Box::pin(async {
            if tokio::time::timeout(CLOSING, self.forward.close())
                .await
                .is_err()
            {
                tracing::warn!("{} did not close within {CLOSING:?}", self.what);
            }
            true
        })
    }
}

impl HostForward for Guest {
    fn local_port(&mut self, forward: Resource<Forward>) -> wasmtime::Result<u16> {
        let open = self.table.get(&forward)?.open.as_ref();
        Ok(open.map_or(0, |open| open.forward.local_port()))
    }

    fn drop(&mut self, forward: Resource<Forward>) -> wasmtime::Result<()> {
        self.table.delete(forward)?;
        Ok(())
    }
}

/// Asks the policy and opens the port.
pub(super) async fn open(
    ask: &Ask,
    vm: &str,
    remote: u16,
    local: Option<u16>,
) -> Result<Forward, Error> {
    let facts = facts(ask, vm).await?;
    ask.permit(&Request::ForwardPort {
        vm: facts.vm(),
        remote,
        local,
    })
    .await?;
    super::stand_in::none_for(ask, "a forwarded port")?;
    let lease = ask.connections.one()?;
    let forward = ask
        .race(ask.services.ssh.forward_port(facts.id, remote, local))
        .await?;
    let open = Arc::new(Open {
        what: format!("port {remote} of VM {}", facts.id),
        forward,
        _lease: lease,
    });
    ask.owner.started(&open);
    Ok(Forward {
        open: Some(open),
        number: 0,
    })
}
