//! One request, as to who sent it.
//!
//! Up to 2025-11-25 a client says once what it can, with `initialize`, and may be asked something while its request is under way.
//! Since 2026-07-28 every request says it for itself, and a server that needs an answer hands the call back.

use pi_vers_host::QuestionKind;
use rmcp::RoleServer;
use rmcp::model::{ClientCapabilities, LoggingLevel, ProgressToken, ProtocolVersion};
use rmcp::service::{Peer, RequestContext};

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) modern: bool,
    /// Choices may have titles.
    pub(crate) titled: bool,
    pub(crate) offers: Offers,
    /// Where progress goes.
    pub(crate) progress: Option<ProgressToken>,
    /// The least level of log messages that this request wants; only of modern ones.
    pub(crate) log: Option<LoggingLevel>,
    pub(crate) peer: Peer<RoleServer>,
}

/// What a client can do for an extension.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Offers {
    /// It shows forms.
    pub(crate) form: bool,
    /// Its model completes messages.
    pub(crate) sampling: bool,
    /// It tells its directories.
    pub(crate) roots: bool,
    /// It knows tasks.
    pub(crate) tasks: bool,
}

impl Offers {
    pub(crate) fn of(capabilities: Option<&ClientCapabilities>) -> Self {
        let Some(all) = capabilities else {
            return Self::default();
        };
        Self {
            // `elicitation: {}` means forms, as it did before there was anything else.
            form: all
                .elicitation
                .as_ref()
                .is_some_and(|one| one.form.is_some() || one.url.is_none()),
            sampling: all.sampling.is_some(),
            roots: all.roots.is_some(),
            tasks: all.supports_tasks(),
        }
    }
}

impl Offers {
    /// Whether it can be asked this.
    pub(crate) fn kind(self, kind: QuestionKind) -> bool {
        match kind {
            QuestionKind::Form => self.form,
            QuestionKind::Sampling => self.sampling,
            QuestionKind::Roots => self.roots,
        }
    }

    /// One that can be asked this, and no more.
    pub(crate) fn only(kind: QuestionKind) -> Self {
        Self {
            form: kind == QuestionKind::Form,
            sampling: kind == QuestionKind::Sampling,
            roots: kind == QuestionKind::Roots,
            tasks: false,
        }
    }
}

/// Whether a request is of this version or a later one.
fn since(context: &RequestContext<RoleServer>, least: &ProtocolVersion) -> bool {
    let version = context.protocol_version();
    version.is_some_and(|version| version.as_str() >= least.as_str())
}

/// Whether a request is of the era without `initialize`.
pub(crate) fn is_modern(context: &RequestContext<RoleServer>) -> bool {
    since(context, &ProtocolVersion::V_2026_07_28)
}

impl Client {
    pub(crate) fn of(context: &RequestContext<RoleServer>) -> Self {
        let modern = is_modern(context);
        Self {
            modern,
            titled: since(context, &ProtocolVersion::V_2025_11_25),
            offers: Offers::of(context.client_capabilities().as_ref()),
            progress: context.meta.get_progress_token(),
            log: context.meta.log_level().filter(|_| modern),
            peer: context.peer.clone(),
        }
    }
}

/// The levels of log messages, the least first.
pub(crate) fn rank(level: LoggingLevel) -> u8 {
    match level {
        LoggingLevel::Debug => 0,
        LoggingLevel::Info => 1,
        LoggingLevel::Notice => 2,
        LoggingLevel::Warning => 3,
        LoggingLevel::Error => 4,
        LoggingLevel::Critical => 5,
        LoggingLevel::Alert => 6,
        LoggingLevel::Emergency => 7,
    }
}
