//! A test's script: JSON, one object a line. The first member that is known says what a line is; unknown members are errors.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;

pub(super) use super::lines::*;
use super::matching;

/// A script is never larger.
const LARGEST: u64 = 16 << 20;

/// A script, read and looked through.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) lines: Vec<Numbered>,
}

/// A line with its number, from 1.
#[derive(Debug, Clone)]
pub(super) struct Numbered {
    pub(super) number: usize,
    pub(super) text: Value,
    pub(super) line: Line,
}

macro_rules! lines {
    ($($(#[$doc:meta])* $key:literal $variant:ident $(($setting:literal))?,)*) => {
        /// What a line says.
        #[derive(Debug, Clone)]
        pub(super) enum Line { $($(#[$doc])* $variant($variant),)* }

        /// Words that a line may begin with.
        const KEYS: &[&str] = &[$($key),*];

        fn line(key: &str, value: Value) -> Result<Line, String> {
            match key {
                $($key => body(value).map(Line::$variant),)*
                _ => Err(format!("{key} is no kind of line")),
            }
        }
    };
}

lines! {
    "vm" Vm,
    "exec" Exec,
    "shell" Shell,
    "http" Http,
    "file" File,
    "store" Store,
    "secret" Secret,
    "environment" Environment,
    "flag" Flag,
    "entry" Entry,
    "dialog" Dialog,
    "client" Client,
    "built_in" BuiltIn,
    "call" Call,
    "command" Command,
    "complete" Complete,
    "event" Event,
    "restart" Restart,
    "check" Check,
}

fn body<T: DeserializeOwned>(value: Value) -> Result<T, String> {
    serde_json::from_value(value).map_err(|why| why.to_string())
}

impl Script {
    /// Reads a script's file.
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let size = std::fs::metadata(path)
            .map_err(|why| why.to_string())?
            .len();
        if size > LARGEST {
            return Err("it has more than 16 MiB".into());
        }
        let text = std::fs::read_to_string(path).map_err(|why| why.to_string())?;
        Self::parse(&text)
    }

    /// Reads a script's text. An error begins with the number of its line.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut lines = Vec::new();
        let mut acted = false;
        for (at, text) in text.lines().enumerate() {
            let text = text.trim();
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let number = at + 1;
            let wrong = |why: String| format!("{number}: {why}");
            let text: Value = serde_json::from_str(text)
                .map_err(|why| wrong(format!("this is no JSON: {why}")))?;
            let line = read(&text).map_err(wrong)?;
            line.looked_through(acted).map_err(wrong)?;
            acted |= line.acts();
            lines.push(Numbered { number, text, line });
        }
        if !acted {
            return Err("1: it tests nothing: there is no call, command, event or check".into());
        }
        Ok(Self { lines })
    }
}

/// What a line is: the first key that names a kind. `vm` is also where a command runs and a file is, so it counts last.
pub(super) fn read(text: &Value) -> Result<Line, String> {
    let object = text.as_object().ok_or("a line is a JSON object")?;
    let kinds = || KEYS.iter().filter(|key| object.contains_key(**key));
    // `call` may come with `command` only by mistake, which the members that are not known tell.
    let kind = kinds().find(|key| **key != "vm").or_else(|| kinds().next());
    match kind {
        Some(key) => line(key, text.clone()),
        None => Err(format!("a line has one of {}", KEYS.join(", "))),
    }
}

impl Line {
    /// Whether it does something, rather than say how things are.
    fn acts(&self) -> bool {
        matches!(
            self,
            Self::Call(_)
                | Self::Command(_)
                | Self::Complete(_)
                | Self::Event(_)
                | Self::Restart(_)
                | Self::Check(_)
        )
    }

    fn looked_through(&self, acted: bool) -> Result<(), String> {
        let early = || match acted {
            true => Err("this has to stand before the first call, command, event and check"),
            false => Ok(()),
        };
        let play = |play: &Play| {
            play.stdout.pieces()?;
            play.stderr.pieces()?;
            let all = [&play.env, &play.directory, &play.stdin];
            all.into_iter().flatten().try_for_each(matching::check)?;
            play.refuse.as_ref().map_or(Ok(()), Refuse::known)
        };
        match self {
            Self::Secret(_) | Self::Environment(_) | Self::Flag(_) | Self::Entry(_) => early()?,
            Self::Store(_) => early()?,
            Self::Exec(exec) => {
                matching::check(&exec.exec)?;
                play(&exec.play)?;
            }
            Self::Shell(shell) => {
                matching::check(&shell.shell)?;
                play(&shell.play)?;
            }
            Self::Http(http) => {
                matching::check(&http.http)?;
                http.body.pieces()?;
                http.request.as_ref().map_or(Ok(()), matching::check)?;
                http.refuse.as_ref().map_or(Ok(()), Refuse::known)?;
            }
            Self::Vm(vm) if !plain(&vm.vm) => return Err(unfit(&vm.vm)),
            Self::File(file) => {
                file.content.pieces()?;
                if let Some(mode) = &file.mode {
                    mode_of(mode)?;
                }
            }
            Self::Dialog(dialog) => matching::check(&dialog.dialog)?,
            Self::Client(client) => {
                client.parameters.as_ref().map_or(Ok(()), matching::check)?;
            }
            Self::BuiltIn(tool) => tool.arguments.as_ref().map_or(Ok(()), matching::check)?,
            Self::Call(call) => {
                call.expect.as_ref().map_or(Ok(()), matching::check)?;
                if let Some(Cancel::Shown(shown)) = &call.cancel {
                    matching::check(shown)?;
                }
                if let Some(name) = call.save.keys().find(|name| !plain(name)) {
                    return Err(unfit(name));
                }
            }
            Self::Command(Command { expect, .. })
            | Self::Complete(Complete { expect, .. })
            | Self::Event(Event { expect, .. }) => {
                expect.as_ref().map_or(Ok(()), matching::check)?;
            }
            Self::Check(check) => {
                matching::check(&check.expect)?;
                if (check.check == Subject::File) != check.path.is_some() {
                    return Err(
                        "`path` belongs to {\"check\":\"file\"}, and has to be there".into(),
                    );
                }
            }
            Self::Vm(_) | Self::Restart(_) => {}
        }
        Ok(())
    }
}

fn plain(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

fn unfit(name: &str) -> String {
    format!("{name:?} is no name: use letters, digits, - and _")
}

/// Permission bits as they are written: `755`.
pub(super) fn mode_of(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| *mode <= 0o7777)
        .ok_or_else(|| format!("{text:?} is no mode such as \"755\""))
}

impl Refuse {
    /// The contract's word for it.
    pub(super) fn refusal(&self) -> Option<pi_vers_host::Refusal> {
        use pi_vers_host::Refusal as R;
        [
            R::Denied,
            R::Invalid,
            R::NotFound,
            R::Conflict,
            R::TimedOut,
            R::Cancelled,
            R::Unavailable,
            R::Limit,
            R::Other,
        ]
        .into_iter()
        .find(|kind| kind.name() == self.kind)
    }

    fn known(&self) -> Result<(), String> {
        match self.refusal() {
            Some(_) => Ok(()),
            None => Err(format!(
                "refuse.kind is {:?}: take denied, invalid, not-found, conflict, timed-out, cancelled, unavailable, limit or other",
                self.kind
            )),
        }
    }
}

/// Puts values in the place of `${NAME}`, in every text; names that are not known stay as they are.
pub(super) fn substitute(value: &mut Value, known: &BTreeMap<String, String>) {
    match value {
        Value::String(text) => {
            for (name, with) in known {
                let place = format!("${{{name}}}");
                if text.contains(&place) {
                    *text = text.replace(&place, with);
                }
            }
        }
        Value::Array(all) => all.iter_mut().for_each(|one| substitute(one, known)),
        Value::Object(all) => all.values_mut().for_each(|one| substitute(one, known)),
        _ => {}
    }
}

/// How long a step may take.
pub(super) fn time(millis: u64) -> Duration {
    Duration::from_millis(millis.clamp(1, 600_000))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use serde_json::json;

    #[test]
    fn every_kind_of_line_is_read() {
        let text = r#"
# comment
{"vm":"web","labels":{"a":"b"}}
{"exec":["make","..."],"vm":"${web}","stdout":["a","b"],"code":2}
{"shell":{"contains":"ls"},"hang":true}
{"http":"GET https://a.example/x","json":{"a":1}}
{"file":"a","vm":"${web}","content":"x","mode":"755"}
{"store":{"k":1}}
{"secret":"KEY"}
{"environment":{"A":"b"}}
{"flag":"f","value":1}
{"entry":"k","data":{}}
{"dialog":{"kind":"confirm"},"answer":true}
{"client":"roots","answer":{"roots":[]}}
{"built_in":"bash","text":"x"}
{"call":"t","args":{"vm":"${web}"},"cancel":{"started":1},"expect":{"text":{"contains":"x"}},"save":{"n":"/text"}}
{"command":"go"}
{"complete":"go","prefix":"x","expect":[]}
{"event":"input","data":{"text":"x"}}
{"restart":"resume"}
{"check":"file","path":"a","expect":{"text":"x"}}
"#;
        let script = Script::parse(text).unwrap();
        assert_eq!(script.lines.len(), KEYS.len());
        assert_eq!(script.lines[0].number, 3);
        assert!(matches!(&script.lines[1].line, Line::Exec(exec) if exec.play.code == 2));
    }

    #[test]
    fn what_is_wrong_has_its_line() {
        for (text, says) in [
            ("", "1: it tests nothing"),
            ("\n[]", "2: a line is"),
            ("{\"cal\":\"x\"}", "1: a line has one of"),
            ("{\"call\":\"x\",\"arg\":{}}", "unknown field `arg`"),
            (
                "{\"exec\":[\"a\"],\"stdot\":\"x\"}\n{\"call\":\"x\"}",
                "stdot",
            ),
            (
                "{\"call\":\"x\",\"expect\":{\"text\":{\"matches\":\"(\"}}}",
                "regular expression",
            ),
            (
                "{\"call\":\"x\"}\n{\"secret\":\"A\"}",
                "2: this has to stand before",
            ),
            ("{\"vm\":\"a b\"}\n{\"call\":\"x\"}", "no name"),
            ("{\"exec\":[],\"refuse\":{\"kind\":\"no\"}}", "refuse.kind"),
            ("{\"check\":\"file\",\"expect\":{}}", "path"),
            ("{\"call\":\"x\"} x", "1: this is no JSON"),
        ] {
            let why = Script::parse(text).unwrap_err();
            assert!(why.contains(says), "{text}: {why}");
        }
    }

    #[test]
    fn names_are_replaced_everywhere_and_others_stay() {
        let mut value = json!({ "a": ["${web}/x", "${HOME}"], "b": "${web}" });
        let known = BTreeMap::from([("web".to_owned(), "1".to_owned())]);
        substitute(&mut value, &known);
        assert_eq!(value, json!({ "a": ["1/x", "${HOME}"], "b": "1" }));
    }

    proptest::proptest! {
        #[test]
        fn no_script_panics(text in "\\PC{0,200}") {
            let _ = Script::parse(&text);
        }

        #[test]
        fn no_line_panics(key in "(vm|exec|http|call|check|file|restart|cancel)", other in "(vm|stdout|expect|times|path|save)", text in "\\PC{0,9}") {
            let _ = Script::parse(&json!({ key: text, other: { "matches": text } }).to_string());
        }
    }
}
