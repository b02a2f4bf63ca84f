//! What models and people read of a swarm.

use serde_json::{Map, Value, json};

use crate::bound::{end, first, last, one_line, shares};
use crate::state::{Phase, Report, State};

/// Bytes of one agent's output in the result of a wait.
pub const EACH: usize = 16 * 1024;
/// Bytes of all agents' output in one result: what a model reads of a command's output, too.
pub const ALL: usize = 48 * 1024;
/// Silence that is worth a warning, in milliseconds.
const QUIET: u64 = 120_000;

/// An agent as it is shown.
#[derive(Debug, Clone)]
pub struct View {
    /// Its label.
    pub id: String,
    /// Its VM, once there is one.
    pub vm: Option<String>,
    /// How it is.
    pub state: State,
    /// What it has said so far of the run that is under way, and how many bytes that are in all; none if none is.
    pub live: Option<(String, u64)>,
    /// When it last gave a sign of life, in milliseconds since 1970.
    pub last_activity: Option<u64>,
}

impl View {
    /// What it said: now, or at last.
    #[must_use]
    pub fn output(&self) -> &str {
        match (&self.live, &self.state.report) {
            (Some((text, _)), _) => text,
            (None, Some(report)) => &report.text,
            (None, None) => "",
        }
    }

    /// Bytes of it in all.
    #[must_use]
    pub fn length(&self) -> u64 {
        match (&self.live, &self.state.report) {
            (Some((_, length)), _) => *length,
            (None, Some(report)) => report.length(),
            (None, None) => 0,
        }
    }

    /// `{id, vmId, status, …}`
    #[must_use]
    pub fn details(&self) -> Map<String, Value> {
        let mut details = Map::new();
        details.insert("id".into(), self.id.as_str().into());
        details.insert("vmId".into(), self.vm.as_deref().into());
        details.insert("status".into(), self.state.phase.word().into());
        if let Some(why) = self.state.phase.why() {
            details.insert("error".into(), why.into());
        }
        details
    }
}

/// All agents, a line each.
#[must_use]
pub fn summary(views: &[View]) -> String {
    if views.is_empty() {
        return "No agents in swarm.".into();
    }
    let mut text = format!("Swarm ({} agents):", views.len());
    for view in views {
        let vm = view.vm.as_deref().unwrap_or("no VM yet");
        text.push_str(&format!(
            "\n  {} [{}] ({vm})",
            view.id,
            view.state.phase.word()
        ));
        if let Some(task) = &view.state.task {
            text.push_str(&format!(" — {}", one_line(task, 60)));
        }
        if let Some(why) = view.state.phase.why() {
            text.push_str(&format!(" — {}", one_line(why, 120)));
        }
    }
    text
}

/// Details of `vers_swarm_status`.
#[must_use]
pub fn status(views: &[View]) -> Value {
    let agents: Vec<Value> = views
        .iter()
        .map(|view| {
            let mut details = view.details();
            details.insert("task".into(), view.state.task.as_deref().into());
            details.insert("outputLength".into(), view.length().into());
            details.insert("eventCount".into(), view.state.events.into());
            details.insert("lastActivityAt".into(), view.last_activity.into());
            Value::Object(details)
        })
        .collect();
    json!({ "agents": agents })
}

/// What a wait found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waited {
    /// For how long it waited, in milliseconds; none if there was nothing to wait for.
    pub millis: Option<u64>,
    /// Whether it ended because the caller waits no longer, and the next call goes on waiting.
    pub again: bool,
}

/// How an agent stands when a wait is over, or, if it is only interrupted, so far.
#[must_use]
pub fn standing(state: &State, again: bool) -> &'static str {
    match &state.phase {
        Phase::Done => "done",
        Phase::Failed(_) => "failed",
        Phase::Starting | Phase::Working if again => "working",
        Phase::Starting | Phase::Working => "timed out",
        Phase::Idle => "never tasked",
        Phase::Ended(_) => "ended",
        Phase::Lost { .. } => "lost",
    }
}

const STANDINGS: [&str; 7] = [
    "done",
    "failed",
    "working",
    "timed out",
    "never tasked",
    "ended",
    "lost",
];

/// How many agents stand how, by name unless they are done: `2 done, 1 failed (b)`.
fn tally(views: &[View], again: bool) -> String {
    let mut parts = Vec::new();
    for word in STANDINGS {
        let who: Vec<&str> = views
            .iter()
            .filter(|view| standing(&view.state, again) == word)
            .map(|view| view.id.as_str())
            .collect();
        match (who.len(), word) {
            (0, _) => {}
            (count, "done") => parts.push(format!("{count} done")),
            (count, word) => {
                let names = one_line(&who.join(", "), 400);
                parts.push(format!("{count} {word} ({names})"));
            }
        }
    }
    parts.join(", ")
}

/// The text and the details of a wait, and which agents' output was shown in it.
#[must_use]
pub fn waited(views: &[View], waited: Waited) -> (String, Value, Vec<bool>) {
    let pending = views.iter().any(|view| view.state.phase.is_pending());
    // What was waited for may have come at the last moment.
    let again = waited.again && pending;
    let timed_out = pending && !again;
    let tally = tally(views, again);
    let all_done = views.iter().all(|view| view.state.phase == Phase::Done);
    let mut text = String::new();
    if let Some(millis) = waited.millis {
        let seconds = millis / 1000;
        text = match (timed_out, all_done) {
            _ if again => format!(
                "STILL WORKING after {seconds}s: {tally}\nCall vers_swarm_wait again to go on waiting."
            ),
            (false, true) => format!("All agents finished in {seconds}s"),
            (false, false) => format!("Waited {seconds}s: {tally}"),
            (true, _) => format!("TIMED OUT after {seconds}s: {tally}"),
        };
        text.push_str("\n\n");
    }
    let sizes: Vec<usize> = views.iter().map(|view| view.output().len()).collect();
    let room = shares(&sizes, EACH, ALL);
    let mut agents = Vec::new();
    let mut shown = Vec::new();
    for (view, room) in views.iter().zip(room) {
        let output = end(view.output(), room);
        text.push_str(&section(view, output));
        let mut details = view.details();
        details.insert("outcome".into(), standing(&view.state, again).into());
        details.insert("output".into(), output.into());
        details.insert("outputLength".into(), view.length().into());
        agents.push(Value::Object(details));
        // Where there was no room at all, nobody has seen it.
        shown.push(!output.is_empty() || view.output().is_empty());
    }
    let details = match waited.millis {
        Some(millis) => {
            #[allow(clippy::cast_precision_loss, reason = "seconds for people")]
            let elapsed = millis as f64 / 1000.0;
            json!({ "elapsed": elapsed, "timedOut": timed_out, "again": again, "agents": agents })
        }
        None => json!({ "waited": 0, "agents": agents }),
    };
    (text.trim_end().to_owned(), details, shown)
}

fn section(view: &View, output: &str) -> String {
    let mut text = format!("=== {} [{}] ===\n", view.id, view.state.phase.word());
    if let Some(why) = view.state.phase.why() {
        text.push_str(&format!(
            "{}: {}\n",
            heading(&view.state.phase),
            first(why, 2_000, "…")
        ));
    }
    let missing = view.length().saturating_sub(output.len() as u64);
    if missing > 0 {
        text.push_str(&format!(
            "[{missing} earlier bytes are not shown: vers_swarm_read {} shows more]\n",
            view.id
        ));
    }
    let none = if view.state.phase == Phase::Idle {
        "(never given a task)"
    } else {
        "(no output)"
    };
    text.push_str(if output.is_empty() && missing == 0 {
        none
    } else {
        output
    });
    text.push_str("\n\n");
    text
}

fn heading(phase: &Phase) -> &'static str {
    match phase {
        Phase::Failed(_) => "Failed",
        Phase::Ended(_) => "The agent's process has ended",
        _ => "The agent cannot be reached",
    }
}

/// The text of `vers_swarm_read`, at most so many bytes of output: the last `tail` characters if that is given.
#[must_use]
pub fn read(view: &View, tail: Option<usize>, now: u64) -> String {
    let mut text = format!("[{}] ({}):\n", view.id, view.state.phase.word());
    let quiet = view
        .last_activity
        .map_or(0, |last| now.saturating_sub(last));
    if view.state.phase == Phase::Working && quiet >= QUIET {
        let minutes = quiet / 60_000;
        text.push_str(&format!(
            "⚠️ No activity for {minutes} minute(s) — may be stuck\n"
        ));
    }
    if let Some(why) = view.state.phase.why() {
        text.push_str(&format!("{}: {why}\n", heading(&view.state.phase)));
    }
    text.push('\n');
    if tail.is_none() {
        text.push_str(&earlier(&view.state));
    }
    let output = view.output();
    let shown = match tail {
        Some(tail) => last(output, tail),
        None => end(output, ALL),
    };
    let missing = view.length().saturating_sub(shown.len() as u64);
    match (tail, missing) {
        (_, 0) => {}
        (Some(_), _) => text.push_str("..."),
        (None, _) => text.push_str(&format!(
            "[{missing} earlier bytes are not shown: tail shows up to {} characters, and vers_swarm_teardown with collect saves all that was kept]\n",
            output.chars().count()
        )),
    }
    text.push_str(if output.is_empty() {
        "(no output yet)"
    } else {
        shown
    });
    text
}

/// What nobody has read of earlier tasks.
fn earlier(state: &State) -> String {
    let mut text = String::new();
    if state.forgotten > 0 {
        text.push_str(&format!(
            "[What it said to {} earlier task(s) was not read in time and is gone]\n\n",
            state.forgotten
        ));
    }
    let sizes: Vec<usize> = state
        .earlier
        .iter()
        .map(|report| report.text.len())
        .collect();
    for (report, room) in state.earlier.iter().zip(shares(&sizes, EACH, ALL)) {
        text.push_str(&format!(
            "=== earlier task [{}]: {} ===\n{}\n\n",
            outcome(report),
            one_line(&report.task, 100),
            end(&report.text, room)
        ));
    }
    if !text.is_empty() {
        text.push_str("=== latest ===\n");
    }
    text
}

/// The word for how a run ended.
#[must_use]
pub fn outcome(report: &Report) -> &'static str {
    use pi_vers_sdk::agent::Outcome;
    match report.outcome {
        Outcome::Done => "done",
        Outcome::Failed(_) => "error",
        Outcome::Aborted => "stopped",
    }
}

/// How an agent looks in the widget.
#[must_use]
pub fn icon(phase: &Phase) -> &'static str {
    match phase {
        Phase::Working => "⟳",
        Phase::Done => "✓",
        Phase::Failed(_) | Phase::Ended(_) | Phase::Lost { .. } => "✗",
        Phase::Starting | Phase::Idle => "○",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use pi_vers_sdk::agent::{Bookmark, Outcome, Run};

    fn view(id: &str, outcome: Option<(Outcome, &str)>) -> View {
        let mut state = State::default();
        state.reached();
        if let Some((outcome, text)) = outcome {
            state.give("look\nat it").unwrap();
            state.ended(Run {
                outcome,
                text: text.into(),
                left_out: 0,
                bookmark: Bookmark::default(),
            });
        }
        View {
            id: id.into(),
            vm: Some(format!("vm-{id}")),
            state,
            live: None,
            last_activity: Some(0),
        }
    }

    fn done(id: &str, text: &str) -> View {
        view(id, Some((Outcome::Done, text)))
    }

    const AFTER: Waited = Waited {
        millis: Some(12_345),
        again: false,
    };

    #[test]
    fn the_summary_has_whole_ids() {
        assert_eq!(summary(&[]), "No agents in swarm.");
        assert_eq!(
            summary(&[view("a", None), done("b", "")]),
            "Swarm (2 agents):\n  a [idle] (vm-a)\n  b [done] (vm-b) — look at it"
        );
    }

    #[test]
    fn a_wait_where_all_is_well_reads_as_it_always_did() {
        let (text, details, shown) = waited(&[done("a", "yes"), done("b", "")], AFTER);
        assert_eq!(
            text,
            "All agents finished in 12s\n\n=== a [done] ===\nyes\n\n=== b [done] ===\n(no output)"
        );
        assert_eq!(details["timedOut"], false);
        assert_eq!(details["elapsed"], 12.345);
        assert_eq!(details["agents"][0]["output"], "yes");
        assert_eq!(shown, [true, true]);
    }

    #[test]
    fn agents_that_were_never_tasked_or_failed_are_not_said_to_have_finished() {
        let mut working = view("d", None);
        working.state.give("x").unwrap();
        working.live = Some(("so far".into(), 6));
        let mut lost = view("e", None);
        lost.state.lost("no route to host", false);
        let failed = view("b", Some((Outcome::Failed("no credit".into()), "")));
        let all = [done("a", "yes"), failed, view("c", None), working, lost];
        let (text, details, _) = waited(&all, AFTER);
        assert!(
            text.starts_with("TIMED OUT after 12s: 1 done, 1 failed (b), 1 timed out (d), 1 never tasked (c), 1 lost (e)\n\n=== a [done] ==="),
            "{text}"
        );
        assert!(
            text.contains("=== b [error] ===\nFailed: no credit\n(no output)"),
            "{text}"
        );
        assert!(
            text.contains("=== c [idle] ===\n(never given a task)"),
            "{text}"
        );
        assert!(text.contains("=== d [working] ===\nso far"), "{text}");
        assert!(
            text.contains("=== e [lost] ===\nThe agent cannot be reached: no route to host"),
            "{text}"
        );
        assert_eq!(details["agents"][2]["outcome"], "never tasked");
        let (text, ..) = waited(&all[..3], AFTER);
        assert!(
            text.starts_with("Waited 12s: 1 done, 1 failed (b), 1 never tasked (c)"),
            "{text}"
        );
        let nothing = Waited {
            millis: None,
            again: false,
        };
        let (text, details, _) = waited(&all[2..3], nothing);
        assert_eq!(text, "=== c [idle] ===\n(never given a task)");
        assert_eq!(details["waited"], 0);
    }

    #[test]
    fn a_wait_that_its_caller_cut_short_says_how_to_go_on() {
        let mut working = view("d", None);
        working.state.give("x").unwrap();
        working.live = Some(("so far".into(), 6));
        let cut = Waited {
            again: true,
            ..AFTER
        };
        let (text, details, _) = waited(&[done("a", "yes"), working], cut);
        assert!(
            text.starts_with("STILL WORKING after 12s: 1 done, 1 working (d)\nCall vers_swarm_wait again to go on waiting.\n\n=== a"),
            "{text}"
        );
        assert!(text.contains("=== d [working] ===\nso far"), "{text}");
        assert_eq!(details["again"], true);
        assert_eq!(details["timedOut"], false);
        assert_eq!(details["agents"][1]["outcome"], "working");
        let (text, details, _) = waited(&[done("a", "yes")], cut);
        assert!(text.starts_with("All agents finished in 12s"), "{text}");
        assert_eq!(details["again"], false);
    }

    #[test]
    fn a_wait_bounds_what_it_returns_and_says_where_the_rest_is() {
        let long = "x".repeat(200_000);
        let all: Vec<View> = (0..40).map(|n| done(&n.to_string(), &long)).collect();
        let (text, _, shown) = waited(&all, AFTER);
        assert!(text.len() < ALL + 40 * 200, "{}", text.len());
        assert!(text.contains("earlier bytes are not shown: vers_swarm_read 7 shows more]"));
        assert!(shown.iter().all(|shown| *shown));
        let (text, ..) = waited(&all[..1], AFTER);
        assert!(text.len() < EACH + 200);
    }

    #[test]
    fn reading_warns_of_silence_and_never_calls_it_an_end() {
        let mut working = view("a", None);
        working.state.give("x").unwrap();
        working.live = Some((String::new(), 0));
        assert_eq!(
            read(&working, None, 119_999),
            "[a] (working):\n\n(no output yet)"
        );
        assert_eq!(
            read(&working, None, 190_000),
            "[a] (working):\n⚠️ No activity for 3 minute(s) — may be stuck\n\n(no output yet)"
        );
        assert_eq!(working.state.phase, Phase::Working);
        assert_eq!(read(&done("b", "yes"), None, 190_000), "[b] (done):\n\nyes");
    }

    #[test]
    fn a_tail_is_marked_as_one() {
        assert_eq!(
            read(&done("b", "grüße"), Some(3), 0),
            "[b] (done):\n\n...üße"
        );
        assert_eq!(
            read(&done("b", "grüße"), Some(5), 0),
            "[b] (done):\n\ngrüße"
        );
        let text = read(&done("b", &"x".repeat(100_000)), None, 0);
        assert!(
            text.contains("50848 earlier bytes are not shown: tail shows up to 100000 characters"),
            "{}",
            &text[..200]
        );
    }

    #[test]
    fn what_nobody_read_of_earlier_tasks_comes_first() {
        let mut both = done("b", "first answer");
        both.state.give("second").unwrap();
        both.state.ended(Run {
            outcome: Outcome::Done,
            text: "second answer".into(),
            left_out: 0,
            bookmark: Bookmark::default(),
        });
        assert_eq!(
            read(&both, None, 0),
            "[b] (done):\n\n=== earlier task [done]: look at it ===\nfirst answer\n\n=== latest ===\nsecond answer"
        );
    }
}
