//! Builds the shipped extensions and puts them, with their grants, into the binary; and the runner of scripts, which has none:
//! grants are a script's.
//!
//! `policy/shipped.toml` names them: every `digest = "@CRATE"` is a crate of `extensions/` to build. Each placeholder is
//! replaced by the SHA-256 of the bytes just built, so that the grants hold for exactly these bytes.
//!
//! The guests are another workspace with another target. They are built by a cargo of their own in a target directory
//! of their own: in that of the running cargo the two would wait for each other's lock for ever.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::{env, fs};

use sha2::{Digest as _, Sha256};

#[path = "build/embed.rs"]
mod embed;

const TARGET: &str = "wasm32-wasip2";
const GRANTS: &str = "policy/shipped.toml";
/// The component that runs scripts.
const RUNNER: &str = "script-runner";

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            println!("cargo::error={}", why.replace('\n', " "));
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    let here = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(variable("OUT_DIR")?);
    let extensions = here.join("../../extensions").canonicalize().map_err(|why| {
        format!("the extensions' sources are missing beside host/ ({why}): check out the whole repository")
    })?;
    watch(&here, &extensions)?;
    embed::write(&here, &out)?;

    let grants_file = here.join(GRANTS);
    let mut grants = read(&grants_file)?;
    let crates = placeholders(&grants);
    if crates.is_empty() {
        return Err(format!(
            "{GRANTS} names no extension: write digest = \"@CRATE\" in each section"
        ));
    }
    ensure_target()?;
    let target_dir = guests_target_dir(&out)?;
    let mut all = crates.clone();
    all.push(RUNNER.into());
    compile(&extensions, &target_dir, &all)?;
    let component = |name: &str| {
        let file = format!("{}.wasm", name.replace('-', "_"));
        let built = target_dir.join(TARGET).join("release").join(file);
        fs::read(&built).map_err(|why| {
            format!("{} was not built ({why}): is crate-type \"cdylib\" set in extensions/{name}/Cargo.toml?", built.display())
        })
    };

    let mut list = String::from("pub(crate) const SHIPPED: &[Shipped] = &[\n");
    for name in &crates {
        let bytes = component(name)?;
        let digest: String =
            Sha256::digest(&bytes)
                .iter()
                .fold(String::from("sha256:"), |mut text, byte| {
                    let _ = write!(text, "{byte:02x}");
                    text
                });
        grants = grants.replace(&format!("\"@{name}\""), &format!("\"{digest}\""));
        put(&out.join(format!("{name}.wasm")), &bytes)?;
        let _ = writeln!(
            list,
            "    Shipped {{ name: {name:?}, wasm: include_bytes!(concat!(env!(\"OUT_DIR\"), \"/{name}.wasm\")) }},"
        );
    }
    list.push_str("];\n");
    put(&out.join(format!("{RUNNER}.wasm")), &component(RUNNER)?)?;
    let _ = writeln!(
        list,
        "pub(crate) const SCRIPT_RUNNER: &[u8] = include_bytes!(concat!(env!(\"OUT_DIR\"), \"/{RUNNER}.wasm\"));"
    );
    put(&out.join("shipped.rs"), list.as_bytes())?;
    put(&out.join("shipped.toml"), grants.as_bytes())
}

fn variable(name: &str) -> Result<OsString, String> {
    env::var_os(name).ok_or_else(|| format!("{name} is not set: run this through cargo"))
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|why| format!("cannot read {}: {why}", path.display()))
}

/// Writes only what changed: rustc then has nothing to do for a guest that is the same.
fn put(path: &Path, bytes: &[u8]) -> Result<(), String> {
    if fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    fs::write(path, bytes).map_err(|why| format!("cannot write {}: {why}", path.display()))
}

/// Everything a guest is made from. The guests' own target directory is not: it changes with every build.
fn watch(here: &Path, extensions: &Path) -> Result<(), String> {
    let wit = here.join("../../wit");
    let own = ["build.rs", "build", "policy", "templates"].map(|name| here.join(name));
    let mut paths = Vec::from(own);
    paths.push(wit);
    let entries = fs::read_dir(extensions)
        .map_err(|why| format!("cannot list {}: {why}", extensions.display()))?;
    for entry in entries.flatten() {
        let name = entry.file_name();
        if name != "target" && name != "samples" {
            paths.push(entry.path());
        }
    }
    for path in paths {
        println!("cargo::rerun-if-changed={}", path.display());
    }
    println!("cargo::rerun-if-env-changed=PI_VERS_GUESTS_TARGET_DIR");
    Ok(())
}

/// The crates that `digest = "@CRATE"` names, in the order of the file.
fn placeholders(grants: &str) -> Vec<String> {
    let values = grants
        .lines()
        .filter_map(|line| line.trim().strip_prefix("digest"));
    let quoted = values.filter_map(|rest| rest.split('"').nth(1)?.strip_prefix('@'));
    quoted.map(str::to_owned).collect()
}

/// `<target>/guests` beside the host's profile directories: the next build finds it again.
fn guests_target_dir(out: &Path) -> Result<PathBuf, String> {
    if let Some(directory) =
        env::var_os("PI_VERS_GUESTS_TARGET_DIR").filter(|value| !value.is_empty())
    {
        return std::path::absolute(directory)
            .map_err(|why| format!("PI_VERS_GUESTS_TARGET_DIR is no path: {why}"));
    }
    // <target>/<profile>/build/<crate>-<hash>/out
    let target = out
        .ancestors()
        .nth(4)
        .ok_or("cargo's output directory is not where it used to be")?;
    Ok(target.join("guests"))
}

/// A command that knows nothing of the cargo that runs this script, but where crates come from.
fn clean(program: impl AsRef<std::ffi::OsStr>) -> Command {
    const KEPT: [&str; 7] = [
        "CARGO_HOME",
        "CARGO_NET_",
        "CARGO_HTTP_",
        "CARGO_REGISTR",
        "CARGO_SOURCE_",
        "CARGO_TERM_",
        "CARGO_BUILD_JOBS",
    ];
    const DROPPED: [&str; 16] = [
        "RUSTC",
        "RUSTDOC",
        "RUSTFLAGS",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTC_LINKER",
        "RUSTDOCFLAGS",
        "TARGET",
        "HOST",
        "PROFILE",
        "OPT_LEVEL",
        "DEBUG",
        "OUT_DIR",
        "NUM_JOBS",
        "MAKEFLAGS",
        "MFLAGS",
    ];
    let mut command = Command::new(program);
    for (name, _) in env::vars_os() {
        let Some(text) = name.to_str() else { continue };
        let foreign = text.starts_with("CARGO") && !KEPT.iter().any(|kept| text.starts_with(kept));
        if foreign
            || DROPPED.contains(&text)
            || text.starts_with("CLIPPY_")
            || text.starts_with("DEP_")
        {
            command.env_remove(&name);
        }
    }
    command
}

/// Installs the guests' target where rustup can; says how where it cannot.
fn ensure_target() -> Result<(), String> {
    if target_is_installed() {
        return Ok(());
    }
    let how = match env::var("RUSTUP_TOOLCHAIN") {
        Ok(toolchain) => format!("rustup target add {TARGET} --toolchain {toolchain}"),
        Err(_) => format!("rustup target add {TARGET}"),
    };
    let mut words = how.split(' ');
    let added = clean(words.next().unwrap_or_default()).args(words).output();
    match added {
        Ok(added) if added.status.success() && target_is_installed() => Ok(()),
        Ok(added) => {
            let said = String::from_utf8_lossy(&added.stderr);
            let last = said
                .lines()
                .rev()
                .find(|line| !line.trim().is_empty())
                .unwrap_or("rustup said nothing")
                .to_owned();
            Err(format!(
                "the extensions need Rust's target {TARGET}, and `{how}` failed ({}): run it, then build again",
                last.trim()
            ))
        }
        Err(_) => Err(format!(
            "the extensions need Rust's target {TARGET}: install it for this toolchain (with rustup: `{how}`), then build again"
        )),
    }
}

fn target_is_installed() -> bool {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let asked = clean(rustc)
        .args(["--print", "target-libdir", "--target", TARGET])
        .output();
    asked.is_ok_and(|answer| {
        answer.status.success()
            && Path::new(String::from_utf8_lossy(&answer.stdout).trim()).is_dir()
    })
}

fn compile(extensions: &Path, target_dir: &Path, crates: &[String]) -> Result<(), String> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = clean(cargo);
    command
        .current_dir(extensions)
        .args([
            "build",
            "--release",
            "--target",
            TARGET,
            "--color",
            "never",
            "--target-dir",
        ])
        .arg(target_dir);
    if extensions.join("Cargo.lock").is_file() {
        command.arg("--locked");
    }
    for name in crates {
        command.args(["-p", name]);
    }
    // The host's compiler, whatever toolchain file lies nearer to the guests.
    if let Some(toolchain) = env::var_os("RUSTUP_TOOLCHAIN") {
        command.env("RUSTUP_TOOLCHAIN", toolchain);
    }
    let built = command
        .output()
        .map_err(|why| format!("cannot run cargo for the extensions: {why}"))?;
    if built.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&built.stderr);
    // The whole of it, for who has to mend it; then the one line.
    let _ = std::io::stderr().write_all(&built.stderr);
    let error = said
        .lines()
        .find(|line| line.starts_with("error"))
        .unwrap_or("cargo said nothing");
    Err(format!(
        "the extensions do not build ({error}): run `cargo build --release -p {}` in extensions/ to see all of it",
        crates.join(" -p ")
    ))
}
