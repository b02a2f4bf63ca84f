//! Endings: back after a cut connection, and a command that is stopped.
//!
//! The VM is this machine, so its processes are watched themselves: a command is gone when the kernel says that each
//! process of it is.

use std::time::{Duration, Instant};

use serde_json::json;

use super::Context;
use crate::Outcome;
use crate::bare::Bare;
use crate::cpu::{children, ended};
use crate::original::{Route, run};
use crate::ours::{Client, Tools};
use crate::report::{Bar, Unit, series, table};
use crate::rounds::{self, Method};

const BACK: &str = "ours, from the cut to a command's end";
const NEW: &str = "ours, new client and a command";
const HANDSHAKE: &str = "bare handshake";
const SSH: &str = "`ssh`, new connection and a command";

/// Nothing here takes so long.
const DEADLINE: Duration = Duration::from_secs(30);

/// The connection is reset; when does the next command answer?
pub(crate) async fn cut(context: &Context) -> Outcome<Vec<Bar>> {
    let (lab, edge) = (&context.lab, context.lab.places.fragile);
    let client = &Client::connect(&lab.places, edge).await?;
    let ssh = Route::new(&lab.places, edge);
    let methods = vec![
        Method::new(BACK, || async {
            // It has to have a connection that can be cut.
            client.run("true").await?;
            let begun = Instant::now();
            lab.cut().await?;
            // What was asked of a dying connection fails, and is asked again at once.
            while client.run("true").await.is_err() {
                if begun.elapsed() > DEADLINE {
                    return Err("it does not come back".into());
                }
            }
            Ok(begun.elapsed())
        }),
        Method::new(NEW, || async {
            let begun = Instant::now();
            let client = Client::connect(&lab.places, edge).await?;
            client.run("true").await?;
            Ok(begun.elapsed())
        }),
        Method::new(HANDSHAKE, || async {
            let begun = Instant::now();
            Bare::connect(&lab.places, edge).await?;
            Ok(begun.elapsed())
        }),
        Method::new(SSH, || run(ssh.ssh("true"))),
    ];
    let results = rounds::run(context, "cut", context.rounds(30, 5), methods).await;
    table(
        "Back after a cut connection",
        Unit::Time,
        &results,
        &[HANDSHAKE],
    );
    let longer = series(&results, BACK)
        .zip(series(&results, HANDSHAKE))
        .and_then(|(back, handshake)| back.longer_than(handshake));
    Ok(vec![Bar::new(
        "back after a cut ≤ 100 ms over the handshake's own time (ms)",
        longer.map(|seconds| seconds * 1e3),
        |ms| ms <= 100.0,
    )])
}

/// A command of three processes is stopped; when is the last of them gone?
const SCRIPT: &str = "sleep 1000 & sleep 1000 & echo pid $$; wait";
/// One that does not want to.
const STUBBORN: &str =
    "trap '' TERM; sleep 1000 & sleep 1000 & echo pid $$; wait; wait; sleep 1000";

const STOP: &str = "ours, `stop`";
const DROP: &str = "ours, dropped";
const TOOL: &str = "ours, tool call cancelled";
const KILL: &str = "ours, `stop` of what ignores TERM (500 ms of grace)";
const LOST: &str = "ours, connection cut";

/// See [`SCRIPT`].
pub(crate) async fn cancel(context: &Context) -> Outcome<Vec<Bar>> {
    let places = &context.lab.places;
    let client = &Client::connect(places, places.near).await?;
    let fragile = &Client::connect(places, places.fragile).await?;
    let tools = &Tools::open(places, places.near, &context.wasm, &context.here).await?;
    let methods = vec![
        Method::new(STOP, || async {
            let (child, group) = spawn(client, SCRIPT).await?;
            let begun = Instant::now();
            let (took, report) =
                tokio::join!(gone(&group, begun), child.stop(child.default_grace()));
            report?;
            took
        })
        .times(3),
        Method::new(DROP, || async {
            let (child, group) = spawn(client, SCRIPT).await?;
            let begun = Instant::now();
            drop(child);
            gone(&group, begun).await
        })
        .times(3),
        Method::new(TOOL, || async {
            let mut call = tools.session.call("bash", json!({ "command": SCRIPT }));
            let mut updates = call.updates();
            let group = loop {
                let text = format!("{:?}", updates.borrow_and_update().content);
                if let Some(group) = group_in(&text) {
                    break group;
                }
                updates.changed().await?;
            };
            let begun = Instant::now();
            call.canceller().cancel();
            let (took, outcome) = tokio::join!(gone(&group, begun), call.outcome());
            match outcome {
                Ok(_) => Err("a cancelled call succeeded".into()),
                Err(_) => took,
            }
        })
        .times(3),
        Method::new(KILL, || async {
            let (child, group) = spawn(client, STUBBORN).await?;
            let begun = Instant::now();
            let (took, report) =
                tokio::join!(gone(&group, begun), child.stop(child.default_grace()));
            report?;
            took
        }),
        Method::new(LOST, || async {
            let (child, group) = spawn(fragile, SCRIPT).await?;
            let begun = Instant::now();
            context.lab.cut().await?;
            let took = gone(&group, begun).await;
            drop(child);
            took
        }),
    ];
    let results = rounds::run(context, "cancel", context.rounds(40, 5), methods).await;
    table(
        "From cancelling to the last process' end",
        Unit::Time,
        &results,
        &[],
    );
    let worst = [STOP, DROP, TOOL, KILL, LOST]
        .iter()
        .filter_map(|name| series(&results, name)?.quantile(0.99))
        .reduce(f64::max);
    Ok(vec![Bar::new(
        "cancel until the remote group is gone, worst method: p99 ≤ 1 s",
        worst,
        |seconds| seconds <= 1.0,
    )])
}

async fn spawn(client: &Client, script: &str) -> Outcome<(vers_client::Child, Vec<u32>)> {
    let command = vers_client::Command::shell(script);
    let mut child = client.ssh.spawn(client.vm, command).await?;
    let mut output = child.take_stdout().ok_or("no output")?;
    let mut text = String::new();
    loop {
        let data = output.next().await.ok_or("it ended at once")?;
        text.push_str(&String::from_utf8_lossy(&data));
        if let Some(group) = group_in(&format!("{text:?}")) {
            return Ok((child, group));
        }
    }
}

/// The processes of a group whose leader has said `pid` and its number, and an end of line (as `Debug` shows it).
fn group_in(text: &str) -> Option<Vec<u32>> {
    let (_, rest) = text.split_once("pid ")?;
    let (leader, _) = rest.split_once("\\n").or(rest.split_once('"'))?;
    let leader: u32 = leader.parse().ok()?;
    let mut group = children(leader);
    group.push(leader);
    Some(group)
}

async fn gone(group: &[u32], begun: Instant) -> Outcome<Duration> {
    if group.len() != 3 {
        return Err(format!("a group of {} processes instead of 3", group.len()).into());
    }
    if !ended(group.to_owned(), DEADLINE).await {
        return Err("processes were left over".into());
    }
    Ok(begun.elapsed())
}
