//! What a store holds for its guest: who it is, what it may, and whom its calls belong to.

use std::collections::HashMap;
use std::sync::Arc;

use pi_vers_policy::{Decision, Grants, Limits, Request};
use pi_vers_system::secrets::Secrets;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmtime::component::{Access, Accessor, GuestTaskId, HasSelf, ResourceTable};
use wasmtime::{AsContextMut, ResourceLimiter};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use crate::audit::{Auditor, Tally, Verdict};
use crate::bindings::vers::harness::types::Error as WitError;
use crate::capability::Buffers;
use crate::connections::Connections;
use crate::extension::Script;
use crate::owner::Owner;
use crate::rate::Rate;
use crate::services::Services;
use crate::stderr::Stderr;
use crate::tape::{Clocks, Voice};

/// How the binding reaches the store's data.
pub(crate) type Has = HasSelf<Guest>;

/// The data of one store: one instance of one extension in one session.
pub(crate) struct Guest {
    pub(crate) name: Arc<str>,
    pub(crate) table: ResourceTable,
    pub(crate) limiter: Limiter,
    pub(crate) limits: Limits,
    pub(crate) grants: Arc<Grants>,
    /// `None` while the extension describes itself: then everything is denied.
    pub(crate) services: Option<Arc<Services>>,
    auditor: Option<Arc<Auditor>>,
    /// Room for processes, here and on VMs together.
    processes: Arc<Semaphore>,
    connections: Arc<Connections>,
    /// Notices, and changes of status lines and widgets.
    pub(crate) notices: Rate,
    pub(crate) changes: Rate,
    /// Room for what the guest wrote and the host has not used yet.
    pub(crate) buffers: Buffers,
    owners: HashMap<GuestTaskId, Arc<Owner>>,
    root: Arc<Owner>,
    /// The end of what it wrote to standard error.
    pub(crate) stderr: Stderr,
    /// Where its session is recorded or replayed.
    pub(crate) voice: Option<Arc<Voice>>,
    wasi: WasiCtx,
}

impl Guest {
    pub(crate) fn new(
        name: Arc<str>,
        grants: Arc<Grants>,
        limits: Limits,
        services: Option<Arc<Services>>,
        auditor: Option<Arc<Auditor>>,
        root: Arc<Owner>,
        script: Option<&Script>,
    ) -> Self {
        let stderr = Stderr::default();
        // Nothing behind it: no environment, files or sockets, and no arguments but a runner's script.
        let mut wasi = WasiCtx::builder();
        wasi.stderr(stderr.clone());
        if let Some(script) = script {
            wasi.args(&script.arguments());
        }
        let tape = services
            .as_ref()
            .and_then(|services| services.tape.as_ref());
        let voice = tape.map(|tape| Voice::new(tape, name.clone()));
        if let Some(voice) = &voice {
            wasi.wall_clock(Clocks(voice.clone()));
            wasi.monotonic_clock(Clocks(voice.clone()));
            wasi.secure_random(voice.chance("secure"));
            wasi.insecure_random(voice.chance("insecure"));
            wasi.insecure_random_seed(voice.seed());
        }
        let mut table = ResourceTable::new();
        table.set_max_capacity(usize::try_from(limits.handles).unwrap_or(usize::MAX));
        Self {
            name,
            table,
            limiter: Limiter::new(&limits),
            limits,
            grants,
            services,
            auditor,
            processes: Arc::new(Semaphore::new(
                usize::try_from(limits.processes).map_or(Semaphore::MAX_PERMITS, |most| {
                    most.min(Semaphore::MAX_PERMITS)
                }),
            )),
            connections: Arc::new(Connections::new(limits.connections)),
            notices: Rate::new(200, 20),
            changes: Rate::new(2_000, 100),
            buffers: Buffers::new(limits.stream_buffers),
            owners: HashMap::new(),
            root,
            stderr,
            voice,
            wasi: wasi.build(),
        }
    }

    pub(crate) fn own(&mut self, task: GuestTaskId, owner: Arc<Owner>) {
        self.owners.insert(task, owner);
    }

    /// What it wrote to standard error last, without secrets.
    pub(crate) fn last_words(&self) -> Option<String> {
        self.stderr.last(|text| match &self.services {
            Some(services) => services.secrets.redact(text).into_owned(),
            // While it describes itself it has been told nothing.
            None => text.to_owned(),
        })
    }

    /// Ends that, unless the task's number has been given to another call meanwhile: a task may be gone before its end is
    /// heard of.
    pub(crate) fn disown(&mut self, task: GuestTaskId, owner: &Arc<Owner>) {
        if self
            .owners
            .get(&task)
            .is_some_and(|of| Arc::ptr_eq(of, owner))
        {
            self.owners.remove(&task);
        }
    }

    /// The owner of a call stack: of its oldest task, or the extension itself.
    pub(crate) fn owner_of(&self, oldest: Option<GuestTaskId>) -> Arc<Owner> {
        oldest
            .and_then(|task| self.owners.get(&task))
            .unwrap_or(&self.root)
            .clone()
    }

    /// Whether the call that this task is of was given up. The extension's own work never is.
    pub(crate) fn was_given_up(&self, oldest: Option<GuestTaskId>) -> bool {
        oldest
            .and_then(|task| self.owners.get(&task))
            .is_some_and(|owner| owner.ended().is_some())
    }

    /// The policy's word on a request that needs no facts from elsewhere.
    pub(crate) fn judge(&self, request: &Request<'_>) -> Result<(), WitError> {
        if self.services.is_none() {
            return Err(WitError::Denied(
                "an extension may do nothing while it describes itself".into(),
            ));
        }
        let decision = self.grants.decide(request);
        // A request that waits for nothing is made wherever the guest is: whose call that is for is not known here.
        if let Some(auditor) = &self.auditor {
            auditor.decided(&self.grants, request, &Verdict::of(&decision), None);
        }
        let secrets = self.services.as_ref().map(|services| &*services.secrets);
        permit(&self.name, secrets, request, decision)
    }

    /// The session's services, or the denial of the describing phase.
    pub(crate) fn services(&self) -> Result<Arc<Services>, WitError> {
        self.services.clone().ok_or_else(|| {
            WitError::Denied("an extension may do nothing while it describes itself".into())
        })
    }
}

/// Acts on the policy's answer. What the policy leaves open counts as no here; imports
/// that can wait ask the harness instead, see [`Ask::permit`].
fn permit(
    name: &str,
    secrets: Option<&Secrets>,
    request: &Request<'_>,
    decision: Decision,
) -> Result<(), WitError> {
    // A denial repeats the guest's own words, which may be a secret that it has from elsewhere.
    let clean = |words: &dyn std::fmt::Display| {
        let words = words.to_string();
        match secrets {
            Some(secrets) => secrets.redact(&words).into_owned(),
            None => words,
        }
    };
    match decision {
        Decision::Allow => {
            tracing::trace!(target: "audit", extension = name, request = ?request.kind(), "allowed");
            Ok(())
        }
        Decision::Deny(denial) => {
            let denial = clean(&denial);
            tracing::info!(target: "audit", extension = name, request = ?request.kind(), %denial, "denied");
            Err(WitError::Denied(denial))
        }
        Decision::Ask(question) => {
            let denial = clean(&question.refused);
            tracing::info!(target: "audit", extension = name, request = ?request.kind(), %denial, "denied: nobody to ask");
            Err(WitError::Denied(denial))
        }
    }
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

/// Everything an import that waits needs: taken from the store before the first `await`.
pub(crate) struct Ask {
    pub(crate) name: Arc<str>,
    pub(crate) owner: Arc<Owner>,
    pub(crate) grants: Arc<Grants>,
    pub(crate) limits: Limits,
    pub(crate) services: Arc<Services>,
    pub(crate) auditor: Option<Arc<Auditor>>,
    pub(crate) connections: Arc<Connections>,
    processes: Arc<Semaphore>,
}

impl Ask {
    /// Of a concurrent import. Must be called before its first `await`.
    pub(crate) fn of(accessor: &Accessor<Guest, Has>) -> Result<Self, WitError> {
        accessor.with(|mut access| Self::with(&mut access))
    }

    /// Of an import that has the store at hand.
    pub(crate) fn with(access: &mut Access<'_, Guest, Has>) -> Result<Self, WitError> {
        let oldest = access
            .as_context_mut()
            .async_call_stack()
            .ok()
            .and_then(Iterator::last);
        let guest = access.get();
        Ok(Self {
            name: guest.name.clone(),
            owner: guest.owner_of(oldest),
            grants: guest.grants.clone(),
            limits: guest.limits,
            services: guest.services()?,
            auditor: guest.auditor.clone(),
            connections: guest.connections.clone(),
            processes: guest.processes.clone(),
        })
    }

    /// The policy's word; what it leaves open, the harness's user decides.
    pub(crate) async fn permit(&self, request: &Request<'_>) -> Result<(), WitError> {
        let decision = self.grants.decide(request);
        if let Decision::Ask(question) = &decision {
            let words = question.to_string();
            let words = self.services.secrets.redact(&words);
            let asked = self.services.harness.approve(&self.name, &words);
            let answer = self.owner.race(asked).await;
            self.record(
                request,
                &match answer {
                    Ok(true) => Verdict::AskYes(&question.refused),
                    // Also when the call was given up before anybody answered.
                    Ok(false) | Err(_) => Verdict::AskNo(&question.refused),
                },
            );
            let yes = answer?;
            tracing::info!(target: "audit", extension = &*self.name, request = ?request.kind(), question = %words, yes, "asked");
            return if yes {
                Ok(())
            } else {
                let refused = question.refused.to_string();
                Err(WitError::Denied(format!(
                    "nobody approved it: {}",
                    self.services.secrets.redact(&refused)
                )))
            };
        }
        self.record(request, &Verdict::of(&decision));
        let secrets = Some(&*self.services.secrets);
        permit(&self.name, secrets, request, decision)
    }

    /// The policy's word where nobody can be asked: what it leaves open counts as no.
    pub(crate) fn permit_unasked(&self, request: &Request<'_>) -> Result<(), WitError> {
        let decision = self.grants.decide(request);
        self.record(request, &Verdict::of(&decision));
        let secrets = Some(&*self.services.secrets);
        permit(&self.name, secrets, request, decision)
    }

    fn record(&self, request: &Request<'_>, verdict: &Verdict<'_>) {
        if let Some(auditor) = &self.auditor {
            auditor.decided(&self.grants, request, verdict, self.owner.call());
        }
    }

    /// Counts the bytes of a use for the audit log.
    pub(crate) fn tally(&self, capability: &'static str) -> Option<Tally> {
        let auditor = self.auditor.clone()?;
        Some(Tally::new(auditor, capability, self.owner.call()))
    }

    /// A place for one more process, to be held as long as it runs.
    pub(crate) fn room_for_process(&self) -> Result<OwnedSemaphorePermit, WitError> {
        let most = self.limits.processes;
        self.processes.clone().try_acquire_owned().map_err(|_| {
            WitError::Limit(format!(
                "{} processes run already, as many as the limit `processes` allows",
                most
            ))
        })
    }

    /// Waits for `work`, or for the end of the call that asked for it. Boxed, because the futures of the platform's
    /// client are large and every import would hold one.
    pub(crate) fn race<'a, T, E: Into<WitError>>(
        &'a self,
        work: impl Future<Output = Result<T, E>> + Send + 'a,
    ) -> impl Future<Output = Result<T, WitError>> + Send + 'a {
        let work = Box::pin(work);
        async move { self.owner.race(work).await?.map_err(Into::into) }
    }
}

/// So much of one thing over all instances of a store.
struct Budget {
    held: u64,
    limit: u64,
}

impl Budget {
    fn new(limit: u64) -> Self {
        Self { held: 0, limit }
    }

    /// Takes what growing needs, if the limit has room for it.
    fn grow(&mut self, current: usize, desired: usize) -> bool {
        let total = u64::try_from(current)
            .ok()
            .and_then(|current| self.held.checked_sub(current))
            .zip(u64::try_from(desired).ok())
            .and_then(|(others, desired)| others.checked_add(desired))
            .filter(|total| *total <= self.limit);
        if let Some(total) = total {
            self.held = total;
        }
        total.is_some()
    }
}

/// Bounds memory and tables over all instances of a store, and remembers what was refused, so that
/// the trap that follows can be explained.
pub(crate) struct Limiter {
    memory: Budget,
    elements: Budget,
    parts: usize,
    refused: Option<String>,
}

impl Limiter {
    fn new(limits: &Limits) -> Self {
        Self {
            memory: Budget::new(limits.memory),
            elements: Budget::new(limits.table_elements),
            parts: usize::try_from(limits.instances).unwrap_or(usize::MAX),
            refused: None,
        }
    }

    /// The limit that was hit last, as a sentence.
    pub(crate) fn refused(&self) -> Option<&str> {
        self.refused.as_deref()
    }

    /// Linear memory in use, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        self.memory.held
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        let granted = self.memory.grow(current, desired);
        if !granted {
            self.refused = Some(format!(
                "it wanted more than the {} MiB of memory that its limit `memory` allows",
                self.memory.limit >> 20
            ));
        }
        Ok(granted)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        let granted = self.elements.grow(current, desired);
        if !granted {
            self.refused = Some(format!(
                "it wanted more than the {} table elements that its limit `table-elements` allows",
                self.elements.limit
            ));
        }
        Ok(granted)
    }

    fn instances(&self) -> usize {
        self.parts
    }

    fn tables(&self) -> usize {
        self.parts
    }

    fn memories(&self) -> usize {
        self.parts
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn memory_counts_over_all_memories_of_a_guest() {
        let limits = Limits {
            memory: 3 << 16,
            table_elements: 10,
            ..Limits::default()
        };
        let mut limiter = Limiter::new(&limits);
        assert!(limiter.memory_growing(0, 2 << 16, None).unwrap());
        assert!(limiter.memory_growing(0, 1 << 16, None).unwrap());
        assert!(!limiter.memory_growing(1 << 16, 2 << 16, None).unwrap());
        assert!(limiter.refused().unwrap().contains("`memory`"));
        assert!(limiter.table_growing(0, 10, None).unwrap());
        assert!(!limiter.table_growing(0, 1, None).unwrap());
        assert_eq!(limiter.memory(), 3 << 16);
    }
}
