//! What `build-watch` must do, whatever it is written in. `extensions/samples/README.md` has the same in words.

use std::pin::Pin;
use std::time::Duration;

use serde_json::{Value, json};

use crate::Outcome;
use crate::lab::{Lab, Subject, build, eventually, mark, marked};
use crate::peer::{Peer, field, text};

/// How long a call is waited for that may never come, where calls run one after another.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of output that a result shows at most, with room for its first line.
const SHOWN: usize = 17 << 10;

type Run = for<'a> fn(&'a Lab, &'a Subject) -> Pin<Box<dyn Future<Output = Outcome> + 'a>>;

/// One case.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) run: Run,
}

macro_rules! cases {
    ($($name:literal => $run:ident),* $(,)?) => {
        /// All of them, in their order.
        pub(crate) const CASES: &[Case] = &[
            $(Case { name: $name, run: |lab, subject| Box::pin($run(lab, subject)) }),*
        ];
    };
}

cases! {
    "describe" => describe,
    "run" => run,
    "streaming" => streaming,
    "arguments" => arguments,
    "exit-code" => exit_code,
    "cancel" => cancel,
    "concurrent" => concurrent,
    "state-race" => state_race,
    "restart" => restart,
    "command" => command,
    "huge-output" => huge_output,
    "bytes" => bytes,
    "denied" => denied,
    "unknown-tool" => unknown_tool,
    "unknown-vm" => unknown_vm,
    "many" => many,
}

pub(crate) fn is_known(name: &str) -> bool {
    CASES.iter().any(|case| case.name == name)
}

/// Fails with what was there instead.
fn expect(holds: bool, what: &str, got: &dyn std::fmt::Debug) -> Outcome {
    match holds {
        true => Ok(()),
        false => {
            let got: String = format!("{got:?}").chars().take(600).collect();
            Err(format!("not {what}: {got}"))
        }
    }
}

/// A session that remembers no build.
async fn fresh(lab: &Lab, subject: &Subject) -> Outcome<Peer> {
    let mut peer = Peer::open(lab, subject).await?;
    peer.command("builds", "reset").await?;
    Ok(peer)
}

/// What it offers, the same in every language.
async fn describe(lab: &Lab, subject: &Subject) -> Outcome {
    let peer = Peer::open(lab, subject).await?;
    let own = |list: &str| -> Vec<Value> {
        let all = peer.ready.get(list).and_then(Value::as_array);
        let own = all
            .into_iter()
            .flatten()
            .filter(|one| field(one, "extension") == "build-watch");
        own.cloned().collect()
    };
    let expected: Value = serde_json::from_str(include_str!("../offers.json"))
        .map_err(|why| format!("offers.json: {why}"))?;
    for list in ["tools", "commands"] {
        let wanted = expected.get(list).and_then(Value::as_array);
        for (here, wanted) in own(list).iter().zip(wanted.into_iter().flatten()) {
            if here != wanted {
                return Err(format!("not {wanted}\nbut {here}"));
            }
        }
        expect(
            wanted.map(Vec::len) == Some(own(list).len()),
            &format!("all {list}"),
            &own(list).len(),
        )?;
    }
    peer.end().await
}

/// A build that succeeds, with its status line while it runs and afterwards.
async fn run(lab: &Lab, subject: &Subject) -> Outcome {
    let mut peer = fresh(lab, subject).await?;
    let command = ["sh", "-c", "echo made"];
    let result = peer.call("build_run", build(&lab.vm, &command)).await?;
    let said = text(&result);
    expect(said == "exit 0, 5 bytes\nmade\n", "its output", &said)?;
    expect(
        result.get("details") == Some(&json!({ "code": 0, "bytes": 5 })),
        "its details",
        &result,
    )?;
    let shows = |wanted: &'static str| {
        move |params: &Value| {
            let spans = params.get("line").and_then(Value::as_array);
            let words: String = spans
                .into_iter()
                .flatten()
                .map(|span| field(span, "text"))
                .collect();
            field(params, "key").ends_with("/build") && words == wanted
        }
    };
    peer.notice("ui.status", shows("building: sh -c echo made"))
        .await?;
    peer.notice("ui.status", shows("builds: 1 ok, 0 failed"))
        .await?;
    let status = peer.text("build_status", json!({})).await?;
    expect(
        status == "1 ok, 0 failed; last: sh -c echo made: exit 0",
        "the status",
        &status,
    )?;
    peer.end().await
}

/// Output is shown while the command still runs.
async fn streaming(lab: &Lab, subject: &Subject) -> Outcome {
    let mut peer = fresh(lab, subject).await?;
    let file = format!("/tmp/{}", mark());
    let script = format!(
        "echo one; while ! [ -e {file} ]; do sleep 0.05; done; echo two; while ! [ -e {file}.2 ]; do sleep 0.05; done; echo three"
    );
    let id = peer
        .begin("build_run", build(&lab.vm, &["sh", "-c", &script]))
        .await?;
    let first = peer.update(id, |text| text.contains("one")).await?;
    expect(first == "one\n", "the first line alone", &first)?;
    peer.bash(&lab.vm, &format!("touch {file}")).await?;
    let second = peer.update(id, |text| text.contains("two")).await?;
    expect(second == "one\ntwo\n", "both lines", &second)?;
    peer.bash(&lab.vm, &format!("touch {file}.2")).await?;
    let answer = peer.answer(id).await?;
    let said = text(answer.get("value").unwrap_or(&Value::Null));
    expect(
        said == "exit 0, 14 bytes\none\ntwo\nthree\n",
        "all lines",
        &answer,
    )?;
    peer.end().await
}

/// Arguments that do not fit never reach the extension, and each is named.
async fn arguments(lab: &Lab, subject: &Subject) -> Outcome {
    let mut peer = fresh(lab, subject).await?;
    for (wrong, named) in [
        (json!({ "vm": lab.vm, "command": [] }), "/command"),
        (json!({ "vm": 5, "command": ["true"] }), "/vm"),
        (json!({ "vm": lab.vm }), "command"),
        (
            json!({ "vm": lab.vm, "command": ["true"], "colour": 1 }),
            "colour",
        ),
    ] {
        let (code, message) = peer.refused("build_run", wrong.clone()).await?;
        expect(
            code == "invalid" && message.contains(named),
            &format!("refused for {named}"),
            &(wrong, code, message),
        )?;
    }
    let status = peer.text("build_status", json!({})).await?;
    expect(
        status == "0 ok, 0 failed",
        "what it is without a build",
        &status,
    )?;
    peer.end().await
}

/// A build that fails is a failed result, with its output.
async fn exit_code(lab: &Lab, subject: &Subject) -> Outcome {
    let mut peer = fresh(lab, subject).await?;
    let script = ["sh", "-c", "echo broken >&2; exit 3"];
    let result = peer.call("build_run", build(&lab.vm, &script)).await?;
    expect(
        result.get("isError") == Some(&Value::Bool(true)),
        "a failure",
        &result,
    )?;
    let said = text(&result);
    expect(said == "exit 3, 7 bytes\nbroken\n", "its output", &said)?;
    let script = ["sh", "-c", "kill -9 $$"];
    let result = peer.call("build_run", build(&lab.vm, &script)).await?;
    let said = text(&result);
    expect(said == "signal KILL, 0 bytes\n", "the signal", &said)?;
    let status = peer.text("build_status", json!({})).await?;
    expect(
        status == "0 ok, 2 failed; last: sh -c kill -9 $$: signal KILL",
        "the status",
        &status,
    )?;
    peer.end().await
}

/// Cancelled means stopped, on the VM as well; and the next call works.
async fn cancel(lab: &Lab, subject: &Subject) -> Outcome {
    let mut peer = fresh(lab, subject).await?;
    let mark = mark();
    let script = format!("echo begun; sleep 600; : {mark}");
    let id = peer
        .begin("build_run", build(&lab.vm, &["sh", "-c", &script]))
        .await?;
    peer.update(id, |text| text.contains("begun")).await?;
    expect(marked(&mark) > 0, "running", &mark)?;
    peer.cancel(id).await?;
    let answer = peer.answer(id).await?;
    expect(field(&answer, "code") == "cancelled", "cancelled", &answer)?;
    eventually("the command is gone from the VM", || marked(&mark) == 0).await?;
    let said = peer
        .text("build_run", build(&lab.vm, &["echo", "next"]))
        .await?;
    expect(said == "exit 0, 5 bytes\nnext\n", "the next call", &said)?;
    let status = peer.text("build_status", json!({})).await?;
    expect(
        status.starts_with("1 ok, 0 failed"),
        "without the cancelled one",
        &status,
    )?;
    peer.end().await
}

/// Calls run side by side: one that waits does not hold up another.
async fn concurrent(lab: &Lab, subject: &Subject) -> Outcome {
    let mut peer = fresh(lab, subject).await?;
    let file = format!("/tmp/{}", mark());
    let script = format!("echo begun; while ! [ -e {file} ]; do sleep 0.05; done; echo seen");
    let first = peer
        .begin("build_run", build(&lab.vm, &["sh", "-c", &script]))
        .await?;
    peer.update(first, |text| text.contains("begun")).await?;
    let second = peer
        .begin("build_run", build(&lab.vm, &["touch", &file]))
        .await?;
    let Ok(answer) = tokio::time::timeout(PATIENCE, peer.answer(second)).await else {
        peer.cancel(first).await?;
        peer.answer(first).await?;
        // One after another, then.
        peer.answer(second).await?;
        peer.end().await?;
        return Err("the second call waited for the first".into());
    };
    answer?;
    let answer = peer.answer(first).await?;
    let said = text(answer.get("value").unwrap_or(&Value::Null));
    expect(said.ends_with("begun\nseen\n"), "the first's end", &answer)?;
    peer.end().await
}

/// Ten builds at once are counted as ten.
async fn state_race(lab: &Lab, subject: &Subject) -> Outcome {
    let mut peer = fresh(lab, subject).await?;
    let mut calls = Vec::new();
    for _ in 0..10 {
        calls.push(peer.begin("build_run", build(&lab.vm, &["true"])).await?);
    }
    for call in calls {
        let answer = peer.answer(call).await?;
        expect(field(&answer, "t") == "result", "a result", &answer)?;
    }
    let status = peer.text("build_status", json!({})).await?;
    expect(
        status == "10 ok, 0 failed; last: true: exit 0",
        "ten",
        &status,
    )?;
    peer.end().await
}

/// What it remembers outlives the process.
async fn restart(lab: &Lab, subject: &Subject) -> Outcome {
    let mut peer = fresh(lab, subject).await?;
    peer.text(
        "build_run",
        build(&lab.vm, &["echo", "gr\u{fc}\u{df}", "a\"b"]),
    )
    .await?;
    peer.call("build_run", build(&lab.vm, &["false"])).await?;
    peer.text(
        "build_run",
        build(&lab.vm, &["echo", "gr\u{fc}\u{df}", "a\"b"]),
    )
    .await?;
    peer.end().await?;
    let mut peer = Peer::open(lab, subject).await?;
    let status = peer.text("build_status", json!({})).await?;
    expect(
        status == "2 ok, 1 failed; last: echo gr\u{fc}\u{df} a\"b: exit 0",
        "what it was before",
        &status,
    )?;
    peer.end().await
}

/// The command tells the user, forgets what it is told to forget, and refuses what it does not know.
async fn command(lab: &Lab, subject: &Subject) -> Outcome {
    let mut peer = fresh(lab, subject).await?;
    peer.text("build_run", build(&lab.vm, &["true"])).await?;
    peer.command("builds", "").await?;
    let told = "1 ok, 0 failed; last: true: exit 0";
    peer.notice("ui.notify", |params| field(params, "message") == told)
        .await?;
    peer.command("builds", "reset").await?;
    let status = peer.text("build_status", json!({})).await?;
    expect(status == "0 ok, 0 failed", "forgotten", &status)?;
    let fields = json!({ "name": "builds", "arguments": "sideways" });
    let id = peer.ask("command", fields).await?;
    let answer = peer.answer(id).await?;
    expect(field(&answer, "code") == "invalid", "refused", &answer)?;
    peer.end().await
}

/// Output without end costs no memory, and its end is shown.
async fn huge_output(lab: &Lab, subject: &Subject) -> Outcome {
    let mut peer = fresh(lab, subject).await?;
    let script = "head -c 50000000 /dev/zero | tr '\\0' x; echo; echo end";
    let said = peer
        .text("build_run", build(&lab.vm, &["sh", "-c", script]))
        .await?;
    expect(
        said.starts_with("exit 0, 50000005 bytes\n"),
        "counted",
        &said.get(..100),
    )?;
    expect(
        said.ends_with("x\nend\n"),
        "its end",
        &said.get(said.len().saturating_sub(50)..),
    )?;
    expect(said.len() <= SHOWN, "bounded", &said.len())?;
    peer.end().await
}

/// Characters across chunk borders stay whole, and bytes that are no text are replaced.
async fn bytes(lab: &Lab, subject: &Subject) -> Outcome {
    let mut peer = fresh(lab, subject).await?;
    let file = format!("/tmp/{}", mark());
    // Half of a character, and the other half when it was seen that something had come.
    let script = format!(
        "printf 'a gr\\303'; while ! [ -e {file} ]; do sleep 0.05; done; printf '\\274\\303\\237 \\377\\360\\237\\246\\200\\n'"
    );
    let id = peer
        .begin("build_run", build(&lab.vm, &["sh", "-c", &script]))
        .await?;
    peer.update(id, |text| text.contains("a gr")).await?;
    peer.bash(&lab.vm, &format!("touch {file}")).await?;
    let answer = peer.answer(id).await?;
    let said = text(answer.get("value").unwrap_or(&Value::Null));
    expect(
        said == "exit 0, 15 bytes\na gr\u{fc}\u{df} \u{fffd}\u{1f980}\n",
        "whole characters",
        &answer,
    )?;
    peer.end().await
}

/// Without a grant nothing happens, and the line that is missing is named.
async fn denied(lab: &Lab, subject: &Subject) -> Outcome {
    let mut peer = Peer::open_under(lab, subject, &subject.bare).await?;
    let mark = mark();
    let (code, message) = peer
        .refused("build_run", build(&lab.vm, &["echo", &mark]))
        .await?;
    expect(
        code == "denied"
            && message.contains("shell")
            && message.contains("[extension.build-watch]"),
        "denied with the line that is missing",
        &(code, message),
    )?;
    peer.end().await
}

/// A tool that is not there.
async fn unknown_tool(lab: &Lab, subject: &Subject) -> Outcome {
    let mut peer = Peer::open(lab, subject).await?;
    let (code, message) = peer.refused("build_nothing", json!({})).await?;
    expect(
        code == "not-found" && message.contains("build_nothing"),
        "not found",
        &(code, message),
    )?;
    peer.end().await
}

/// The platform's refusal is handed on as it is.
async fn unknown_vm(lab: &Lab, subject: &Subject) -> Outcome {
    let mut peer = fresh(lab, subject).await?;
    let nowhere = "00000000-0000-4000-8000-000000000001";
    let (code, message) = peer.refused("build_run", build(nowhere, &["true"])).await?;
    expect(
        code == "not-found" && message.contains(nowhere),
        "not found",
        &(code, message),
    )?;
    let status = peer.text("build_status", json!({})).await?;
    expect(status == "0 ok, 0 failed", "not counted", &status)?;
    peer.end().await
}

/// Call after call leaves nothing behind that would run out.
async fn many(lab: &Lab, subject: &Subject) -> Outcome {
    let mut peer = fresh(lab, subject).await?;
    for _ in 0..60 {
        peer.text("build_run", build(&lab.vm, &["true"])).await?;
    }
    for _ in 0..1000 {
        peer.text("build_status", json!({})).await?;
    }
    let status = peer.text("build_status", json!({})).await?;
    expect(status.starts_with("60 ok, 0 failed"), "sixty", &status)?;
    peer.end().await
}
