//! The vertical line, measured: `cargo bench -p pi-vers-host --bench vertical`. Prints the table of `docs/benchmarks.md`.
//!
//! Figures are printed, never judged: what passes or fails is the tests' business. Needs what the local platform's
//! first tier needs (root).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pi_vers_host::platform::{Environment, Overrides, Secret, Settings};
use pi_vers_host::policy::{Digest, Policy};
use pi_vers_host::{Headless, Host, Session};
use serde_json::json;
use vers_local::{End, Options, Platform};

fn main() {
    // The platform's sandboxes start from this very program.
    vers_local::helper_main();
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(run());
}

async fn run() {
    let scratch = tempfile::tempdir().unwrap();
    let (vers_vm, unruly) = (guest("vers-vm", "vers_vm"), guest("unruly", "unruly"));

    println!("| what | min | median | p99 | n |\n|---|---|---|---|---|");
    start(scratch.path(), &vers_vm).await;
    empty_call(scratch.path(), &unruly).await;

    let platform = Platform::start(Options::new(
        scratch.path().join("platform"),
        std::env::current_exe().unwrap(),
    ))
    .await
    .unwrap();
    let session = on(&platform, scratch.path(), &vers_vm).await;
    vms(&session, &platform).await;
    session.end().await;
    platform.shutdown(End::DestroyAll).await.unwrap();
}

/// Host start to the first list of tools, with nothing cached and with everything cached.
async fn start(scratch: &Path, wasm: &[u8]) {
    let mut cold = Vec::new();
    for round in 0..5 {
        let cache = scratch.join(format!("cold-{round}"));
        cold.push(timed(first_list(&cache, wasm)).await);
    }
    row("start to first tool list, nothing cached", cold);
    let cache = scratch.join("cold-0");
    let mut warm = Vec::new();
    for _ in 0..50 {
        warm.push(timed(first_list(&cache, wasm)).await);
    }
    row("start to first tool list, cached", warm);
}

async fn first_list(cache: &Path, wasm: &[u8]) {
    let host = Host::builder()
        .cache(cache)
        .platform(nowhere())
        .build()
        .unwrap();
    let extension = host.load("vers-vm", wasm.to_vec()).await.unwrap();
    let session = host
        .session(Arc::new(Headless::new(".")), vec![extension])
        .unwrap();
    assert!(session.tools().len() >= 9);
}

/// A tool that does nothing, on a warm instance.
async fn empty_call(scratch: &Path, wasm: &[u8]) {
    let host = Host::builder()
        .cache(scratch.join("cache"))
        .platform(nowhere())
        .build()
        .unwrap();
    let extension = host.load("unruly", wasm.to_vec()).await.unwrap();
    let session = host
        .session(Arc::new(Headless::new(".")), vec![extension])
        .unwrap();
    let mut times = Vec::new();
    for _ in 0..20_000 {
        times.push(
            timed(async { session.call("nothing", json!({})).outcome().await.unwrap() }).await,
        );
    }
    row(
        "empty tool call, warm, through the Rust API, from another thread",
        times.split_off(1000),
    );
    // As a front end that serves its own connections calls: from a task, which no thread has to be woken for.
    let from_a_task = tokio::spawn({
        let session = session.clone();
        async move {
            let mut times = Vec::new();
            for _ in 0..20_000 {
                let call = async { session.call("nothing", json!({})).outcome().await.unwrap() };
                times.push(timed(call).await);
            }
            times.split_off(1000)
        }
    });
    row(
        "empty tool call, warm, through the Rust API, from a task",
        from_a_task.await.unwrap(),
    );
    let memory = session.memory();
    println!(
        "| memory of the instance of unruly after 20,000 calls | {} KiB | | | |",
        memory.values().sum::<u64>() >> 10
    );
    session.end().await;
}

async fn on(platform: &Platform, scratch: &Path, wasm: &[u8]) -> Session {
    let endpoint = platform.endpoint();
    let overrides = Overrides {
        base_url: Some(endpoint.api_url.clone()),
        api_key: Some(Secret::new(endpoint.api_key.clone())),
        vm_domain: Some(endpoint.domain.clone()),
        vm_connect: Some(endpoint.ssh_addr),
        tls_ca: Some(endpoint.ca_pem.clone()),
        ..Overrides::default()
    };
    let settings = Settings::discover(Environment::of::<&str, &str>([]), overrides).unwrap();
    let rules = "vms = [\"list\", \"get\", \"resolve\", \"create\", \"delete\", \"branch\", \"commit\", \"restore\", \"state\"]\nshell = { vms = \"any\", commands = \"any\" }";
    let policy = Policy::parse(
        &format!(
            "[extension.vers-vm]\ndigest = \"{}\"\n{rules}\n",
            Digest::of(wasm)
        ),
        "bench",
    )
    .unwrap();
    let host = Host::builder()
        .cache(scratch.join("cache"))
        .state(scratch.join("state"))
        .platform(settings)
        .policy(policy)
        .build()
        .unwrap();
    let extension = host.load("vers-vm", wasm.to_vec()).await.unwrap();
    host.session(Arc::new(Headless::new(".")), vec![extension])
        .unwrap()
}

async fn vms(session: &Session, platform: &Platform) {
    let _ = platform;
    let ok = async |tool: &str, arguments| {
        session
            .call(tool, arguments)
            .outcome()
            .await
            .unwrap_or_else(|why| panic!("{tool}: {why}"))
    };
    let id = |text: String| text.rsplit([' ', '\n']).next().unwrap().to_owned();

    let (mut create, mut commit, mut branch, mut restore, mut delete) =
        (vec![], vec![], vec![], vec![], vec![]);
    for _ in 0..20 {
        let begun = Instant::now();
        let vm = id(ok("vers_vm_create", json!({ "wait_boot": true }))
            .await
            .text());
        create.push(begun.elapsed());
        let begun = Instant::now();
        let snapshot = id(ok("vers_vm_commit", json!({ "vmId": vm })).await.text());
        commit.push(begun.elapsed());
        let begun = Instant::now();
        let twin = id(ok("vers_vm_branch", json!({ "vmId": vm })).await.text());
        branch.push(begun.elapsed());
        let begun = Instant::now();
        let restored = id(ok("vers_vm_restore", json!({ "commitId": snapshot }))
            .await
            .text());
        restore.push(begun.elapsed());
        for vm in [vm, twin, restored] {
            delete.push(timed(ok("vers_vm_delete", json!({ "vmId": vm }))).await);
        }
    }
    row("`vers_vm_create` with wait_boot, local platform", create);
    row("`vers_vm_commit`", commit);
    row("`vers_vm_branch`", branch);
    row("`vers_vm_restore`", restore);
    row("`vers_vm_delete`", delete);

    let vm = id(ok("vers_vm_create", json!({ "wait_boot": true }))
        .await
        .text());
    row(
        "`vers_vm_use`: connect",
        vec![timed(ok("vers_vm_use", json!({ "vmId": vm }))).await],
    );
    let mut bash = Vec::new();
    for _ in 0..300 {
        bash.push(timed(ok("bash", json!({ "command": "true" }))).await);
    }
    row(
        "`bash true` on a connected VM, through the tool",
        bash.split_off(20),
    );
    let mut together = Vec::new();
    for _ in 0..10 {
        let begun = Instant::now();
        let calls: Vec<_> = (0..32)
            .map(|_| session.call("bash", json!({ "command": "true" })))
            .collect();
        for mut call in calls {
            call.outcome().await.unwrap();
        }
        together.push(begun.elapsed());
    }
    row("32 × `bash true` at once", together);
    let mut cancels = Vec::new();
    for _ in 0..20 {
        let mut call = session.call("bash", json!({ "command": "echo up; sleep 1000" }));
        let mut updates = call.updates();
        while updates.changed().await.is_ok() {
            if !updates.borrow_and_update().content.is_empty() {
                break;
            }
        }
        let begun = Instant::now();
        call.canceller().cancel();
        assert!(call.outcome().await.is_err());
        cancels.push(begun.elapsed());
    }
    row(
        "cancel of a running command, until it is known to be gone",
        cancels,
    );
    println!(
        "| memory of the instance of vers-vm | {} KiB | | | |",
        session.memory().values().sum::<u64>() >> 10
    );
    ok("vers_vm_delete", json!({ "vmId": vm })).await;
}

async fn timed<T>(work: impl Future<Output = T>) -> Duration {
    let begun = Instant::now();
    work.await;
    begun.elapsed()
}

fn row(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |part: f64| {
        let index = ((times.len() - 1) as f64 * part).round() as usize;
        times
            .get(index)
            .map_or_else(String::new, |time| format!("{time:.2?}"))
    };
    println!(
        "| {what} | {} | {} | {} | {} |",
        at(0.0),
        at(0.5),
        at(0.99),
        times.len()
    );
}

fn nowhere() -> Settings {
    let environment = Environment::of([
        ("VERS_BASE_URL", "http://127.0.0.1:9/api/v1"),
        ("VERS_API_KEY", "none"),
    ]);
    Settings::discover(environment, Overrides::default()).unwrap()
}

fn guest(package: &str, file: &str) -> Vec<u8> {
    let extensions: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../extensions");
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build
        .args([
            "build",
            "--release",
            "--locked",
            "--target",
            "wasm32-wasip2",
            "-p",
            package,
        ])
        .current_dir(&extensions);
    assert!(
        build
            .env_remove("CARGO_TARGET_DIR")
            .status()
            .unwrap()
            .success(),
        "the guest {package} does not build"
    );
    std::fs::read(extensions.join(format!("target/wasm32-wasip2/release/{file}.wasm"))).unwrap()
}
