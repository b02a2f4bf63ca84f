//! `pi-vers run`: one call, or a script of calls in one session.

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use pi_vers_host::{Session, StartReason};
use serde::Deserialize;
use serde_json::Value;

use crate::args::Run;
use crate::call::{Done, call};
use crate::failure::{Code, Failure};
use crate::harness::{self, CommandLine};
use crate::interrupt::Interrupts;
use crate::local::Local;
use crate::session::Stored;
use crate::setup;
use crate::tape;
use crate::terminal::Terminal;

/// Most bytes of a script or of arguments that come from a file.
const LARGEST: u64 = 64 << 20;

/// One line of a script.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    tool: String,
    #[serde(default = "no_arguments")]
    arguments: Value,
}

fn no_arguments() -> Value {
    Value::Object(serde_json::Map::new())
}

/// Runs the calls. What is wrong with the input is told before anything is started.
pub(crate) async fn run(terminal: Arc<Terminal>, options: Run) -> Result<Code, Failure> {
    let calls = calls(&options)?;
    // A replay needs no platform, also where the recording had one of its own.
    let local = match options.local && !tape::replays(&options.loading)? {
        true => Some(Local::attach(&terminal, options.state.as_deref()).await?),
        false => None,
    };
    let result = with_platform(&terminal, &options, local.as_ref(), calls).await;
    let ended = match local {
        Some(local) => local.leave(&terminal).await,
        None => Ok(()),
    };
    // Why the calls failed says more than why the platform did not end.
    let code = result?;
    ended.map(|()| code)
}

async fn with_platform(
    terminal: &Arc<Terminal>,
    options: &Run,
    local: Option<&Local>,
    calls: Vec<Line>,
) -> Result<Code, Failure> {
    let left = local.and_then(Local::left_behind);
    let interrupts = Interrupts::watch(terminal.clone(), left)?;
    let settings = local.map_or_else(setup::settings, Local::settings)?;
    let (host, extensions) = setup::load(&options.loading, settings).await?;
    let stored = match &options.session {
        Some(name) => Some(Stored::open(name).await?),
        None => None,
    };
    let resumed = match &stored {
        Some(stored) => !stored.is_new().await,
        None => false,
    };
    let flags = harness::flags(
        &options.flag,
        extensions.iter().map(pi_vers_host::Extension::info),
    )?;
    let harness = Arc::new(CommandLine::new(terminal.clone(), stored, flags)?.with_person());
    let session = host.session(harness.clone(), extensions)?;
    if resumed && let Err(why) = session.start(StartReason::Resume).await {
        // The calls of the others work; a call of this one says it again.
        terminal.note(format!("pi-vers: {}", Failure::from(why).line()));
    }
    let runner = Runner {
        terminal,
        options,
        session: &session,
        harness: &harness,
        interrupts: &interrupts,
    };
    let code = runner.all(calls).await;
    session.end().await;
    Ok(code)
}

/// What the calls of a run share.
struct Runner<'a> {
    terminal: &'a Terminal,
    options: &'a Run,
    session: &'a Session,
    harness: &'a CommandLine,
    interrupts: &'a Interrupts,
}

impl Runner<'_> {
    /// Runs them one after another; the code of the first that failed.
    async fn all(&self, calls: Vec<Line>) -> Code {
        let mut first = Code::Ok;
        let mut failure = None;
        for line in calls {
            let done = call(
                self.terminal,
                self.session,
                self.interrupts,
                &line.tool,
                line.arguments,
                self.options.timeout,
            )
            .await;
            self.report(&done);
            let code = done.code();
            failure = done.result.err();
            if first == Code::Ok {
                first = code;
            }
            // Somebody who cancels wants no more of it.
            if (code != Code::Ok && !self.options.keep_going) || self.interrupts.happened() {
                break;
            }
        }
        // What a background task had to say meanwhile.
        self.harness.show_held(failure.as_ref());
        first
    }

    fn report(&self, done: &Done) {
        self.harness.show_held(done.result.as_ref().err());
        if self.options.json {
            self.terminal.line(done.json().to_string());
        } else {
            done.print(self.terminal);
        }
    }
}

/// The calls that the command line asks for.
fn calls(options: &Run) -> Result<Vec<Line>, Failure> {
    match (&options.script, &options.tool) {
        (Some(script), _) => {
            let name = script.display().to_string();
            let text = if name == "-" { stdin()? } else { file(script)? };
            lines(&name, &text)
        }
        (None, Some(tool)) => Ok(vec![Line {
            tool: tool.clone(),
            arguments: arguments(&options.arguments)?,
        }]),
        (None, None) => Err(Failure::usage(
            "there is no tool to run: give its name, or --script FILE",
        )),
    }
}

fn arguments(text: &str) -> Result<Value, Failure> {
    let (what, text) = match (text, text.strip_prefix('@')) {
        ("-", _) => ("standard input".to_owned(), stdin()?),
        (_, Some(path)) => (path.to_owned(), file(Path::new(path))?),
        _ => ("the second argument".to_owned(), text.to_owned()),
    };
    serde_json::from_str(&text).map_err(|why| {
        Failure::new(Code::Usage, "json", format!("{what} is no JSON: {why}"))
            .next("write the arguments like '{\"path\":\"/etc/hosts\"}', @FILE or -")
    })
}

fn lines(name: &str, text: &str) -> Result<Vec<Line>, Failure> {
    let mut calls = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        calls.push(serde_json::from_str(line).map_err(|why| {
            Failure::new(Code::Usage, "json", format!("{name}:{}: {why}", number + 1))
                .next("write each line like {\"tool\":\"bash\",\"arguments\":{\"command\":\"ls\"}}; nothing was run")
        })?);
    }
    Ok(calls)
}

fn stdin() -> Result<String, Failure> {
    bounded(std::io::stdin().lock(), "standard input")
}

fn file(path: &Path) -> Result<String, Failure> {
    let name = path.display().to_string();
    let file = std::fs::File::open(path).map_err(|why| {
        Failure::new(Code::Usage, "file", format!("{name} can't be read: {why}"))
            .next("check the path")
    })?;
    bounded(file, &name)
}

fn bounded(source: impl std::io::Read, name: &str) -> Result<String, Failure> {
    let mut text = String::new();
    let read = source.take(LARGEST + 1).read_to_string(&mut text);
    read.map_err(|why| Failure::new(Code::Usage, "file", format!("{name} can't be read: {why}")))?;
    if text.len() as u64 > LARGEST {
        return Err(Failure::usage(format!(
            "{name} is larger than 64 MiB: is it the right one?"
        )));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn blank_lines_and_comments_are_skipped_and_errors_have_their_line() {
        let calls = lines(
            "s",
            "# first\n\n  {\"tool\":\"a\"}\n{\"tool\":\"b\",\"arguments\":{\"x\":1}}\n",
        )
        .unwrap();
        assert_eq!(
            (calls[0].tool.as_str(), &calls[0].arguments),
            ("a", &serde_json::json!({}))
        );
        assert_eq!(calls[1].arguments, serde_json::json!({ "x": 1 }));
        let line = lines("s", "\n{\"tool\":\"a\",\"argument\":{}}")
            .unwrap_err()
            .line();
        assert!(
            line.starts_with("s:2: unknown field `argument`") && line.contains("nothing was run"),
            "{line}"
        );
    }

    proptest::proptest! {
        #[test]
        fn no_script_panics(text in "\\PC{0,200}") {
            let _ = lines("s", &text);
        }
    }
}
