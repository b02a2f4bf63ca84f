//! The audit log: what extensions were allowed and denied, one record for each judged use of a capability.
//!
//! The threat is twofold. An extension that did harm must not be able to have left no trace; and the trace must not become a leak, a
//! brake or a full disk itself. So every decision of the policy passes through here; texts lose the values of secrets before they are
//! quoted, escaped and cut; and a sink is called on the guest's way and may not wait for anything. What is always allowed (its log, its
//! clocks, notices, its session's id) is not judged and not recorded, and neither are events that are delivered to an extension.
//!
//! [`AuditFile`] is the sink that keeps a file. An embedder may have another: anything that is [`Audit`].

mod file;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pi_vers_policy::{Decision, Denial, Digest, Grants, Request};
use pi_vers_system::secrets::Secrets;
use serde::Serialize;

use crate::harness::Harness;

pub use file::{AuditFile, AuditFileError};

/// The longest text of one fact, in characters; what is longer is cut, and says so.
const LONGEST: usize = 1_000;

/// Where judged uses are recorded.
pub trait Audit: Send + Sync + 'static {
    /// Takes one record. Called on the way of a guest's request: it must wait for nothing, neither a disk nor a lock that is held for
    /// long. What cannot be kept has to be counted.
    fn record(&self, record: &AuditRecord<'_>);
}

/// One judged use of a capability, or the end of one that moved bytes. Holds no secret's value; every text is bounded and safe to print.
#[derive(Debug, Clone, Serialize)]
pub struct AuditRecord<'a> {
    /// When, in RFC 3339, UTC.
    pub time: String,
    /// The front end's id of the session.
    pub session: &'a str,
    /// The extension's name.
    pub extension: &'a str,
    /// The digest of its bytes.
    pub digest: String,
    /// The capability: `vms`, `process`.
    pub capability: &'a str,
    /// What of it, where the capability has more than one use: `delete`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verb: Option<&'a str>,
    /// The facts of the request, by name: `VM`, `program`, `arguments`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub what: BTreeMap<&'static str, String>,
    /// `allow`, `deny`, `ask:yes` (somebody allowed it) or `ask:no` (nobody did); `None` at the end of a use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision: Option<&'static str>,
    /// The rule that allowed it; what is denied: the line that would allow it, or why none could.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// The front end's id of the call, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call: Option<&'a str>,
    /// At the end of a use: how many bytes it moved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

/// What was decided.
pub(crate) enum Verdict<'a> {
    Allow,
    Deny(&'a Denial),
    AskYes(&'a Denial),
    AskNo(&'a Denial),
}

impl<'a> Verdict<'a> {
    /// Where nobody can be asked, what is left open is denied.
    pub(crate) fn of(decision: &'a Decision) -> Self {
        match decision {
            Decision::Allow => Self::Allow,
            Decision::Deny(denial) => Self::Deny(denial),
            Decision::Ask(question) => Self::AskNo(&question.refused),
        }
    }

    fn word(&self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny(_) => "deny",
            Self::AskYes(_) => "ask:yes",
            Self::AskNo(_) => "ask:no",
        }
    }
}

/// Records what one extension does in one session.
pub(crate) struct Auditor {
    sink: Arc<dyn Audit>,
    secrets: Arc<Secrets>,
    harness: Arc<dyn Harness>,
    extension: Arc<str>,
    digest: Digest,
}

impl Auditor {
    pub(crate) fn new(
        sink: Arc<dyn Audit>,
        secrets: Arc<Secrets>,
        harness: Arc<dyn Harness>,
        extension: Arc<str>,
        digest: Digest,
    ) -> Self {
        Self {
            sink,
            secrets,
            harness,
            extension,
            digest,
        }
    }

    /// Records a decision.
    pub(crate) fn decided(
        &self,
        grants: &Grants,
        request: &Request<'_>,
        verdict: &Verdict<'_>,
        call: Option<&str>,
    ) {
        if request.is_always_allowed() {
            return;
        }
        let held_a_secret = Cell::new(false);
        let clean = |text: &str| {
            let clean = self.secrets.redact(text).into_owned();
            held_a_secret.set(held_a_secret.get() || clean != text);
            clean
        };
        let facts = request.facts(&clean).into_iter();
        let what: BTreeMap<_, _> = facts.map(|(name, value)| (name, cut(value))).collect();
        let rule = match verdict {
            Verdict::Allow => {
                let grounds = grants.grounds(request);
                let lines: Vec<String> = grounds.iter().map(ToString::to_string).collect();
                lines.join("; ")
            }
            // The rule that is missing is made of the request's words, quoted twice: no redactor finds a value in there for sure.
            Verdict::Deny(_) | Verdict::AskNo(_) if held_a_secret.get() => "none".into(),
            Verdict::Deny(denial) | Verdict::AskNo(denial) => missing(denial),
            Verdict::AskYes(denial) => format!("ask = [\"{}\"]", denial.capability),
        };
        let capability = request.capability();
        self.put(
            &capability,
            what,
            Some((verdict.word(), cut(clean(&rule)))),
            call,
            None,
        );
    }

    fn put(
        &self,
        capability: &str,
        what: BTreeMap<&'static str, String>,
        decision: Option<(&'static str, String)>,
        call: Option<&str>,
        bytes: Option<u64>,
    ) {
        let (capability, verb) = match capability.split_once('.') {
            Some((capability, verb)) => (capability, Some(verb)),
            None => (capability, None),
        };
        let (decision, rule) = decision.unzip();
        self.sink.record(&AuditRecord {
            time: now(),
            session: &self.harness.session_id(),
            extension: &self.extension,
            digest: self.digest.to_string(),
            capability,
            verb,
            what,
            decision,
            rule,
            call,
            bytes,
        });
    }
}

/// Counts the bytes of one use, and records them when it is dropped: however it ended.
pub(crate) struct Tally {
    auditor: Arc<Auditor>,
    capability: &'static str,
    call: Option<String>,
    bytes: AtomicU64,
}

impl Tally {
    pub(crate) fn new(auditor: Arc<Auditor>, capability: &'static str, call: Option<&str>) -> Self {
        Self {
            auditor,
            capability,
            call: call.map(str::to_owned),
            bytes: AtomicU64::new(0),
        }
    }

    pub(crate) fn add(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        let bytes = self.bytes.load(Ordering::Relaxed);
        // Nothing moved: denied, or there was nothing.
        if bytes == 0 {
            return;
        }
        let call = self.call.as_deref();
        self.auditor
            .put(self.capability, BTreeMap::new(), None, call, Some(bytes));
    }
}

/// The line that would allow it, or why nothing could.
fn missing(denial: &Denial) -> String {
    match (&denial.fix, &denial.why) {
        (Some(fix), _) => format!("none: {} in {}", fix.rule, fix.origin),
        (None, Some(why)) => format!("none: {why}"),
        (None, None) => "none".into(),
    }
}

fn cut(text: String) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!(
            "{}… ({} bytes)",
            text.get(..end).unwrap_or_default(),
            text.len()
        ),
        None => text,
    }
}

/// The time in RFC 3339, UTC, to the millisecond.
pub(crate) fn now() -> String {
    let now = jiff::Timestamp::now();
    format!("{now:.3}")
}
