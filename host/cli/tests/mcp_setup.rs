//! `pi-vers mcp setup`, `mcp bundle` and `hook` as a user runs them, in a home of their own.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "it is test code: a panic is how it says what is wrong"
)]

mod common;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use common::{BINARY, Home, Ran};
use serde_json::{Value, json};

/// Every client with each of its scopes, and where that stands below the home.
const ALL: [(&str, &str, &str); 10] = [
    ("claude", "user", ".claude.json"),
    ("claude", "local", ".claude.json"),
    ("claude", "project", "work/.mcp.json"),
    ("codex", "user", ".codex/config.toml"),
    ("codex", "project", "work/.codex/config.toml"),
    ("cursor", "user", ".cursor/mcp.json"),
    ("cursor", "project", "work/.cursor/mcp.json"),
    ("vscode", "user", ".config/Code/User/mcp.json"),
    ("vscode", "project", "work/.vscode/mcp.json"),
    (
        "desktop",
        "user",
        ".config/Claude/claude_desktop_config.json",
    ),
];

fn setup(home: &Home, more: &[&str]) -> Ran {
    home.run(["mcp", "setup"].iter().chain(more))
}

fn done(ran: Ran) -> Ran {
    assert_eq!(ran.code, 0, "{ran:?}");
    ran
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|why| panic!("{}: {why}", path.display()))
}

fn json_of(path: &Path) -> Value {
    serde_json::from_str(&read(path)).unwrap()
}

/// All files below the home with what is in them.
fn files(home: &Home) -> Vec<(PathBuf, Vec<u8>)> {
    fn walk(directory: &Path, all: &mut Vec<(PathBuf, Vec<u8>)>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, all);
            } else {
                let bytes = std::fs::read(&path).unwrap();
                all.push((path, bytes));
            }
        }
    }
    let mut all = Vec::new();
    walk(home.root.path(), &mut all);
    all.sort();
    all
}

#[test]
fn every_client_is_set_up_once_and_taken_back() {
    for (client, scope, file) in ALL {
        let home = Home::new();
        let file = home.path(file);
        let first = done(setup(&home, &[client, "--scope", scope]));
        assert!(first.out.contains("+++ "), "a diff: {first:?}");
        let text = read(&file);
        let command = if scope == "project" {
            "pi-vers"
        } else {
            BINARY
        };
        assert!(
            text.contains(&format!("\"{command}\"")),
            "{client} {scope}: {text}"
        );
        let again = done(setup(&home, &[client, "--scope", scope]));
        assert!(again.out.contains("nothing to do"), "{again:?}");
        assert_eq!(read(&file), text);
        done(setup(&home, &[client, "--scope", scope, "--remove"]));
        assert!(!file.exists(), "{client} {scope}: nothing else was in it");
        let again = done(setup(&home, &[client, "--scope", scope, "--remove"]));
        assert!(again.out.contains("nothing to do"), "{again:?}");
    }
}

#[test]
fn claude_code_gets_its_server_and_its_hook() {
    let home = Home::new();
    done(setup(&home, &["claude"]));
    let server = &json_of(&home.path(".claude.json"))["mcpServers"]["vers"];
    assert_eq!(
        *server,
        json!({ "type": "stdio", "command": BINARY, "args": ["mcp"] })
    );
    let settings = json_of(&home.path(".claude/settings.json"));
    let group = &settings["hooks"]["PreToolUse"][0];
    for tool in [
        "Bash",
        "Read",
        "Edit",
        "Write",
        "Grep",
        "Glob",
        "MultiEdit",
        "NotebookEdit",
    ] {
        let matcher = group["matcher"].as_str().unwrap();
        assert!(matcher.split('|').any(|one| one == tool), "{matcher}");
    }
    let hook = &group["hooks"][0];
    assert_eq!(
        (&hook["type"], &hook["server"], &hook["tool"]),
        (&json!("mcp_tool"), &json!("vers"), &json!("vers_route"))
    );

    // The other kind takes the place of the first; none takes it away.
    done(setup(&home, &["claude", "--hook", "command"]));
    let settings = json_of(&home.path(".claude/settings.json"));
    let groups = settings["hooks"]["PreToolUse"].as_array().unwrap().clone();
    let command = groups[0]["hooks"][0]["command"].as_str().unwrap();
    assert!(command.ends_with("pi-vers hook pre-tool-use"), "{command}");
    assert_eq!(
        (groups.len(), groups[0]["hooks"].as_array().unwrap().len()),
        (1, 1)
    );
    done(setup(&home, &["claude", "--hook", "none"]));
    assert!(!home.path(".claude/settings.json").exists());
    assert!(home.path(".claude.json").exists());
}

#[test]
fn hooks_of_others_stay_and_the_script_of_before_is_replaced() {
    let home = Home::new();
    let settings = json!({
        "model": "x",
        "hooks": {
            "PreToolUse": [
                { "matcher": "Bash", "hooks": [{ "type": "command", "command": "audit.sh" }] },
                { "matcher": "Bash|Read|Edit|Write", "hooks": [{ "type": "command", "command": "/v/vers-mcp/hooks/redirect-to-vm.sh" }] },
            ],
            "Stop": [{ "hooks": [{ "type": "command", "command": "bell.sh" }] }],
        },
    });
    let before = serde_json::to_string_pretty(&settings).unwrap();
    let path = home.write(".claude/settings.json", &before);
    done(setup(&home, &["claude"]));
    let after = json_of(&path);
    let groups = after["hooks"]["PreToolUse"].as_array().unwrap();
    assert_eq!(groups.len(), 2, "{after}");
    assert_eq!(groups[0], settings["hooks"]["PreToolUse"][0]);
    assert_eq!(groups[1]["hooks"][0]["type"], "mcp_tool");
    assert_eq!(after["hooks"]["Stop"], settings["hooks"]["Stop"]);
    done(setup(&home, &["claude", "--remove"]));
    let after = json_of(&path);
    assert_eq!(
        after["hooks"]["PreToolUse"],
        json!([settings["hooks"]["PreToolUse"][0]])
    );
}

#[test]
fn comments_and_everything_else_in_the_file_stay_and_come_back_byte_by_byte() {
    let toml = "# my settings\nmodel = \"m\" # the good one\n\n[mcp_servers.other] # theirs\ncommand = 'x'\nenv = { TOKEN = \"s3cr3t\" }\n\n[profiles.a]\nmodel = \"n\"\n";
    let jsonc = "// mine\n{\n\t\"inputs\": [], // none\n\t\"servers\": {\n\t\t/* theirs */\n\t\t\"other\": { \"command\": \"x\", \"env\": { \"TOKEN\": \"s3cr3t\" } },\n\t},\n}\n";
    let json = "{\n  \"numStartups\": 12,\n  \"mcpServers\": {\n    \"other\": {\n      \"command\": \"x\",\n      \"env\": { \"TOKEN\": \"s3cr3t\" }\n    }\n  },\n  \"oauthAccount\": { \"id\": \"s3cr3t\" }\n}";
    for (client, file, text) in [
        ("codex", ".codex/config.toml", toml),
        ("vscode", ".config/Code/User/mcp.json", jsonc),
        ("claude", ".claude.json", json),
        ("desktop", ".config/Claude/claude_desktop_config.json", json),
    ] {
        let home = Home::new();
        let path = home.write(file, text);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let ran = done(setup(&home, &[client]));
        assert!(!ran.out.contains("s3cr3t"), "a secret of another: {ran:?}");
        let after = read(&path);
        assert_ne!(after, text);
        for line in text.lines() {
            let line = line.trim_end_matches([',', '}']);
            assert!(
                after.contains(line),
                "{client}: {line:?} is gone from {after}"
            );
        }
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let mut backup = path.clone().into_os_string();
        backup.push(".before-pi-vers");
        assert_eq!(read(Path::new(&backup)), text, "the file as it was");
        done(setup(&home, &[client, "--remove"]));
        assert_eq!(read(&path), text, "{client}");
    }
}

#[test]
fn a_file_that_still_holds_a_comment_is_not_removed() {
    let home = Home::new();
    let text = "{\n  // to be filled\n}\n";
    let path = home.write(".cursor/mcp.json", text);
    done(setup(&home, &["cursor"]));
    done(setup(&home, &["cursor", "--remove"]));
    assert!(read(&path).contains("// to be filled"));
    done(setup(&home, &["codex", "--hook", "none"]));
    let ran = done(setup(&home, &["codex", "--remove"]));
    let added = |line: &str| line.starts_with('+') && !line.starts_with("+++");
    assert!(
        ran.out.contains("removed ") && !ran.out.lines().any(added),
        "{ran:?}"
    );
}

#[test]
fn print_shows_the_same_and_changes_nothing() {
    let home = Home::new();
    home.write(".codex/config.toml", "model = \"m\"\n");
    let before = files(&home);
    for client in ["claude", "codex"] {
        let printed = done(setup(&home, &[client, "--print"]));
        assert_eq!(files(&home), before);
        let really = done(setup(&home, &[client]));
        let diff = |ran: &Ran| -> Vec<String> {
            let lines = ran
                .out
                .lines()
                .filter(|line| line.starts_with(['+', '-', '@', ' ']));
            lines.map(str::to_owned).collect()
        };
        assert!(!diff(&printed).is_empty());
        assert_eq!(diff(&printed), diff(&really));
        done(setup(&home, &[client, "--remove"]));
        for (path, _) in files(&home) {
            if path.to_string_lossy().ends_with(".before-pi-vers") {
                std::fs::remove_file(path).unwrap();
            }
        }
        assert_eq!(files(&home), before);
    }
}

#[test]
fn codex_gets_time_and_names_of_variables_but_no_values() {
    let mut home = Home::new();
    home.set("VERS_API_KEY", "s3cr3t");
    done(setup(
        &home,
        &[
            "codex",
            "--name",
            "my-vers",
            "--",
            "--local",
            "--session",
            "a b",
        ],
    ));
    let text = read(&home.path(".codex/config.toml"));
    for line in [
        "[mcp_servers.my-vers]",
        "args = [\"mcp\", \"--local\", \"--session\", \"a b\"]",
        "tool_timeout_sec = 600",
        "startup_timeout_sec = 60",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    assert!(
        text.contains("VERS_API_KEY") && !text.contains("s3cr3t"),
        "{text}"
    );
    // What the user raised stays.
    let raised = text.replace("tool_timeout_sec = 600", "tool_timeout_sec = 900");
    home.write(".codex/config.toml", &raised);
    done(setup(&home, &["codex", "--name", "my-vers"]));
    let text = read(&home.path(".codex/config.toml"));
    assert!(
        text.contains("tool_timeout_sec = 900") && text.contains("args = [\"mcp\"]"),
        "{text}"
    );
}

/// Codex gives a hook up that asks for a member which the call does not have.
#[test]
fn codex_gets_a_hook_of_its_own_shape() {
    let home = Home::new();
    let ran = done(setup(&home, &["codex"]));
    assert!(ran.err.contains("/hooks"), "it has to be trusted: {ran:?}");
    let hooks = json_of(&home.path(".codex/hooks.json"));
    let group = &hooks["hooks"]["PreToolUse"][0];
    assert_eq!(group["matcher"], "^(Bash|apply_patch)$");
    assert_eq!(group["hooks"][0]["tool"], "vers_route");
    assert_eq!(
        group["hooks"][0]["input"],
        json!({ "tool_name": "${tool_name}" })
    );
    done(setup(&home, &["codex", "--remove"]));
    assert!(!home.path(".codex/hooks.json").exists());
}

#[test]
fn the_directories_that_clients_are_told_are_theirs() {
    let mut home = Home::new();
    let (claude, codex) = (home.path("c"), home.path("x"));
    home.set("CLAUDE_CONFIG_DIR", claude.to_str().unwrap());
    home.set("CODEX_HOME", codex.to_str().unwrap());
    done(setup(&home, &["claude"]));
    done(setup(&home, &["codex"]));
    for file in ["c/.claude.json", "c/settings.json", "x/config.toml"] {
        assert!(home.path(file).exists(), "{file}");
    }
}

#[test]
fn wrong_input_is_one_line_and_changes_nothing() {
    let home = Home::new();
    home.write(".codex/config.toml", "model = \n");
    home.write(".cursor/mcp.json", "{\"mcpServers\": []}");
    home.write(".config/Code/User/mcp.json", b"\xff\xfe{");
    home.write(
        ".config/Claude/claude_desktop_config.json",
        r#"{"mcpServers":{"vers":{"command":"npx","args":["--key","s3cr3t"]}}}"#,
    );
    home.write(".claude.json", "{}");
    home.write(".claude/settings.json", "{\"hooks\": 5}");
    std::fs::create_dir_all(home.path("work/.mcp.json")).unwrap();
    let before = files(&home);
    for (arguments, says) in [
        (
            &["codex"][..],
            &["config.toml", "no valid TOML", "line 1"][..],
        ),
        (&["cursor"], &["mcpServers", "not an object"]),
        (&["vscode"], &["mcp.json", "UTF-8"]),
        (
            &["desktop"],
            &["mcpServers.vers", "runs npx, not pi-vers", "--name"],
        ),
        (&["desktop", "--remove"], &["runs npx, not pi-vers"]),
        (&["claude"], &["settings.json", "hooks"]),
        (&["claude", "--scope", "project"], &[".mcp.json", "no file"]),
        (
            &["desktop", "--scope", "project"],
            &["no configuration of the scope project"],
        ),
        (&["cursor", "--hook", "tool"], &["Cursor has no such hook"]),
        (
            &["claude", "--", "--colour"],
            &["not for `pi-vers mcp`", "--colour"],
        ),
        (
            &["claude", "--", "setup", "codex"],
            &["a command of its own"],
        ),
        (
            &["claude", "--", "-e", "my.wasm"],
            &["my.wasm", "whole path"],
        ),
    ] {
        let ran = setup(&home, arguments);
        assert_eq!(ran.code, 2, "{arguments:?}: {ran:?}");
        let line = ran.line();
        for part in says {
            assert!(line.contains(part), "{part:?} is missing in: {line}");
        }
        assert!(!line.contains("s3cr3t") && ran.out.is_empty(), "{ran:?}");
        assert_eq!(files(&home), before, "{arguments:?}");
    }
    for (arguments, says) in [
        (&["emacs"][..], "claude, codex, cursor, vscode, desktop"),
        (&["claude", "--name", "a b"], "letters, digits"),
        (
            &["claude", "--remove", "--", "--local"],
            "cannot be used with",
        ),
        (&[], "<CLIENT>"),
    ] {
        let ran = setup(&home, arguments);
        assert_eq!(ran.code, 2, "{ran:?}");
        assert!(ran.err.contains(says), "{says}: {ran:?}");
    }
}

#[test]
fn a_file_that_may_not_be_written_is_told() {
    // Root may write anything.
    if rustix::process::geteuid().is_root() {
        let mut home = Home::new();
        home.set("CODEX_HOME", "/proc/nowhere");
        let ran = setup(&home, &["codex"]);
        assert_eq!(ran.code, 2, "{ran:?}");
        assert!(ran.line().contains("cannot write /proc/nowhere"), "{ran:?}");
        return;
    }
    let home = Home::new();
    home.write(".codex/config.toml", "");
    let directory = home.path(".codex");
    std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o500)).unwrap();
    let ran = setup(&home, &["codex"]);
    std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.line().contains("cannot write"), "{ran:?}");
}

#[test]
fn mcp_alone_still_serves() {
    let home = Home::new();
    let hello = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"0"}}}"#;
    let ran = home.run_with_input(&["mcp", "--session", "s"], &format!("{hello}\n"));
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(ran.json()[0]["result"]["protocolVersion"], "2025-11-25");
    let ran = home.run(["mcp", "--local", "setup", "claude"]);
    assert_eq!(ran.code, 2, "options of serving are not for setup: {ran:?}");
}

#[test]
fn a_hook_without_a_server_allows_whatever_it_is_given() {
    let mut home = Home::new();
    let runtime = home.path("run");
    home.set("XDG_RUNTIME_DIR", runtime.to_str().unwrap());
    for input in [
        r#"{"hook_event_name":"PreToolUse","tool_name":"Bash","tool_input":{"command":"ls"}}"#,
        "",
        "nonsense",
        "[]",
        "{\"tool_name\": 5}",
    ] {
        let ran = home.run_with_input(&["hook", "pre-tool-use"], input);
        assert_eq!(
            (ran.code, ran.out.as_str(), ran.err.as_str()),
            (0, "", ""),
            "{input}: {ran:?}"
        );
    }
}

#[test]
fn a_bundle_is_a_zip_with_this_program_and_the_same_each_time() {
    let home = Home::new();
    let url = "https://example.com/download/pi-vers.mcpb";
    let ran = done(home.run(["mcp", "bundle", "--output", "a.mcpb", "--url", url]));
    assert!(
        ran.out.contains("wrote a.mcpb") && ran.out.contains("server.json"),
        "{ran:?}"
    );
    done(home.run(["mcp", "bundle", "-o", "b.mcpb"]));
    let bundle = std::fs::read(home.path("work/a.mcpb")).unwrap();
    assert!(bundle == std::fs::read(home.path("work/b.mcpb")).unwrap());
    assert!(
        bundle.starts_with(b"PK\x03\x04") && bundle.len() < std::fs::read(BINARY).unwrap().len()
    );
    let entry = json_of(&home.path("work/server.json"));
    let digest = entry["packages"][0]["fileSha256"].as_str().unwrap();
    assert!(ran.out.contains(digest), "{ran:?}");
    assert_eq!(entry["packages"][0]["identifier"], url);
    for (arguments, says) in [
        (&["--output", "no/such/place.mcpb"][..], "--output"),
        (&["--url", "http://example.com/x.mcpb"], "https://"),
    ] {
        let ran = home.run(["mcp", "bundle"].iter().chain(arguments));
        assert_eq!(ran.code, 2, "{ran:?}");
        assert!(ran.err.contains(says), "{ran:?}");
    }
}
