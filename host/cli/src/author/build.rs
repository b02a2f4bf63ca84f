//! `pi-vers build`: runs the project's toolchain and says what came of it.
//!
//! The command of `pi-vers.toml` is an argument vector that runs with the author's own rights and environment, as `make` or `npm run` would:
//! whoever builds a project trusts it. The component is then copied to `build/NAME.wasm`, so that it has one place whatever language
//! and target directory it came from.

use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use pi_vers_host::policy::Policy;
use pi_vers_host::{Extension, visible};
use serde_json::{Value, json};

use super::manifest::{self, Manifest};
use crate::failure::{Code, Failure};
use crate::terminal::{Style, Terminal};
use crate::{inspect, setup};

/// What a toolchain is called, and where it comes from.
const FROM: [(&str, &str); 9] = [
    ("cargo", "install Rust: https://rustup.rs"),
    ("rustc", "install Rust: https://rustup.rs"),
    ("npm", "install Node.js: https://nodejs.org"),
    ("npx", "install Node.js: https://nodejs.org"),
    ("node", "install Node.js: https://nodejs.org"),
    ("python3", "install Python 3"),
    ("uv", "install uv, or put another tool into pi-vers.toml"),
    ("go", "install Go: https://go.dev/dl"),
    ("zig", "install Zig: https://ziglang.org/download"),
];

/// Builds a project and shows what it made.
pub(crate) async fn build(terminal: Arc<Terminal>, options: super::Build) -> Result<Code, Failure> {
    let directory = options.project.unwrap_or_else(|| PathBuf::from("."));
    let manifest = Manifest::read(&directory)?;
    let built = component(&terminal, &manifest).await?;
    let extension = load(&manifest, &built).await?;
    if options.json {
        terminal.line(json_of(&manifest, &built, &extension).to_string());
    } else {
        print(&terminal, &built, &extension);
    }
    Ok(Code::Ok)
}

/// Builds the component and puts it into its place.
pub(super) async fn component(
    terminal: &Arc<Terminal>,
    manifest: &Manifest,
) -> Result<PathBuf, Failure> {
    let Some(build) = manifest.build.clone() else {
        if manifest.extension.is_some() {
            return Ok(place_of(manifest));
        }
        return Err(Failure::new(
            Code::Usage,
            "manifest",
            format!("{} has no [build] in pi-vers.toml", manifest.name),
        )
        .next("write command = [\"…\"] and output = \"…\" there"));
    };
    terminal.remark(format!("pi-vers: {}", visible(&build.command.join(" "))));
    let project = manifest.clone();
    let made = tokio::task::spawn_blocking(move || run(&build, &project.directory))
        .await
        .map_err(|why| Failure::internal(format!("the build ended: {why}")))??;
    place(manifest, &made)
}

/// Where the component of a project is put.
pub(super) fn place_of(manifest: &Manifest) -> PathBuf {
    if let Some(extension) = &manifest.extension {
        return manifest.directory.join(extension);
    }
    manifest
        .directory
        .join("build")
        .join(format!("{}.wasm", manifest.name))
}

fn place(manifest: &Manifest, made: &Path) -> Result<PathBuf, Failure> {
    let to = place_of(manifest);
    let failed = |why: &dyn std::fmt::Display| {
        Failure::new(
            Code::Usage,
            "build",
            format!(
                "{} cannot be put to {}: {why}",
                made.display(),
                to.display()
            ),
        )
    };
    let bytes = std::fs::read(made).map_err(|why| {
        Failure::new(
            Code::Usage,
            "build",
            format!(
                "the build ended well and left no {} ({why})",
                made.display()
            ),
        )
        .next("name what it makes as build.output in pi-vers.toml")
    })?;
    let directory = to.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(directory).map_err(|why| failed(&why))?;
    let mut file = tempfile::Builder::new()
        .prefix(".component-")
        .tempfile_in(directory)
        .map_err(|why| failed(&why))?;
    file.write_all(&bytes).map_err(|why| failed(&why))?;
    file.persist(&to).map_err(|why| failed(&why.error))?;
    Ok(to)
}

fn run(build: &manifest::Command, directory: &Path) -> Result<PathBuf, Failure> {
    let (program, arguments) = build
        .command
        .split_first()
        .ok_or_else(|| Failure::internal("an empty command"))?;
    if build.is_cargo() {
        target_is_there(&build.command, directory)?;
    }
    let mut command = Command::new(program);
    command
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::null());
    if build.is_cargo() {
        command.arg("--message-format=json-render-diagnostics");
        command.stdout(Stdio::piped());
    } else {
        // Results alone go to standard output, and what a toolchain says is none.
        let errors = std::io::stderr().as_fd().try_clone_to_owned();
        command.stdout(errors.map_or_else(|_| Stdio::null(), Stdio::from));
    }
    let child = command.spawn().map_err(|why| missing(program, &why))?;
    let output = child
        .wait_with_output()
        .map_err(|why| Failure::internal(format!("{program}: {why}")))?;
    if !output.status.success() {
        return Err(Failure::new(
            Code::Tool,
            "build",
            format!(
                "the build failed: {} ended with {}",
                visible(program),
                output.status
            ),
        )
        .next("what it said is above"));
    }
    match &build.output {
        Some(path) => Ok(directory.join(path)),
        None => made(&output.stdout, directory),
    }
}

fn missing(program: &str, why: &std::io::Error) -> Failure {
    let shown = visible(program);
    if why.kind() != std::io::ErrorKind::NotFound {
        return Failure::new(
            Code::Usage,
            "toolchain",
            format!("{shown} cannot be started: {why}"),
        );
    }
    let from = FROM.iter().find(|(known, _)| *known == program);
    Failure::new(
        Code::Usage,
        "toolchain",
        format!("the build needs {shown}, which is not there"),
    )
    .next(from.map_or("install it, or put it into the PATH", |(_, from)| from))
}

/// Whether the compiler has the target that cargo shall build for; cargo's own words for that are a page.
fn target_is_there(command: &[String], directory: &Path) -> Result<(), Failure> {
    let named = command.iter().position(|word| word == "--target");
    let Some(target) = named.and_then(|at| command.get(at + 1)) else {
        return Ok(());
    };
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let asked = Command::new(rustc)
        .args(["--print", "target-libdir", "--target"])
        .arg(target)
        .current_dir(directory)
        .stdin(Stdio::null())
        .output();
    let answer = match asked {
        Ok(answer) => answer,
        Err(why) => return Err(missing("rustc", &why)),
    };
    let library = String::from_utf8_lossy(&answer.stdout);
    if answer.status.success() && Path::new(library.trim()).is_dir() {
        return Ok(());
    }
    Err(Failure::new(
        Code::Usage,
        "toolchain",
        format!("Rust has no target {} here", visible(target)),
    )
    .next(format!("rustup target add {}", visible(target))))
}

/// The component that cargo made for the package in this directory.
fn made(messages: &[u8], directory: &Path) -> Result<PathBuf, Failure> {
    let manifest = directory.join("Cargo.toml").canonicalize().ok();
    let artifacts = messages
        .split(|byte| *byte == b'\n')
        .filter_map(|line| serde_json::from_slice::<Value>(line).ok())
        .filter(|message| message.get("reason") == Some(&json!("compiler-artifact")));
    let mut own = artifacts.filter(|message| {
        let of = message.get("manifest_path").and_then(Value::as_str);
        of.and_then(|of| Path::new(of).canonicalize().ok()) == manifest
    });
    let component = own.find_map(|message| {
        let files = message.get("filenames")?.as_array()?;
        let mut files = files.iter().filter_map(Value::as_str);
        files
            .find(|file| file.ends_with(".wasm"))
            .map(PathBuf::from)
    });
    component.ok_or_else(|| {
        Failure::new(
            Code::Usage,
            "build",
            "cargo made no component of this package",
        )
        .next("set crate-type = [\"cdylib\"] in [lib] of Cargo.toml")
    })
}

/// The component, looked at as a host would.
pub(super) async fn load(manifest: &Manifest, component: &Path) -> Result<Extension, Failure> {
    let host = setup::host(Policy::empty(), setup::settings()?).await?;
    let extension = host.load_file(component).await?;
    if extension.name() != manifest.name {
        return Err(Failure::new(
            Code::Extension,
            "description",
            format!(
                "the component calls itself {}, and the project is {}",
                visible(extension.name()),
                manifest.name
            ),
        )
        .next("give both the same name"));
    }
    Ok(extension)
}

fn print(terminal: &Terminal, built: &Path, extension: &Extension) {
    let (info, anatomy) = (extension.info(), extension.anatomy());
    let name = format!("{} {}", visible(&info.name), visible(&info.version));
    terminal.line(terminal.styled(Style::Bold, &name));
    terminal.line(format!("built   {}", built.display()));
    terminal.line(format!("size    {} KiB", anatomy.size.div_ceil(1024)));
    terminal.line(format!("digest  {}", extension.digest()));
    let tools: Vec<String> = info.tools.iter().map(|tool| visible(&tool.name)).collect();
    if !tools.is_empty() {
        terminal.line(format!("tools   {}", tools.join(", ")));
    }
    terminal.line("imports");
    for line in inspect::import_lines(extension) {
        terminal.line(format!("  {line}"));
    }
}

fn json_of(manifest: &Manifest, built: &Path, extension: &Extension) -> Value {
    let anatomy = extension.anatomy();
    json!({
        "name": manifest.name,
        "version": extension.info().version,
        "component": std::path::absolute(built).unwrap_or_else(|_| built.to_owned()),
        "size": anatomy.size,
        "digest": extension.digest().to_string(),
        "imports": anatomy.imports,
        "exports": anatomy.exports,
        "tools": extension.info().tools.iter().map(|tool| tool.name.as_str()).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_component_of_the_package_itself_is_found_among_cargos_messages() {
        let root = tempfile::tempdir().unwrap();
        let own = root.path().canonicalize().unwrap().join("Cargo.toml");
        std::fs::write(&own, "").unwrap();
        let line = |manifest: &Path, file: &str| {
            json!({ "reason": "compiler-artifact", "manifest_path": manifest, "filenames": [file] })
                .to_string()
        };
        let text = [
            line(Path::new("/other/Cargo.toml"), "/t/other.wasm"),
            "no json".into(),
            line(&own, "/t/libx.rlib"),
            line(&own, "/t/x.wasm"),
        ]
        .join("\n");
        assert_eq!(
            made(text.as_bytes(), root.path()).unwrap(),
            Path::new("/t/x.wasm")
        );
        assert!(made(b"", root.path()).is_err());
    }

    #[test]
    fn a_missing_toolchain_is_named_with_where_it_comes_from() {
        let build = manifest::Command {
            command: vec!["no-such-compiler-anywhere".into()],
            output: Some("x.wasm".into()),
        };
        let line = run(&build, Path::new(".")).unwrap_err().line();
        assert!(
            line.contains("no-such-compiler-anywhere") && line.contains("PATH"),
            "{line}"
        );
        let gone = std::io::Error::from(std::io::ErrorKind::NotFound);
        assert!(missing("go", &gone).line().contains("go.dev"));
    }
}
