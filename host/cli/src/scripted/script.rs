//! The language of prompts: what the scripted agent does is said line by line.
//!
//! A prompt comes from a program that splits work, so a line that is none of ours is ordinary speech and is answered with a sentence:
//! no prompt is wrong. See `docs/scripted-agent.md` for the words.

use std::time::Duration;

/// The longest `sleep`.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);
/// The longest answer that `big` gives, in bytes.
const BIGGEST: usize = 8 << 20;
/// Most failures of `retry`.
const MOST_RETRIES: u32 = 20;

/// A signal that `kill` sends to the agent itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deadly {
    Kill,
    Abort,
    Segv,
}

/// A dialog's kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Question {
    Confirm,
    Select,
    Input,
    Editor,
}

impl Question {
    /// The protocol's word.
    pub(super) fn method(self) -> &'static str {
        match self {
            Self::Confirm => "confirm",
            Self::Select => "select",
            Self::Input => "input",
            Self::Editor => "editor",
        }
    }
}

/// Why the agent makes room in its context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    /// It is nearly full; the run is over.
    Threshold,
    /// It was full; the run goes on afterwards.
    Overflow,
}

/// One line of a prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Run a shell command as the tool `bash`.
    Run(String),
    /// Run a shell command and say its output as it comes.
    Stream(String),
    Say(String),
    Sleep(Duration),
    /// The model fails.
    Fail(String),
    /// The model is overloaded so many times.
    Retry {
        times: u32,
        delay: Duration,
    },
    /// With the names of events that punkin-pi has, or pi's.
    Compact {
        room: Room,
        punkin: bool,
    },
    Hang,
    Crash(i32),
    Kill(Deadly),
    Ask {
        question: Question,
        title: String,
        options: Vec<String>,
    },
    Notify(String),
    /// A line on standard output that is no JSON.
    Noise(String),
    Big(usize),
    Env(String),
    Model,
    SystemPrompt,
    Count,
    /// Ordinary speech.
    Hear(String),
}

/// Whether the prompt is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    Take,
    /// Taken, and then refused in a second response.
    Refuse(String),
    /// Refused at once.
    Reject(String),
}

/// What a prompt says about itself. Only its first line can refuse it.
pub(super) fn verdict(prompt: &str) -> Verdict {
    let first = lines(prompt).next().unwrap_or_default();
    match word(first) {
        ("refuse", why) if !why.is_empty() => Verdict::Refuse(why.to_owned()),
        ("reject", why) if !why.is_empty() => Verdict::Reject(why.to_owned()),
        _ => Verdict::Take,
    }
}

/// What a prompt says is to be done.
pub(super) fn steps(prompt: &str) -> Vec<Step> {
    lines(prompt).map(step).collect()
}

fn lines(prompt: &str) -> impl Iterator<Item = &str> {
    prompt
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
}

/// The first word, and what is behind it.
fn word(line: &str) -> (&str, &str) {
    match line.split_once(char::is_whitespace) {
        Some((first, rest)) => (first, rest.trim()),
        None => (line, ""),
    }
}

fn step(line: &str) -> Step {
    let (first, rest) = word(line);
    let own = || rest.to_owned();
    let known = match (first, rest.is_empty()) {
        ("run", false) => Some(Step::Run(own())),
        ("stream", false) => Some(Step::Stream(own())),
        ("say", false) => Some(Step::Say(own())),
        ("sleep", false) => millis(rest).map(Step::Sleep),
        ("fail", false) => Some(Step::Fail(own())),
        ("retry", false) => retry(rest),
        ("compact", _) => compact(rest),
        ("hang", true) => Some(Step::Hang),
        ("crash", true) => Some(Step::Crash(1)),
        ("crash", false) => rest.parse::<u8>().ok().map(|code| Step::Crash(code.into())),
        ("kill", false) => deadly(rest).map(Step::Kill),
        ("ask", false) => ask(rest),
        ("notify", false) => Some(Step::Notify(own())),
        ("noise", false) => Some(Step::Noise(own())),
        ("big", false) => rest
            .parse()
            .ok()
            .filter(|bytes| (1..=BIGGEST).contains(bytes))
            .map(Step::Big),
        ("env", false) if !rest.contains(['=', ' ', '\0']) => Some(Step::Env(own())),
        ("model", true) => Some(Step::Model),
        ("prompt", true) => Some(Step::SystemPrompt),
        ("count", true) => Some(Step::Count),
        _ => None,
    };
    known.unwrap_or_else(|| Step::Hear(line.to_owned()))
}

fn millis(text: &str) -> Option<Duration> {
    let time = Duration::from_millis(text.parse().ok()?);
    (time <= LONGEST_SLEEP).then_some(time)
}

fn retry(rest: &str) -> Option<Step> {
    let (times, delay) = word(rest);
    let times = times.parse().ok().filter(|times| *times <= MOST_RETRIES)?;
    let delay = match delay {
        "" => Duration::from_millis(20),
        delay => millis(delay)?,
    };
    Some(Step::Retry { times, delay })
}

fn compact(rest: &str) -> Option<Step> {
    let (mut room, mut punkin) = (Room::Threshold, false);
    for word in rest.split_whitespace() {
        match word {
            "threshold" => room = Room::Threshold,
            "overflow" => room = Room::Overflow,
            "punkin" => punkin = true,
            _ => return None,
        }
    }
    Some(Step::Compact { room, punkin })
}

fn deadly(name: &str) -> Option<Deadly> {
    Some(match name.strip_prefix("SIG").unwrap_or(name) {
        "KILL" => Deadly::Kill,
        "ABRT" => Deadly::Abort,
        "SEGV" => Deadly::Segv,
        _ => return None,
    })
}

fn ask(rest: &str) -> Option<Step> {
    let (kind, title) = word(rest);
    let question = match kind {
        "confirm" => Question::Confirm,
        "select" => Question::Select,
        "input" => Question::Input,
        "editor" => Question::Editor,
        _ => return None,
    };
    let mut parts = title.split('|').map(|part| part.trim().to_owned());
    let title = parts.next().filter(|title| !title.is_empty())?;
    let mut options: Vec<String> = parts.filter(|option| !option.is_empty()).collect();
    if question == Question::Select && options.is_empty() {
        options = vec!["yes".to_owned(), "no".to_owned()];
    }
    Some(Step::Ask {
        question,
        title,
        options,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_word_is_understood() {
        let own = str::to_owned;
        for (line, expected) in [
            ("run ls -l  'a b'", Step::Run(own("ls -l  'a b'"))),
            ("stream seq 3", Step::Stream(own("seq 3"))),
            ("  say hello  ", Step::Say(own("hello"))),
            ("sleep 20", Step::Sleep(Duration::from_millis(20))),
            ("fail no credit", Step::Fail(own("no credit"))),
            (
                "retry 2 5",
                Step::Retry {
                    times: 2,
                    delay: Duration::from_millis(5),
                },
            ),
            (
                "compact",
                Step::Compact {
                    room: Room::Threshold,
                    punkin: false,
                },
            ),
            (
                "compact overflow punkin",
                Step::Compact {
                    room: Room::Overflow,
                    punkin: true,
                },
            ),
            ("hang", Step::Hang),
            ("crash", Step::Crash(1)),
            ("crash 42", Step::Crash(42)),
            ("kill SIGSEGV", Step::Kill(Deadly::Segv)),
            (
                "ask select Which one? | a b | c",
                Step::Ask {
                    question: Question::Select,
                    title: own("Which one?"),
                    options: vec![own("a b"), own("c")],
                },
            ),
            ("notify look", Step::Notify(own("look"))),
            ("noise {\"type\":", Step::Noise(own("{\"type\":"))),
            ("big 100", Step::Big(100)),
            ("env HOME", Step::Env(own("HOME"))),
            ("model", Step::Model),
            ("prompt", Step::SystemPrompt),
            ("count", Step::Count),
        ] {
            assert_eq!(step(line.trim()), expected, "{line}");
        }
    }

    #[test]
    fn what_is_no_line_of_ours_is_speech() {
        for line in [
            "hello there",
            "prompt the user for a name",
            "model this please",
            "sleep well",
            "sleep 99999999999",
            "retry everything",
            "kill it",
            "kill KILL it",
            "kill TERM",
            "ask me",
            "ask confirm",
            "big deal",
            "big 999999999999",
            "env A=B",
            "hang on",
            "crash 256",
            "run",
            "RUN ls",
        ] {
            assert_eq!(step(line), Step::Hear(line.to_owned()), "{line}");
        }
    }

    #[test]
    fn only_the_first_line_refuses() {
        assert_eq!(
            verdict("\n refuse no key"),
            Verdict::Refuse("no key".into())
        );
        assert_eq!(
            verdict("reject busy\nsay x"),
            Verdict::Reject("busy".into())
        );
        assert_eq!(verdict("say x\nrefuse no key"), Verdict::Take);
        assert_eq!(verdict("refuse"), Verdict::Take);
        assert_eq!(verdict(""), Verdict::Take);
    }

    proptest! {
        #[test]
        fn no_prompt_panics_and_each_line_is_a_step(text in "(run|ask|retry|big|kill|compact|env|[^\n]{0,3})( [^\n]{0,12})?(\n[^\n]{0,20}){0,4}") {
            let _ = verdict(&text);
            prop_assert_eq!(steps(&text).len(), text.lines().filter(|line| !line.trim().is_empty()).count());
        }
    }
}
