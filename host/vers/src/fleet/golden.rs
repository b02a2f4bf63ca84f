//! Which commit agents' VMs start from. The order is that of every other client of Reef; what differs is that each step ends in time, and
//! that the failure says what each of them met.

use reqwest::Method;
use serde_json::Value;

use super::reef::{Place, Reef};
use super::{absent, entries};
use crate::CommitId;
use crate::error::{Error, Kind, Result, shown};

/// A golden commit, and who says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Golden {
    /// The commit.
    pub commit: CommitId,
    /// Who says so.
    pub source: Source,
}

/// Who says which commit is golden.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The caller.
    Explicit,
    /// `VERS_GOLDEN_COMMIT_ID`, or `VERS_COMMIT_ID`.
    Environment,
    /// Reef's list of commits.
    ReefCommits,
    /// The older registry of VMs.
    ReefRegistry,
    /// Reef was asked to see to it that there is one.
    ReefEnsure {
        /// Whether it had to be built.
        created: bool,
    },
}

/// What is said when nobody knows one.
const NONE: &str = "No golden commit available. Pass commitId explicitly, set VERS_GOLDEN_COMMIT_ID/VERS_COMMIT_ID, or configure a Reef root with /commits/ensure-golden.";

pub(super) async fn resolve(
    reef: &Reef,
    place: &Result<Place>,
    explicit: Option<&str>,
    ensure: bool,
) -> Result<Golden> {
    if let Some(text) = explicit.map(str::trim).filter(|text| !text.is_empty()) {
        let commit = text.parse()?;
        let source = Source::Explicit;
        return Ok(Golden { commit, source });
    }
    for name in ["VERS_GOLDEN_COMMIT_ID", "VERS_COMMIT_ID"] {
        if let Some(text) = reef.environment().get(name) {
            let commit = text.parse().map_err(|why: Error| why.during(name))?;
            let source = Source::Environment;
            return Ok(Golden { commit, source });
        }
    }
    let base = match place {
        Ok(Place::Named(base) | Place::Guessed(base)) => base,
        Err(why) => return Err(none(vec![why.clone()])),
    };
    let mut refusals = Vec::new();
    let steps = [
        ("/commits/current/golden", Source::ReefCommits),
        ("/registry/vms?role=golden", Source::ReefRegistry),
    ];
    for (path, source) in steps {
        let what = format!("GET {path}");
        match reef.ask(base, &what, Method::GET, path, None).await {
            Ok(answer) => match commit(&answer, source) {
                Some(Ok(commit)) => return Ok(Golden { commit, source }),
                Some(Err(why)) => refusals.push(why.during(what)),
                None => {}
            },
            Err(why) => {
                // Who is not there does not answer the other questions either.
                let nobody = why.kind() == Kind::Unavailable && why.status().is_none();
                refusals.push(why);
                if nobody {
                    return Err(none(refusals));
                }
            }
        }
    }
    if ensure {
        let path = "/commits/ensure-golden";
        let what = format!("POST {path}");
        match reef.build(base, &what, path).await {
            Ok(answer) => {
                let created = answer.get("created").and_then(Value::as_bool) == Some(true);
                let source = Source::ReefEnsure { created };
                match commit(&answer, source) {
                    Some(Ok(commit)) => return Ok(Golden { commit, source }),
                    Some(Err(why)) => refusals.push(why.during(what)),
                    None => refusals.push(Error::other(format!("{what}: it names no commit"))),
                }
            }
            Err(why) => refusals.push(why),
        }
    }
    Err(none(refusals))
}

/// The commit that an answer names.
fn commit(answer: &Value, source: Source) -> Option<Result<CommitId>> {
    let holder = match source {
        Source::ReefRegistry => entries(answer).first()?.get("metadata")?,
        _ => answer,
    };
    let text = holder.get("commitId")?.as_str()?;
    (!text.is_empty()).then(|| text.parse())
}

/// Nobody knows one; and what kept whom from saying so. That Reef has none is no news.
fn none(refusals: Vec<Error>) -> Error {
    let met: Vec<&Error> = refusals.iter().filter(|why| !absent(why)).collect();
    let kind = met.last().map_or(Kind::NotFound, |why| why.kind());
    let told: Vec<String> = met.iter().map(|why| shown(&why.to_string())).collect();
    let line = match told.is_empty() {
        true => NONE.to_owned(),
        false => format!("{NONE} ({})", told.join("; ")),
    };
    Error::new(kind, line)
}
