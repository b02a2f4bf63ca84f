//! The two eras of the protocol, and what a request says of its client.
//!
//! Up to 2025-11-25 a client says who it is once, with `initialize`, and a server may ask it something meanwhile. Since
//! 2026-07-28 there is no such beginning: every request carries version and capabilities, and a server that needs an
//! answer hands the call back until the client calls again. Both are spoken on one connection, request by request.

use serde_json::{Map, Value, json};

use super::rpc::{Fault, UNSUPPORTED_VERSION};

/// What is spoken, the oldest first.
pub(crate) const VERSIONS: [&str; 5] = [
    "2024-11-05",
    "2025-03-26",
    "2025-06-18",
    "2025-11-25",
    MODERN,
];
/// The first version without `initialize`.
const MODERN: &str = "2026-07-28";
/// The newest with it.
const LAST_WITH_INITIALIZE: &str = "2025-11-25";

const VERSION: &str = "io.modelcontextprotocol/protocolVersion";
const CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
const LOG_LEVEL: &str = "io.modelcontextprotocol/logLevel";

/// What `initialize` agrees to.
pub(crate) fn negotiate(wanted: Option<&str>) -> &'static str {
    VERSIONS
        .into_iter()
        .find(|version| Some(*version) == wanted && *version != MODERN)
        .unwrap_or(LAST_WITH_INITIALIZE)
}

/// A client as `initialize` introduced it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Introduced {
    pub(crate) version: String,
    pub(crate) form: bool,
}

/// One request, as to who sent it.
#[derive(Debug, Clone)]
pub(crate) struct Leg {
    pub(crate) modern: bool,
    /// The client shows forms.
    pub(crate) form: bool,
    /// Choices may have titles.
    pub(crate) titled: bool,
    /// Where progress goes.
    pub(crate) progress: Option<Value>,
    /// The least level of log messages that this request wants; only of modern ones.
    pub(crate) log: Option<Level>,
}

impl Leg {
    /// Reads a request's `_meta`.
    pub(crate) fn of(
        params: &Map<String, Value>,
        introduced: Option<&Introduced>,
    ) -> Result<Self, Fault> {
        let meta = params.get("_meta").and_then(Value::as_object);
        let meta = |name: &str| meta.and_then(|meta| meta.get(name));
        let progress = meta("progressToken").filter(|t| t.is_string() || t.is_number());
        let progress = progress.cloned();
        let Some(version) = meta(VERSION) else {
            let known = introduced.cloned().unwrap_or_default();
            return Ok(Self {
                modern: false,
                form: known.form,
                titled: known.version.as_str() >= LAST_WITH_INITIALIZE,
                progress,
                log: None,
            });
        };
        if !VERSIONS.iter().any(|known| version == known) {
            return Err(Fault::new(
                UNSUPPORTED_VERSION,
                "this protocol version is not supported",
            )
            .with(json!({ "supported": VERSIONS, "requested": version })));
        }
        Ok(Self {
            modern: true,
            form: shows_forms(meta(CAPABILITIES)),
            titled: true,
            progress,
            log: meta(LOG_LEVEL).and_then(Level::read),
        })
    }
}

/// Whether these capabilities hold forms. `elicitation: {}` means forms, as it did before there was anything else.
pub(crate) fn shows_forms(capabilities: Option<&Value>) -> bool {
    capabilities
        .and_then(|all| all.get("elicitation"))
        .is_some_and(|elicitation| {
            elicitation.is_object()
                && (elicitation.get("form").is_some() || elicitation.get("url").is_none())
        })
}

/// The levels of log messages, the least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Debug,
    Info,
    Notice,
    Warning,
    Error,
    Critical,
    Alert,
    Emergency,
}

impl Level {
    const ALL: [(Self, &'static str); 8] = [
        (Self::Debug, "debug"),
        (Self::Info, "info"),
        (Self::Notice, "notice"),
        (Self::Warning, "warning"),
        (Self::Error, "error"),
        (Self::Critical, "critical"),
        (Self::Alert, "alert"),
        (Self::Emergency, "emergency"),
    ];

    pub(crate) fn read(value: &Value) -> Option<Self> {
        let found = Self::ALL.iter().find(|(_, name)| value == name)?;
        Some(found.0)
    }

    pub(crate) fn name(self) -> &'static str {
        let found = Self::ALL.iter().find(|(level, _)| *level == self);
        found.map_or("info", |(_, name)| name)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    fn leg(params: Value, introduced: Option<&Introduced>) -> Result<Leg, Fault> {
        let Value::Object(params) = params else {
            panic!("no object")
        };
        Leg::of(&params, introduced)
    }

    #[test]
    fn each_request_says_its_era_for_itself() {
        let introduced = Introduced {
            version: "2025-06-18".into(),
            form: true,
        };
        let old = leg(
            json!({ "_meta": { "progressToken": 0 } }),
            Some(&introduced),
        )
        .unwrap();
        assert!(!old.modern && old.form && !old.titled);
        assert_eq!(old.progress, Some(json!(0)));
        let new = leg(
            json!({ "_meta": { VERSION: MODERN, CAPABILITIES: { "elicitation": { "url": {} } }, LOG_LEVEL: "warning" } }),
            Some(&introduced),
        )
        .unwrap();
        assert!(new.modern && !new.form);
        assert_eq!(new.log, Some(Level::Warning));
        let fault = leg(json!({ "_meta": { VERSION: "2031-01-01" } }), None).unwrap_err();
        assert_eq!(fault.code, UNSUPPORTED_VERSION);
    }

    #[test]
    fn initialize_agrees_to_what_it_knows_and_offers_the_newest_with_it_otherwise() {
        assert_eq!(negotiate(Some("2024-11-05")), "2024-11-05");
        for other in [None, Some("2026-07-28"), Some("x")] {
            assert_eq!(negotiate(other), "2025-11-25");
        }
    }
}
