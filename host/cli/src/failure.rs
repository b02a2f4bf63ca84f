//! Failures and exit codes: one table for the whole program.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | the tool ran, or the platform was asked, and said no: no such VM, a command that failed, … |
//! | 2 | wrong use: arguments, JSON, files, an unknown tool |
//! | 3 | denied: by the policy, or the platform does not let this key do that |
//! | 4 | the platform or the VM could not be reached, or refused the key |
//! | 5 | a time limit passed |
//! | 6 | cancelled |
//! | 7 | an extension is broken: no component, another world, a crash |
//! | 8 | this machine: a directory, the engine, the local platform |
//! | 9 | a replay differs from its recording |
//!
//! Codes and the `kind` words are stable; the sentences may change.

use pi_vers_host::{CallError, Error, Problem, Refusal, ToolOutput, visible};
use serde_json::{Value, json};

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Code {
    Ok = 0,
    Tool = 1,
    Usage = 2,
    Denied = 3,
    Platform = 4,
    TimedOut = 5,
    Cancelled = 6,
    Extension = 7,
    Internal = 8,
    Differs = 9,
}

/// A failure: how to end, one line that says what and why, and what to do next.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) code: Code,
    /// For programs.
    pub(crate) kind: &'static str,
    /// For people, one line.
    pub(crate) message: String,
    /// What to do, where the message does not say it already.
    pub(crate) next: Option<String>,
    /// What is wrong with arguments, place by place.
    pub(crate) problems: Vec<Problem>,
    /// What the tool handed back in spite of it.
    pub(crate) output: Option<Box<ToolOutput>>,
}

impl Failure {
    pub(crate) fn new(code: Code, kind: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            kind,
            message: message.into(),
            next: None,
            problems: Vec::new(),
            output: None,
        }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Code::Usage, "usage", message)
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(Code::Internal, "internal", message)
    }

    /// With what to do about it.
    pub(crate) fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

    /// The one line.
    pub(crate) fn line(&self) -> String {
        let message = one_line(&self.message);
        match &self.next {
            Some(next) => format!("{} → {next}", message.trim_end_matches(['.', ':'])),
            None => message,
        }
    }

    /// The `error` member of a JSON result.
    pub(crate) fn json(&self) -> Value {
        let mut error =
            json!({ "kind": self.kind, "message": self.line(), "exit": self.code as u8 });
        if let Some(error) = error.as_object_mut()
            && !self.problems.is_empty()
        {
            let problems = self
                .problems
                .iter()
                .map(|problem| json!({ "path": problem.path, "message": problem.message }));
            error.insert("problems".into(), problems.collect());
        }
        error
    }
}

/// Line feeds and invisible characters made visible or blank; long texts shortened in the middle of nowhere.
fn one_line(text: &str) -> String {
    const MOST: usize = 1500;
    let mut line: String = text
        .split('\n')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join(" ");
    if line.chars().count() > MOST {
        line = line.chars().take(MOST).chain(['…']).collect();
    }
    visible(&line)
}

/// The last line of a tool's text that says something: where tools put why they failed.
fn last_words(text: &str) -> &str {
    text.lines()
        .rev()
        .map(str::trim)
        .find(|line| !line.is_empty())
        .unwrap_or("it does not say why")
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        let message = error.to_string();
        match error {
            CallError::Failed(output) => {
                let mut failure = Self::new(Code::Tool, "failed", last_words(&output.text()));
                failure.output = Some(Box::new(output));
                failure
            }
            CallError::Unknown { .. } => Self::new(Code::Usage, "unknown-tool", message)
                .next("`pi-vers tools` lists what there is"),
            CallError::Arguments { tool, problems } => {
                let mut failure = Self::new(Code::Usage, "arguments", message)
                    .next(format!("`pi-vers tools {tool}` shows what it takes"));
                failure.problems = problems;
                failure
            }
            CallError::Refused { kind, .. } => refused(kind, message),
            CallError::TimedOut { output, .. } => {
                let mut failure = Self::new(Code::TimedOut, "timed-out", message)
                    .next("raise `limits.call` of the extension in the policy");
                failure.output = Some(Box::new(output));
                failure
            }
            CallError::Cancelled { output, .. } => {
                let mut failure = Self::new(Code::Cancelled, "cancelled", message);
                failure.output = Some(Box::new(output));
                failure
            }
            CallError::Crashed { extension, .. } => Self::new(Code::Extension, "crashed", message)
                .next(format!(
                    "try again, or tell the author of {extension}; PI_VERS_LOG=debug shows more"
                )),
            CallError::Contract { extension, .. } => {
                Self::new(Code::Extension, "contract", message)
                    .next(format!("tell the author of {extension}"))
            }
            CallError::Closed => Self::new(Code::Internal, "closed", message),
        }
    }
}

fn refused(kind: Refusal, message: String) -> Failure {
    let code = match kind {
        Refusal::Denied => Code::Denied,
        Refusal::Invalid => Code::Usage,
        Refusal::Unavailable => Code::Platform,
        Refusal::TimedOut => Code::TimedOut,
        Refusal::Cancelled => Code::Cancelled,
        Refusal::NotFound | Refusal::Conflict | Refusal::Limit | Refusal::Other => Code::Tool,
    };
    Failure::new(code, kind.name(), message)
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::Engine(_) => {
                Self::new(Code::Internal, "engine", message).next("`pi-vers doctor` looks into it")
            }
            Error::Cache { .. } => Self::new(Code::Internal, "cache", message)
                .next("make it yours with mode 0700, or set XDG_CACHE_HOME"),
            Error::Read { .. } => Self::new(Code::Usage, "file", message).next("check the path"),
            Error::NotAComponent { .. } => Self::new(Code::Extension, "not-a-component", message),
            Error::OtherWorld { .. } => Self::new(Code::Extension, "other-world", message),
            Error::Description { .. } => {
                Self::new(Code::Extension, "description", message).next("tell its author")
            }
            Error::Script { .. } => Self::new(Code::Extension, "script", message),
            Error::Clash { .. } => Self::new(Code::Usage, "clash", message),
            Error::Policy(_) => Self::new(Code::Usage, "policy", message),
            Error::Platform(_) => Self::new(Code::Usage, "settings", message),
            Error::Tape(why) => why.into(),
        }
    }
}

impl From<vers_client::Error> for Failure {
    fn from(error: vers_client::Error) -> Self {
        use vers_client::Kind as K;
        let (code, kind) = match error.kind() {
            K::Unauthorized => (Code::Platform, "unauthorized"),
            K::Denied => (Code::Denied, "denied"),
            K::Invalid => (Code::Usage, "invalid"),
            K::NotFound => (Code::Tool, "not-found"),
            K::Conflict => (Code::Tool, "conflict"),
            K::TimedOut => (Code::TimedOut, "timed-out"),
            K::Cancelled => (Code::Cancelled, "cancelled"),
            K::Unavailable => (Code::Platform, "unavailable"),
            K::Limit => (Code::Tool, "limit"),
            K::Other => (Code::Tool, "other"),
        };
        Self::new(code, kind, error.to_string())
    }
}

impl From<pi_vers_host::policy::Error> for Failure {
    fn from(error: pi_vers_host::policy::Error) -> Self {
        Self::new(Code::Usage, "policy", error.to_string())
    }
}

impl From<vers_local::Error> for Failure {
    fn from(error: vers_local::Error) -> Self {
        Self::new(Code::Internal, "local-platform", error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pi_vers_host::Content;

    fn output(text: &str) -> ToolOutput {
        ToolOutput {
            content: vec![Content::text(text)],
            ..ToolOutput::default()
        }
    }

    #[test]
    fn every_call_error_has_its_code_and_one_line() {
        let problem = Problem {
            path: "/a".into(),
            message: "is\nwrong".into(),
        };
        let table = [
            (
                CallError::Failed(output("lots\nof output\n\nCommand exited with code 3\n")),
                Code::Tool,
                "Command exited with code 3",
            ),
            (
                CallError::Unknown {
                    what: "tool",
                    name: "bsh".into(),
                    near: Some("bash".into()),
                },
                Code::Usage,
                "did you mean bash?",
            ),
            (
                CallError::Arguments {
                    tool: "t".into(),
                    problems: vec![problem],
                },
                Code::Usage,
                "/a: is wrong",
            ),
            (
                CallError::Refused {
                    kind: Refusal::Denied,
                    message: "x may not".into(),
                },
                Code::Denied,
                "x may not",
            ),
            (
                CallError::Refused {
                    kind: Refusal::Unavailable,
                    message: "no route".into(),
                },
                Code::Platform,
                "no route",
            ),
            (
                CallError::TimedOut {
                    what: "call of t".into(),
                    after: 5,
                    output: output(""),
                },
                Code::TimedOut,
                "5 s",
            ),
            (
                CallError::Cancelled {
                    what: "call of t".into(),
                    stopped: vec![],
                    output: output(""),
                },
                Code::Cancelled,
                "cancelled",
            ),
            (
                CallError::Crashed {
                    extension: "x".into(),
                    why: "trap".into(),
                },
                Code::Extension,
                "trap",
            ),
            (
                CallError::Contract {
                    extension: "x".into(),
                    why: "y".into(),
                },
                Code::Extension,
                "author of x",
            ),
            (CallError::Closed, Code::Internal, "ended"),
        ];
        for (error, code, says) in table {
            let failure = Failure::from(error);
            let line = failure.line();
            assert_eq!(failure.code, code, "{line}");
            assert!(line.contains(says) && !line.contains('\n'), "{line}");
        }
    }

    #[test]
    fn a_guests_words_cannot_forge_a_second_line() {
        let failure = Failure::from(CallError::Refused {
            kind: Refusal::Other,
            message: "a\n\x1b[2Jpi-vers: done".into(),
        });
        assert_eq!(failure.line(), "a \u{241b}[2Jpi-vers: done");
    }

    #[test]
    fn problems_are_listed_by_path_in_json() {
        let problems = vec![
            Problem {
                path: "/a".into(),
                message: "one".into(),
            },
            Problem {
                path: String::new(),
                message: "two".into(),
            },
        ];
        let json = Failure::from(CallError::Arguments {
            tool: "t".into(),
            problems,
        })
        .json();
        assert_eq!(json.pointer("/problems/0/path"), Some(&json!("/a")));
        assert_eq!(json.pointer("/problems/1/message"), Some(&json!("two")));
        assert_eq!(json.pointer("/exit"), Some(&json!(2)));
    }
}
