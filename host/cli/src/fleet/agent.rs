//! What the labels of a VM say of the agent on it. Anybody in the organisation may have written them: nothing is taken for granted.

use std::time::Duration;

use pi_vers_host::policy::visible;
use serde_json::{Value, json};
use vers_client::api::Vm;

/// The labels, as extensions write them (`pi_vers_sdk::agent::labels`).
pub(super) mod labels {
    pub(crate) const ROLE: &str = "pi-vers.role";
    pub(crate) const NAME: &str = "pi-vers.name";
    pub(crate) const SESSION: &str = "pi-vers.session";
    pub(crate) const OWNER: &str = "pi-vers.owner";
    pub(crate) const PARENT: &str = "pi-vers.parent";
    pub(crate) const CREATED: &str = "pi-vers.created";
    pub(crate) const EXPIRES: &str = "pi-vers.expires";
    pub(super) const ALL: [&str; 7] = [ROLE, NAME, SESSION, OWNER, PARENT, CREATED, EXPIRES];
}

/// A text in a table is cut to this many characters.
const WIDEST: usize = 36;

/// A VM with labels of an agent.
#[derive(Debug, Clone)]
pub(super) struct Agent(Vm);

/// When nobody needs a VM any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Expiry {
    /// It does not say.
    Never,
    /// This many seconds ago.
    Since(u64),
    /// In this many seconds.
    In(u64),
    /// It says something that is no time.
    Unreadable(String),
}

impl Agent {
    /// None for a VM that carries no label of an agent.
    pub(super) fn of(vm: Vm) -> Option<Self> {
        let labelled = labels::ALL.iter().any(|name| vm.labels.contains_key(*name));
        labelled.then_some(Self(vm))
    }

    pub(super) fn vm(&self) -> &Vm {
        &self.0
    }

    fn label(&self, name: &str) -> Option<&str> {
        self.0.labels.get(name).map(String::as_str)
    }

    /// When it was made, in seconds since 1970: as its label says, or else the platform.
    pub(super) fn created(&self) -> Option<u64> {
        let told = self.label(labels::CREATED).and_then(seconds);
        told.or_else(|| {
            let platform: jiff::Timestamp = self.0.created_at.parse().ok()?;
            u64::try_from(platform.as_second()).ok()
        })
    }

    pub(super) fn expiry(&self, now: u64) -> Expiry {
        match self.label(labels::EXPIRES) {
            None => Expiry::Never,
            Some(text) => match seconds(text) {
                Some(at) if at <= now => Expiry::Since(now - at),
                Some(at) => Expiry::In(at - now),
                None => Expiry::Unreadable(text.to_owned()),
            },
        }
    }

    /// What it is called, for a line of text.
    pub(super) fn name(&self) -> String {
        cell(self.label(labels::NAME))
    }

    /// The cells of its row, see [`HEADINGS`].
    pub(super) fn row(&self, now: u64) -> Vec<String> {
        let age = self.created().map(|at| span(now.saturating_sub(at)));
        vec![
            self.0.id.to_string(),
            self.0.state.to_string(),
            cell(self.label(labels::ROLE)),
            self.name(),
            cell(self.label(labels::SESSION)),
            cell(self.label(labels::PARENT)),
            cell(self.label(labels::OWNER)),
            cell(age.as_deref()),
            self.expiry(now).text(),
        ]
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "vm": self.0.id,
            "state": self.0.state.as_str(),
            "role": self.label(labels::ROLE),
            "name": self.label(labels::NAME),
            "session": self.label(labels::SESSION),
            "parent": self.label(labels::PARENT),
            "owner": self.label(labels::OWNER),
            "created": self.created(),
            "expires": self.label(labels::EXPIRES).map(|text| seconds(text).map_or_else(|| json!(text), Value::from)),
        })
    }
}

/// What stands above the columns.
pub(super) const HEADINGS: [&str; 9] = [
    "VM", "STATE", "ROLE", "NAME", "SESSION", "PARENT", "OWNER", "AGE", "EXPIRES",
];

impl Expiry {
    pub(super) fn text(&self) -> String {
        match self {
            Self::Never => "never".into(),
            Self::Since(ago) => format!("{} ago", span(*ago)),
            Self::In(left) => format!("in {}", span(*left)),
            Self::Unreadable(text) => format!("? ({})", cell(Some(text))),
        }
    }
}

/// Seconds since 1970, written as nothing but digits.
fn seconds(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// A foreign text in a row: nothing hidden in it, no second row, not too wide.
fn cell(text: Option<&str>) -> String {
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return "-".into();
    };
    let shown = visible(text);
    match shown.char_indices().nth(WIDEST) {
        Some((end, _)) => format!("{}…", shown.get(..end).unwrap_or_default()),
        None => shown,
    }
}

/// A time in its largest unit.
fn span(seconds: u64) -> String {
    let duration = Duration::from_secs(seconds);
    match duration.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7_200 => format!("{} min", seconds / 60),
        seconds @ 7_200..172_800 => format!("{} h", seconds / 3_600),
        seconds => format!("{} d", seconds / 86_400),
    }
}

/// Rows with their columns below one another.
pub(super) fn table(rows: &[Vec<String>]) -> Vec<String> {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..HEADINGS.len()).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths);
        let padded = cells.map(|(cell, width)| format!("{cell:width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "0a0b0c0d-0000-4000-8000-000000000001";

    fn vm(labels: Value) -> Vm {
        let vm = json!({ "vm_id": ID, "state": "Running", "created_at": "1970-01-01T01:00:00Z", "labels": labels });
        serde_json::from_value(vm).unwrap()
    }

    fn agent(labels: Value) -> Agent {
        Agent::of(vm(labels)).unwrap()
    }

    #[test]
    fn the_labels_are_those_that_extensions_write() {
        let source = include_str!("../../../../extensions/sdk/src/agent/mod.rs");
        let written: Vec<&str> = source
            .lines()
            .filter_map(|line| line.trim().strip_prefix("pub const "))
            .filter_map(|line| line.split_once(": &str = \"")?.1.strip_suffix("\";"))
            .filter(|value| value.starts_with("pi-vers."))
            .collect();
        assert_eq!(written, labels::ALL);
    }

    #[test]
    fn a_vm_without_labels_of_an_agent_is_none() {
        assert!(Agent::of(vm(json!({ "team": "web", "pi-vers": "x" }))).is_none());
        assert!(Agent::of(vm(json!({ "pi-vers.expires": "1" }))).is_some());
    }

    #[test]
    fn only_a_time_that_has_passed_is_an_end() {
        let expiry = |text: &str| agent(json!({ "pi-vers.expires": text })).expiry(1_000);
        assert_eq!(expiry("1000"), Expiry::Since(0));
        assert_eq!(expiry("0"), Expiry::Since(1_000));
        assert_eq!(expiry("1001"), Expiry::In(1));
        for text in [
            "",
            " 1",
            "-1",
            "1.5",
            "1e3",
            "soon",
            "99999999999999999999",
            "+5",
            "٣",
        ] {
            assert_eq!(expiry(text), Expiry::Unreadable(text.into()));
        }
        assert_eq!(
            agent(json!({ "pi-vers.name": "x" })).expiry(1_000),
            Expiry::Never
        );
    }

    #[test]
    fn an_age_is_that_of_the_label_or_of_the_platform() {
        let created = |text: &str| agent(json!({ "pi-vers.created": text })).created();
        assert_eq!((created("7"), created("x")), (Some(7), Some(3_600)));
        assert_eq!(span(119), "119 s");
        assert_eq!(span(7_199), "119 min");
        assert_eq!(span(172_799), "47 h");
        assert_eq!(span(u64::MAX), format!("{} d", u64::MAX / 86_400));
    }

    proptest! {
        #[test]
        fn no_label_forges_a_row_or_hides_something(name in "\\PC{0,60}|[\u{0}-\u{9f}\u{200b}-\u{202e}]{0,60}", role in any::<String>(), expires in any::<String>()) {
            let agent = agent(json!({ "pi-vers.name": name, "pi-vers.role": role, "pi-vers.expires": expires }));
            let rows = vec![HEADINGS.map(str::to_owned).to_vec(), agent.row(5)];
            let lines = table(&rows);
            prop_assert_eq!(lines.len(), 2);
            let hidden = |c: char| pi_vers_host::policy::is_deceptive(c);
            prop_assert!(lines.iter().all(|line| !line.contains(hidden)));
            prop_assert!(lines[1].starts_with(ID));
            let parsed: Value = serde_json::from_str(&agent.json().to_string()).unwrap();
            prop_assert_eq!(&parsed["name"], &json!(name));
        }
    }
}
