//! Plan mode, as a harness sees it: the shipped component behind a front end that has tools, messages and dialogs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures::future::BoxFuture;
use pi_vers_host::platform::{Environment, Overrides, Settings};
use pi_vers_host::{
    Answer, Content, CustomMessage, Delivery, Dialog, Event, FlagValue, Harness, HarnessError,
    Host, Line, Session, Severity, StartReason,
};
use pi_vers_tests::{DEADLINE, Scratch, eventually, ids, session, settings};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

/// A dialog that waits for its answer.
type Asked = (String, Dialog, oneshot::Sender<Option<Answer>>);
/// What the session keeps: who, what kind, the data.
type Entries = Arc<Mutex<Vec<(String, String, Value)>>>;

/// A harness with an agent's tools and a person in front of it.
struct Desk {
    directory: PathBuf,
    flags: BTreeMap<String, FlagValue>,
    entries: Entries,
    active: Mutex<Vec<String>>,
    sent: Mutex<Vec<(String, String, bool, bool)>>,
    said: Mutex<Vec<String>>,
    told: Mutex<Vec<String>>,
    shown: Mutex<BTreeMap<String, String>>,
    asked: mpsc::UnboundedSender<Asked>,
}

fn lock<T>(it: &Mutex<T>) -> MutexGuard<'_, T> {
    it.lock().expect("nobody panics with it")
}

fn text(content: &[Content]) -> String {
    let texts = content.iter().map(|block| match block {
        Content::Text(text) => text.clone(),
        _ => "[no text]".into(),
    });
    texts.collect::<Vec<_>>().join("\n")
}

fn line(line: &Line) -> String {
    line.iter().map(|span| span.text.as_str()).collect()
}

impl Harness for Desk {
    fn interactive(&self) -> bool {
        true
    }

    fn notify(&self, _: &str, message: &str, _: Severity) {
        lock(&self.told).push(message.to_owned());
    }

    fn set_status(&self, _: &str, key: &str, status: Option<Line>) {
        match status {
            Some(status) => lock(&self.shown).insert(key.into(), line(&status)),
            None => lock(&self.shown).remove(key),
        };
    }

    fn set_widget(&self, _: &str, key: &str, lines: Option<Vec<Line>>) {
        match lines {
            Some(lines) => {
                let lines: Vec<String> = lines.iter().map(line).collect();
                lock(&self.shown).insert(key.into(), lines.join("\n"))
            }
            None => lock(&self.shown).remove(key),
        };
    }

    fn ask(
        &self,
        _: &str,
        _: Option<&str>,
        title: &str,
        dialog: Dialog,
        _: Option<Duration>,
    ) -> BoxFuture<'_, Option<Answer>> {
        let (answer, answered) = oneshot::channel();
        let _ = self.asked.send((title.to_owned(), dialog, answer));
        Box::pin(async { answered.await.ok().flatten() })
    }

    fn working_directory(&self) -> PathBuf {
        self.directory.clone()
    }

    fn session_id(&self) -> String {
        "the-session".into()
    }

    fn flag(&self, name: &str) -> Option<FlagValue> {
        self.flags.get(name).cloned()
    }

    fn send_message(
        &self,
        _: &str,
        message: CustomMessage,
        _: Delivery,
        trigger_turn: bool,
    ) -> BoxFuture<'_, Result<(), HarnessError>> {
        let sent = (
            message.kind,
            text(&message.content),
            message.display,
            trigger_turn,
        );
        lock(&self.sent).push(sent);
        Box::pin(async { Ok(()) })
    }

    fn send_user_message(
        &self,
        _: &str,
        content: Vec<Content>,
        _: Delivery,
    ) -> BoxFuture<'_, Result<(), HarnessError>> {
        lock(&self.said).push(text(&content));
        Box::pin(async { Ok(()) })
    }

    fn append_entry(
        &self,
        from: &str,
        kind: &str,
        data: Value,
    ) -> BoxFuture<'_, Result<(), HarnessError>> {
        lock(&self.entries).push((from.into(), kind.into(), data));
        Box::pin(async { Ok(()) })
    }

    fn entries(
        &self,
        from: &str,
        kind: Option<&str>,
    ) -> BoxFuture<'_, Result<Vec<Value>, HarnessError>> {
        let found = lock(&self.entries)
            .iter()
            .filter(|(name, k, _)| name == from && kind.is_none_or(|kind| kind == k))
            .map(|(_, _, data)| data.clone())
            .collect();
        Box::pin(async { Ok(found) })
    }

    fn active_tools(&self) -> Option<Vec<String>> {
        Some(lock(&self.active).clone())
    }

    fn set_active_tools(&self, names: Vec<String>) -> BoxFuture<'_, Result<(), HarnessError>> {
        *lock(&self.active) = names;
        Box::pin(async { Ok(()) })
    }

    fn built_ins(&self) -> Vec<String> {
        ["bash", "read", "edit", "write", "grep", "find", "ls"]
            .map(str::to_owned)
            .into()
    }
}

/// The tools before plan mode, in an order of their own.
const BEFORE: [&str; 7] = [
    "write",
    "bash",
    "vers_vms",
    "read",
    "bg_start",
    "edit",
    "vers_vm_use",
];

/// One run of a session.
struct Run {
    session: Session,
    desk: Arc<Desk>,
    asked: mpsc::UnboundedReceiver<Asked>,
    _host: Host,
}

/// A platform that is not there.
fn nowhere() -> Settings {
    let environment = Environment::of([
        ("VERS_BASE_URL", "http://127.0.0.1:9/api/v1"),
        ("VERS_API_KEY", "none"),
        ("HOME", "/nonexistent"),
    ]);
    Settings::discover(environment, Overrides::default()).expect("the settings are valid")
}

impl Run {
    async fn new(
        settings: Settings,
        directory: &Path,
        flags: &[(&str, FlagValue)],
        entries: Entries,
        reason: StartReason,
    ) -> Self {
        let (send, asked) = mpsc::unbounded_channel();
        let flags = flags
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone()));
        let desk = Arc::new(Desk {
            directory: directory.to_owned(),
            flags: flags.collect(),
            entries,
            active: Mutex::new(BEFORE.map(str::to_owned).into()),
            sent: Mutex::default(),
            said: Mutex::default(),
            told: Mutex::default(),
            shown: Mutex::default(),
            asked: send,
        });
        let (host, session) = session(settings, directory, desk.clone()).await;
        session.start(reason).await.expect("it starts");
        Self {
            session,
            desk,
            asked,
            _host: host,
        }
    }

    /// Without a platform.
    async fn alone(
        flags: &[(&str, FlagValue)],
        entries: Entries,
        reason: StartReason,
    ) -> (Self, tempfile::TempDir) {
        let home = tempfile::tempdir().expect("a directory");
        let run = Self::new(nowhere(), home.path(), flags, entries, reason).await;
        (run, home)
    }

    async fn command(&self, name: &str, arguments: &str) {
        self.session
            .command(name, arguments)
            .await
            .expect("it runs");
    }

    /// Why a tool is blocked.
    async fn blocked(&self, tool: &str, arguments: Value) -> Option<String> {
        let event = Event::ToolCall {
            call_id: "1".into(),
            tool: tool.into(),
            arguments,
        };
        self.session.event(event).await.block
    }

    async fn bash(&self, command: &str) -> Option<String> {
        self.blocked("bash", json!({ "command": command })).await
    }

    fn active(&self) -> Vec<String> {
        lock(&self.desk.active).clone()
    }

    fn shown(&self, key: &str) -> Option<String> {
        let shown = lock(&self.desk.shown);
        shown
            .iter()
            .find(|(name, _)| name.rsplit('/').next() == Some(key))
            .map(|(_, text)| text.clone())
    }

    fn told(&self, what: &str) -> bool {
        lock(&self.desk.told).iter().any(|text| text.contains(what))
    }

    fn kinds(&self) -> Vec<String> {
        lock(&self.desk.sent)
            .iter()
            .map(|sent| sent.0.clone())
            .collect()
    }

    fn sent(&self, kind: &str) -> Option<(String, bool, bool)> {
        let sent = lock(&self.desk.sent);
        let found = sent.iter().rev().find(|sent| sent.0 == kind)?;
        Some((found.1.clone(), found.2, found.3))
    }

    async fn dialog(&mut self) -> Asked {
        tokio::time::timeout(DEADLINE, self.asked.recv())
            .await
            .expect("somebody is asked")
            .expect("the harness is there")
    }

    async fn ends_with(&self, said: &str) {
        let message = assistant(said);
        self.session.event(Event::TurnEnd(message.clone())).await;
        self.session.event(Event::AgentEnd(vec![message])).await;
    }

    async fn injected(&self) -> Option<(String, String, bool)> {
        let event = Event::BeforeAgentStart("go on".into());
        let message = self.session.event(event).await.inject.into_iter().next()?;
        Some((message.kind, text(&message.content), message.display))
    }
}

fn assistant(text: &str) -> Value {
    json!({ "role": "assistant", "content": [{ "type": "text", "text": text }] })
}

const PLAN: &str = "I looked.\n\n**Plan:**\n1. Read the config\n2. Change the **server**\n";

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_something_is_hidden_and_blocked_and_leaving_gives_back_exactly_what_was() {
    let (run, _home) = Run::alone(&[], Entries::default(), StartReason::Startup).await;
    assert_eq!(run.blocked("edit", json!({})).await, None);
    assert_eq!(run.bash("rm -rf x").await, None);
    assert_eq!(run.injected().await, None);

    run.command("plan", "").await;
    assert_eq!(run.shown("plan-mode").as_deref(), Some("⏸ plan"));
    let mut offered = run.active();
    offered.sort();
    assert_eq!(offered, ["bash", "find", "grep", "ls", "read", "vers_vms"]);
    assert!(run.told("Plan mode enabled. Tools: "));
    for tool in [
        "edit",
        "write",
        "vers_vm_delete",
        "vers_vm_local",
        "bg_start",
        "vers_vm_copy",
        "somebodys_tool",
    ] {
        let why = run
            .blocked(tool, json!({}))
            .await
            .unwrap_or_else(|| panic!("{tool}"));
        assert!(
            why.starts_with(&format!("Plan mode: {tool} blocked")) && why.contains("/plan"),
            "{why}"
        );
    }
    for tool in [
        "read",
        "grep",
        "find",
        "ls",
        "questionnaire",
        "vers_vms",
        "bg_logs",
    ] {
        assert_eq!(run.blocked(tool, json!({})).await, None, "{tool}");
    }
    for command in [
        "ls -la 2>/dev/null | head",
        "git log --oneline 2>&1",
        "find . -name '*.rs' | xargs wc -l",
    ] {
        assert_eq!(run.bash(command).await, None, "{command}");
    }
    for command in [
        "find . -delete",
        "echo x > f",
        "cat a; python3 -c 1",
        "env X=1 rm f",
        "awk 'BEGIN{system(\"id\")}'",
    ] {
        let why = run
            .bash(command)
            .await
            .unwrap_or_else(|| panic!("{command}"));
        assert!(
            why.starts_with("Plan mode: command blocked (")
                && why.ends_with(&format!("\nCommand: {command}")),
            "{why}"
        );
    }
    assert!(run.blocked("bash", json!({ "command": 1 })).await.is_some());
    let (kind, said, display) = run.injected().await.expect("the model is told");
    assert!(
        kind == "plan-mode-context" && said.starts_with("[PLAN MODE ACTIVE]\n") && !display,
        "{kind} {said}"
    );

    run.command("plan", "").await;
    assert_eq!(run.active(), BEFORE);
    assert_eq!(run.shown("plan-mode"), None);
    assert!(run.told("Plan mode disabled. Full access restored."));
    assert_eq!(run.blocked("edit", json!({})).await, None);
    let messages = vec![
        json!({ "role": "custom", "customType": "plan-mode-context", "content": said }),
        json!({ "role": "user", "content": "x" }),
    ];
    let left = run.session.event(Event::Context(messages)).await.messages;
    assert_eq!(left, Some(vec![json!({ "role": "user", "content": "x" })]));
    let why = run
        .session
        .command("plan", "nonsense")
        .await
        .unwrap_err()
        .to_string();
    assert!(why.contains("/plan nonsense"), "{why}");
    run.session.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_is_shown_asked_about_carried_out_across_a_restart_and_completed() {
    let entries = Entries::default();
    let (mut run, _home) = Run::alone(
        &[("plan", FlagValue::Boolean(true))],
        entries.clone(),
        StartReason::Startup,
    )
    .await;
    assert_eq!(run.shown("plan-mode").as_deref(), Some("⏸ plan"));
    run.ends_with(PLAN).await;
    let (title, dialog, answer) = run.dialog().await;
    let options = [
        "Execute the plan (track progress)",
        "Stay in plan mode",
        "Refine the plan",
    ];
    assert_eq!(
        (title.as_str(), dialog),
        (
            "Plan mode - what next?",
            Dialog::Select(options.map(str::to_owned).into())
        )
    );
    assert_eq!(
        run.sent("plan-todo-list"),
        Some((
            "**Plan Steps (2):**\n\n1. ☐ Read the config\n2. ☐ Change the server".into(),
            true,
            false
        ))
    );
    // While a person thinks, the harness goes on.
    assert_eq!(run.bash("ls").await, None);
    answer.send(Some(Answer::Index(0))).expect("it waits");
    eventually("the work begins", || {
        run.sent("plan-mode-execute").is_some()
    })
    .await;
    assert_eq!(
        run.sent("plan-mode-execute"),
        Some((
            "Execute the plan. Start with: Read the config".into(),
            true,
            true
        ))
    );
    assert_eq!(run.active(), BEFORE);
    assert_eq!(run.shown("plan-mode").as_deref(), Some("📋 0/2"));
    assert_eq!(
        run.shown("plan-todos").as_deref(),
        Some("☐ Read the config\n☐ Change the server")
    );
    assert_eq!(run.bash("rm x").await, None);
    let (kind, said, _) = run.injected().await.expect("the model is told");
    assert!(
        kind == "plan-execution-context"
            && said.contains("1. Read the config\n2. Change the server")
            && said.contains("[DONE:n]")
    );
    run.session
        .event(Event::TurnEnd(assistant("Read it. [DONE:1]")))
        .await;
    assert_eq!(run.shown("plan-mode").as_deref(), Some("📋 1/2"));
    run.command("todos", "").await;
    assert!(run.told("Plan Progress:\n1. ✓ Read the config\n2. ○ Change the server"));
    run.session.end().await;

    let (run, _home) = Run::alone(
        &[("plan", FlagValue::Boolean(true))],
        entries.clone(),
        StartReason::Resume,
    )
    .await;
    assert_eq!(run.shown("plan-mode").as_deref(), Some("📋 1/2"));
    assert_eq!(
        run.shown("plan-todos").as_deref(),
        Some("☑ Read the config\n☐ Change the server")
    );
    assert_eq!(run.active(), BEFORE);
    // A step that was done before the restart, but not written down any more.
    let messages = vec![
        assistant("[DONE:7]"),
        json!({ "role": "custom", "customType": "plan-mode-execute", "content": "" }),
        assistant("[DONE:2]"),
    ];
    run.session.event(Event::Context(messages)).await;
    assert_eq!(run.shown("plan-mode").as_deref(), Some("📋 2/2"));
    run.ends_with("All done.").await;
    eventually("the plan is complete", || {
        run.sent("plan-complete").is_some()
    })
    .await;
    let (said, display, trigger) = run.sent("plan-complete").expect("it was sent");
    assert_eq!(
        (said.as_str(), display, trigger),
        (
            "**Plan Complete!** ✓\n\n~~Read the config~~\n~~Change the server~~",
            true,
            false
        )
    );
    assert_eq!(
        (run.shown("plan-mode"), run.shown("plan-todos")),
        (None, None)
    );
    run.session.end().await;

    let (run, _home) = Run::alone(&[], entries, StartReason::Resume).await;
    assert_eq!((run.shown("plan-mode"), run.injected().await), (None, None));
    run.session.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_of_the_older_extension_restore_and_starts_may_come_twice() {
    let entry = json!({ "enabled": true, "todos": [{ "step": 1, "text": "Read the config", "completed": false }], "executing": false });
    let entries: Entries = Arc::new(Mutex::new(vec![(
        "plan-mode".into(),
        "plan-mode".into(),
        entry,
    )]));
    let (run, _home) = Run::alone(&[], entries.clone(), StartReason::Resume).await;
    run.session
        .start(StartReason::Resume)
        .await
        .expect("it starts again");
    assert_eq!(run.shown("plan-mode").as_deref(), Some("⏸ plan"));
    assert!(run.blocked("write", json!({})).await.is_some());
    assert!(!run.active().contains(&"write".into()));
    run.command("todos", "").await;
    assert!(run.told("1. ○ Read the config"));
    run.command("plan", "").await;
    assert_eq!(run.active(), BEFORE);
    run.session.end().await;
    // Leaving is remembered, too.
    let (run, _home) = Run::alone(
        &[("plan", FlagValue::Boolean(true))],
        entries,
        StartReason::Resume,
    )
    .await;
    assert_eq!(run.shown("plan-mode"), None);
    run.session.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tools_that_were_active_survive_a_restart_within_plan_mode() {
    let entries = Entries::default();
    let (run, _home) = Run::alone(&[], entries.clone(), StartReason::Startup).await;
    *lock(&run.desk.active) = vec!["edit".into(), "bash".into()];
    run.command("plan", "").await;
    run.session.end().await;
    let (run, _home) = Run::alone(&[], entries, StartReason::Reload).await;
    assert!(run.blocked("edit", json!({})).await.is_some());
    run.command("plan", "").await;
    assert_eq!(run.active(), ["edit", "bash"]);
    run.session.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_user_may_refine_stay_or_be_asked_anew() {
    let (mut run, _home) = Run::alone(&[], Entries::default(), StartReason::Startup).await;
    run.command("plan", "").await;
    run.ends_with("Which server do you mean?").await;
    let (_, dialog, first) = run.dialog().await;
    assert!(matches!(dialog, Dialog::Select(options) if options[0] == "Execute the plan"));
    assert!(run.kinds().is_empty());
    // The agent comes to an end once more: the old question is gone, there is a new one.
    run.ends_with(PLAN).await;
    let (_, _, second) = run.dialog().await;
    eventually("the old question is closed", || first.is_closed()).await;
    second.send(Some(Answer::Index(2))).expect("it waits");
    let (title, dialog, edit) = run.dialog().await;
    assert_eq!(
        (title.as_str(), dialog),
        ("Refine the plan:", Dialog::Edit(String::new()))
    );
    edit.send(Some(Answer::Text("  use port 80 \n".into())))
        .expect("it waits");
    eventually("the wish is said", || {
        lock(&run.desk.said).as_slice() == ["use port 80"]
    })
    .await;
    assert_eq!(run.shown("plan-mode").as_deref(), Some("⏸ plan"));
    run.ends_with(PLAN).await;
    let (_, _, stay) = run.dialog().await;
    stay.send(Some(Answer::Index(1))).expect("it waits");
    run.ends_with(PLAN).await;
    let (_, _, open) = run.dialog().await;
    // Switched off by hand, nothing is left to ask.
    run.command("plan", "").await;
    eventually("the question is closed", || open.is_closed()).await;
    assert!(run.sent("plan-mode-execute").is_none());
    assert_eq!(run.active(), BEFORE);
    run.session.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_user_may_name_more_tools_that_only_read() {
    let flags = [(
        "plan-tools",
        FlagValue::Text("web_search, vers_vm_use".into()),
    )];
    let (run, _home) = Run::alone(&flags, Entries::default(), StartReason::Startup).await;
    run.command("plan", "").await;
    assert_eq!(run.blocked("web_search", json!({})).await, None);
    assert!(run.active().contains(&"vers_vm_use".into()));
    assert!(run.blocked("edit", json!({})).await.is_some());
    run.session.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_active_vm_there_is_no_branch_and_it_says_why() {
    let (run, _home) = Run::alone(&[], Entries::default(), StartReason::Startup).await;
    run.command("plan", "branch").await;
    assert!(run.told("read-only: no VM is active."));
    assert_eq!(run.shown("plan-mode").as_deref(), Some("⏸ plan"));
    assert!(run.bash("touch x").await.is_some());
    run.session.end().await;
}

/// A session with an active VM.
async fn lab(scratch: &Scratch, settings: &Settings, entries: Entries) -> (Run, String) {
    let run = Run::new(
        settings.clone(),
        &scratch.work(),
        &[],
        entries,
        StartReason::Startup,
    )
    .await;
    let made = call(&run, "vers_vm_create", json!({ "wait_boot": true })).await;
    let vm = ids(&made)[0].clone();
    call(&run, "vers_vm_use", json!({ "vmId": vm })).await;
    (run, vm)
}

async fn call(run: &Run, tool: &str, arguments: Value) -> String {
    match run.session.call(tool, arguments.clone()).outcome().await {
        Ok(output) => output.text(),
        Err(why) => panic!("{tool} {arguments}: {why}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_throw_away_branch_anything_may_run_and_nothing_of_it_stays() {
    let scratch = Scratch::new();
    let settings = settings(&scratch.up().await);
    let entries = Entries::default();
    let (run, vm) = lab(&scratch, &settings, entries.clone()).await;
    call(
        &run,
        "bash",
        json!({ "command": "cd /tmp && echo here > kept" }),
    )
    .await;

    run.command("plan", "branch").await;
    assert_eq!(
        run.shown("plan-mode").as_deref(),
        Some("⏸ plan (branch)"),
        "{:?}",
        lock(&run.desk.told)
    );
    let listed = ids(&call(&run, "vers_vms", json!({})).await);
    let branch = listed
        .iter()
        .find(|id| **id != vm)
        .expect("there is a branch")
        .clone();
    for tool in ["bash", "edit", "write"] {
        assert!(run.active().contains(&tool.into()), "{tool}");
    }
    assert_eq!(run.bash("rm kept; touch new").await, None);
    assert_eq!(
        run.blocked("write", json!({ "path": "x", "content": "" }))
            .await,
        None
    );
    for tool in [
        "vers_vm_use",
        "vers_vm_local",
        "vers_vm_delete",
        "bg_start",
        "vers_vm_copy",
    ] {
        assert!(run.blocked(tool, json!({})).await.is_some(), "{tool}");
    }
    let (_, said, _) = run.injected().await.expect("the model is told");
    assert!(said.contains("throw-away copy"), "{said}");
    assert_eq!(
        call(
            &run,
            "bash",
            json!({ "command": "cat kept; rm kept; touch new; ls new" })
        )
        .await
        .trim(),
        "here\nnew"
    );
    // The session's choice of VM is what it was.
    let recorded = lock(&run.desk.entries)
        .iter()
        .rev()
        .find(|(from, _, _)| from == "vers-vm")
        .map(|entry| entry.2.clone());
    assert_eq!(recorded, Some(json!({ "vmId": vm })));

    // Somebody chooses the VM itself: there, nothing may run.
    call(&run, "vers_vm_use", json!({ "vmId": vm })).await;
    assert!(run.bash("rm kept").await.is_some());
    assert_eq!(run.bash("ls").await, None);

    run.command("plan", "").await;
    assert_eq!(
        ids(&call(&run, "vers_vms", json!({})).await)
            .iter()
            .filter(|id| **id == branch)
            .count(),
        0
    );
    assert_eq!(run.active(), BEFORE);
    assert_eq!(
        call(
            &run,
            "bash",
            json!({ "command": "ls /tmp/kept /tmp/new 2>/dev/null; true" })
        )
        .await
        .trim(),
        "/tmp/kept"
    );

    // Left without a choice in between, tools act on the VM again.
    run.command("plan", "branch").await;
    assert_eq!(run.bash("rm /tmp/kept").await, None);
    run.command("plan", "").await;
    assert_eq!(
        call(&run, "bash", json!({ "command": "cat /tmp/kept" }))
            .await
            .trim(),
        "here"
    );

    // The end of the session ends the branch; a resumed one makes another.
    run.command("plan", "branch").await;
    run.session.end().await;
    let resumed = async |entries| {
        let work = scratch.work();
        let run = Run::new(settings.clone(), &work, &[], entries, StartReason::Resume).await;
        eventually("there is a branch again", || {
            run.shown("plan-mode").as_deref() == Some("⏸ plan (branch)")
        })
        .await;
        run
    };
    let run = resumed(entries).await;
    assert_eq!(
        ids(&call(&run, "vers_vms", json!({})).await)
            .into_iter()
            .collect::<std::collections::BTreeSet<_>>()
            .len(),
        2
    );
    // Killed instead of ended, it leaves a branch, and the next run cleans up.
    let left = ids(&call(&run, "vers_vms", json!({})).await)
        .into_iter()
        .find(|id| *id != vm)
        .expect("there is a branch");
    let entries = run.desk.entries.clone();
    drop(run);
    let run = resumed(entries).await;
    let listed = ids(&call(&run, "vers_vms", json!({})).await);
    assert!(
        !listed.contains(&left) && listed.contains(&vm),
        "{listed:?}"
    );
    run.session.end().await;
    scratch.end().await;
}
