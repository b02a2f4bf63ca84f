//! Package managers and compilers: what they know, without downloading, building or running.

use super::Operands::Any;
use super::{Group, options};
use crate::judge::Refusal;
use crate::judge::options::Order;
use crate::judge::word::Word;

/// Programs that are known for nothing but `--version`. Not among them: those that, not knowing it, would read a script from their input.
pub(super) const VERSION_ONLY: &[&str] = &[
    "rustc",
    "rustup",
    "node",
    "deno",
    "bun",
    "npm",
    "npx",
    "pnpm",
    "yarn",
    "python",
    "python3",
    "pip",
    "pip3",
    "pipx",
    "uv",
    "poetry",
    "ruby",
    "gem",
    "bundle",
    "perl",
    "php",
    "composer",
    "java",
    "javac",
    "mvn",
    "gradle",
    "gcc",
    "g++",
    "cc",
    "clang",
    "make",
    "cmake",
    "ninja",
    "meson",
    "bash",
    "zsh",
    "tsc",
    "eslint",
    "prettier",
    "jest",
    "pytest",
    "ruff",
    "mypy",
    "black",
    "terraform",
    "ansible",
    "vim",
    "nvim",
    "ssh",
    "sqlite3",
    "psql",
    "mysql",
    "ffmpeg",
    "wasmtime",
    "wasm-tools",
    "swift",
    "ghc",
    "cabal",
    "stack",
    "elixir",
    "dotnet",
    "brew",
];

/// The short form, where it is that and nothing else: `python -v` and `bash -v` would run their input.
pub(super) const SHORT_VERSION: &[(&str, &str)] = &[
    ("node", "-v"),
    ("npm", "-v"),
    ("pnpm", "-v"),
    ("yarn", "-v"),
    ("php", "-v"),
    ("python", "-V"),
    ("python3", "-V"),
    ("pip", "-V"),
    ("pip3", "-V"),
    ("rustc", "-V"),
    ("rustup", "-V"),
    ("ssh", "-V"),
];

pub(super) const GROUP: Group = Group {
    harmless: &[],
    by_options: &[(
        &["dpkg-query"],
        "-lLsSWf -f: --list --listfiles --status --search --show --showformat= --version",
        Any,
    )],
    by_form: &[
        ("cargo", cargo),
        ("go", go),
        ("dpkg", dpkg),
        ("rpm", rpm),
        ("docker", docker),
        ("podman", docker),
        ("kubectl", kubectl),
    ],
    refused: &[],
};

fn texts(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

/// `metadata` and `tree` write the lock file unless it is locked, and download unless they are offline.
fn cargo(program: &str, arguments: &[Word], _: usize) -> Result<(), Refusal> {
    let words = options::exact(program, arguments)?;
    match texts(&words).as_slice() {
        ["--version" | "-V" | "version" | "--list"] => return Ok(()),
        ["metadata" | "tree" | "pkgid", ..] => {}
        _ => {
            return Err(options::form(
                program,
                "is only judged as `cargo --version`, `metadata`, `tree` and `pkgid`",
            ));
        }
    }
    let parsed = options::parse(
        program,
        "-adeiqvF -p? -i? -e: -f: --no-deps --format-version: --locked --offline --frozen --manifest-path: --package? --invert? --edges: --depth: \
         --duplicates --all-features --no-default-features --features: --target? --workspace --prefix: --charset: --format: --no-dedupe \
         --prune: --filter-platform: --quiet --verbose --color:",
        Order::Mixed,
        arguments,
    )?;
    if parsed.has(&["--frozen"]) || parsed.has(&["--locked"]) && parsed.has(&["--offline"]) {
        return Ok(());
    }
    Err(options::form(
        program,
        "may download and write the lock file: add --locked --offline",
    ))
}

fn go(program: &str, arguments: &[Word], _: usize) -> Result<(), Refusal> {
    let words = options::exact(program, arguments)?;
    match texts(&words).as_slice() {
        ["version"] => Ok(()),
        ["env", rest @ ..]
            if !rest
                .iter()
                .any(|word| word.starts_with('-') && *word != "-json") =>
        {
            Ok(())
        }
        _ => Err(options::form(
            program,
            "is only judged as `go version` and `go env`",
        )),
    }
}

fn dpkg(program: &str, arguments: &[Word], _: usize) -> Result<(), Refusal> {
    let parsed = options::parse(
        program,
        "-lLsSp --list --listfiles --status --search --print-avail --print-architecture --version",
        Order::Mixed,
        arguments,
    )?;
    if parsed.options.is_empty() {
        return Err(options::form(
            program,
            "is only judged with -l, -L, -s or -S",
        ));
    }
    Ok(())
}

fn rpm(program: &str, arguments: &[Word], _: usize) -> Result<(), Refusal> {
    let words = options::exact(program, arguments)?;
    let first = words.first().map_or("", String::as_str);
    let fine = first.starts_with("-q") && first.bytes().skip(1).all(|b| b"qailfpRcd".contains(&b));
    if first == "--version" || fine && !words.iter().skip(1).any(|word| word.starts_with('-')) {
        return Ok(());
    }
    Err(options::form(program, "is only judged as `rpm -q…`"))
}

/// What containers and images there are, and what they said.
fn docker(program: &str, arguments: &[Word], _: usize) -> Result<(), Refusal> {
    let words = options::exact(program, arguments)?;
    let count = match texts(&words).as_slice() {
        [
            "--version" | "-v" | "version" | "info" | "ps" | "images" | "inspect" | "logs" | "top"
            | "port" | "diff" | "history",
            ..,
        ] => 1,
        [
            "container",
            "ls" | "list" | "ps" | "inspect" | "logs" | "top" | "port" | "diff",
            ..,
        ]
        | ["image", "ls" | "list" | "inspect" | "history", ..]
        | ["network" | "volume", "ls" | "list" | "inspect", ..]
        | ["system", "df", ..] => 2,
        _ => {
            return Err(options::form(
                program,
                "is not known to only read in this form",
            ));
        }
    };
    let rest = arguments.get(count..).unwrap_or_default();
    options::parse(
        program,
        "-aqlsntv -f? -n: --all --quiet --latest --size --no-trunc --digests --timestamps --details --tail: --since: --until: --filter: --format: \
         --last: --type: --human --verbose --version",
        Order::Mixed,
        rest,
    )
    .map(drop)
}

/// What a cluster holds. `--kubeconfig` could name a program to log in with.
fn kubectl(program: &str, arguments: &[Word], _: usize) -> Result<(), Refusal> {
    let parsed = options::parse(
        program,
        "-Awp -n: -o: -l: -c: --all-namespaces --watch --namespace: --context: --output: --selector: --field-selector: --container: --tail: \
         --since: --since-time: --previous --timestamps --all-containers --no-headers --show-labels --sort-by: --show-kind --limit-bytes: \
         --recursive --api-group: --namespaced= --verbs: --client --short --show-events --label-columns: -L: --containers --ignore-not-found",
        Order::Mixed,
        arguments,
    )?;
    let words = options::exact(program, &parsed.operands)?;
    match texts(&words).as_slice() {
        [
            "get" | "describe" | "logs" | "explain" | "api-resources" | "api-versions" | "version"
            | "top",
            ..,
        ]
        | [
            "config",
            "view" | "get-contexts" | "current-context" | "get-clusters",
        ]
        | ["auth", "can-i", ..]
        | ["rollout", "status" | "history", ..] => Ok(()),
        _ => Err(options::form(
            program,
            "is not known to only read in this form",
        )),
    }
}
