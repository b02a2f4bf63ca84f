//! Short commands: one behind the other, far away, and many at once.

use std::time::{Duration, Instant};

use futures::future::join_all;

use super::Context;
use crate::Outcome;
use crate::bare::Bare;
use crate::original::{Master, Route, run};
use crate::ours::{Client, Tools};
use crate::report::{Bar, Unit, ratio, series, table};
use crate::rounds::{self, Method, Run};

const NODE: &str = "node, `ssh` each";
const SSH: &str = "`ssh` each";
const MASTER: &str = "`ssh` over a master";
const API: &str = "ours, Rust API";
const FRESH: &str = "ours, Rust API, one connection so far";
const TOOL: &str = "ours, tool call";
const BARE: &str = "bare channel";
const SPARE: &str = "bare channel, opened before";
const PING: &str = "ping";

/// What it is measured with: does next to nothing, so that all else shows.
const COMMAND: &str = "true";
/// A client's commands at once.
const MANY: usize = 32;

/// One command behind the other, on this machine.
pub(crate) async fn near(context: &Context) -> Outcome<Vec<Bar>> {
    let edge = context.lab.places.near;
    let (ssh, master) = context.routes(edge).await?;
    let ours = Ours::open(context, edge).await?;
    let mut methods = vec![
        Method::new(SSH, || run(ssh.ssh(COMMAND))),
        Method::new(MASTER, || run(master.route.ssh(COMMAND))).times(3),
    ];
    methods.extend(ours.methods(10));
    if let Some(node) = &context.node {
        methods.push(Method::new(NODE, || async {
            match node.run(&ssh, COMMAND, 1).await? {
                (took, failed) if failed.is_empty() => Ok(took),
                (_, failed) => Err(failed.join("; ").into()),
            }
        }));
    }
    let results = rounds::run(context, "exec", context.rounds(40, 8), methods).await;
    table(
        "One command behind the other: `true`",
        Unit::Time,
        &results,
        &[SSH, MASTER, BARE],
    );
    Ok(vec![
        Bar::new(
            "`true` through a tool call ≤ 2 × a bare channel",
            ratio(&results, BARE, TOOL),
            |r| r <= 2.0,
        ),
        Bar::new(
            "`true` through a tool call ≥ 70 × faster than one `ssh` each",
            ratio(&results, TOOL, SSH),
            |r| r >= 70.0,
        ),
    ])
}

/// The same, 20 ms away.
pub(crate) async fn far(context: &Context) -> Outcome<Vec<Bar>> {
    let edge = context.lab.places.far;
    let (ssh, master) = context.routes(edge).await?;
    let ours = Ours::open(context, edge).await?;
    let mut methods = vec![Method::new(MASTER, || run(master.route.ssh(COMMAND)))];
    if !context.quick {
        methods.push(Method::new(SSH, || run(ssh.ssh(COMMAND))));
    }
    methods.extend(ours.methods(3));
    let results = rounds::run(context, "distance", context.rounds(30, 6), methods).await;
    table(
        "20 ms away: `true`",
        Unit::Time,
        &results,
        &[MASTER, SPARE, PING],
    );
    Ok(vec![Bar::new(
        "`true` through a tool call, 20 ms away, ≤ 1.2 × ping",
        ratio(&results, PING, TOOL),
        |r| r <= 1.2,
    )])
}

/// Many at once.
pub(crate) async fn many(context: &Context) -> Outcome<Vec<Bar>> {
    let edge = context.lab.places.near;
    let (ssh, master) = context.routes(edge).await?;
    let ours = Ours::open(context, edge).await?;
    let mut methods = vec![
        Method::new(SSH, || async { Ok(many_ssh(&ssh).await) }),
        Method::new(MASTER, || many_over(&master)),
        Method::new(API, || async { at_once(|| ours.client.run(COMMAND)).await }).times(3),
        Method::new(TOOL, || async { at_once(|| ours.tools.run(COMMAND)).await }).times(3),
        Method::new(FRESH, || async {
            let client = Client::connect(&context.lab.places, edge).await?;
            at_once(|| client.run(COMMAND)).await
        }),
    ];
    if let Some(node) = &context.node {
        methods.push(Method::new(NODE, || async {
            let (took, failed) = node.run(&ssh, COMMAND, MANY).await?;
            Ok(Run { took, failed })
        }));
    }
    let results = rounds::run(context, "many", context.rounds(8, 2), methods).await;
    table(
        "32 commands at once, sshd's default limits (a batch counts though some of it failed)",
        Unit::Time,
        &results,
        &[SSH, MASTER],
    );
    let refused = [API, TOOL, FRESH]
        .iter()
        .filter_map(|name| series(&results, name))
        .map(|series| series.failures as f64)
        .sum();
    Ok(vec![
        Bar::new("32 at once: none of ours refused", Some(refused), |r| {
            r == 0.0
        }),
        Bar::new(
            "32 at once through a tool call ≥ 50 × faster than one `ssh` each, which loses some",
            ratio(&results, TOOL, SSH),
            |r| r >= 50.0,
        ),
    ])
}

async fn many_ssh(ssh: &Route) -> Run {
    batch(|| run(ssh.ssh(COMMAND))).await
}

async fn many_over(master: &Master) -> Outcome<Run> {
    Ok(batch(|| run(master.route.ssh(COMMAND))).await)
}

async fn at_once<F: Future<Output = Outcome<Duration>>>(one: impl Fn() -> F) -> Outcome<Run> {
    Ok(batch(one).await)
}

async fn batch<F: Future<Output = Outcome<Duration>>>(one: impl Fn() -> F) -> Run {
    let begun = Instant::now();
    let all = join_all((0..MANY).map(|_| one())).await;
    Run {
        took: begun.elapsed(),
        failed: all
            .into_iter()
            .filter_map(|one| Some(one.err()?.to_string()))
            .collect(),
    }
}

/// What is measured of this project, and beside it.
struct Ours {
    client: Client,
    tools: Tools,
    bare: Bare,
}

impl Ours {
    async fn open(context: &Context, edge: std::net::SocketAddr) -> Outcome<Self> {
        let places = &context.lab.places;
        Ok(Self {
            client: Client::connect(places, edge).await?,
            tools: Tools::open(places, edge, &context.wasm, &context.here).await?,
            bare: Bare::connect(places, edge).await?,
        })
    }

    fn methods(&self, times: u32) -> Vec<Method<'_>> {
        let Self {
            client,
            tools,
            bare,
        } = self;
        vec![
            Method::new(API, || client.run(COMMAND)).times(times),
            Method::new(TOOL, || tools.run(COMMAND)).times(times),
            Method::new(BARE, || bare.run(COMMAND)).times(times),
            Method::new(SPARE, || bare.run_on_spare(COMMAND)).times(times),
            Method::new(PING, || bare.ping()).times(times),
        ]
    }
}
