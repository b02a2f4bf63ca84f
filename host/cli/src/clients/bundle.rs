//! `pi-vers mcp bundle`: this program as an MCPB bundle, which a client installs by a click, and its entry for the MCP registry.
//!
//! The same program gives the same bytes, so that anybody can check what a bundle was made of.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use pi_vers_host::visible;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::options::Bundle;
use super::zip::Zip;
use crate::failure::{Code, Failure};
use crate::local;
use crate::terminal::Terminal;

const VERSION: &str = env!("CARGO_PKG_VERSION");
const MANIFEST: &str = include_str!("../../clients/bundle/manifest.json");
const REGISTRY: &str = include_str!("../../clients/bundle/server.json");
const ICON: &[u8] = include_bytes!("../../clients/plugin/icon.png");
const LICENSES: [(&str, &str); 2] = [
    ("LICENSE-APACHE", include_str!("../../../../LICENSE-APACHE")),
    ("LICENSE-MIT", include_str!("../../../../LICENSE-MIT")),
];

/// Writes the bundle, and its entry if it is said where it will be.
pub(crate) fn bundle(terminal: &Terminal, options: &Bundle) -> Result<Code, Failure> {
    let program = local::program()?;
    let program = std::fs::read(&program)
        .map_err(|why| Failure::internal(format!("cannot read {}: {why}", shown(&program))))?;
    let bytes = packed(&program)?;
    let digest: String = Sha256::digest(&bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let output = options.output.clone().unwrap_or_else(|| {
        let (system, machine) = (std::env::consts::OS, std::env::consts::ARCH);
        PathBuf::from(format!("pi-vers-{VERSION}-{system}-{machine}.mcpb"))
    });
    put(&output, &bytes)?;
    terminal.line(format!(
        "wrote {} ({:.1} MB, sha256 {digest})",
        shown(&output),
        bytes.len() as f64 / 1e6
    ));
    if let Some(url) = &options.url {
        let entry = output.with_file_name("server.json");
        put(&entry, pretty(&registry(url, &digest)?).as_bytes())?;
        terminal.line(format!("wrote {}", shown(&entry)));
    }
    Ok(Code::Ok)
}

/// The bundle of this program.
fn packed(program: &[u8]) -> Result<Vec<u8>, Failure> {
    let make = || {
        let mut zip = Zip::default();
        zip.add("manifest.json", pretty(&manifest()?).as_bytes(), 0o644)?;
        zip.add("icon.png", ICON, 0o644)?;
        for (name, text) in LICENSES {
            zip.add(name, text.as_bytes(), 0o644)?;
        }
        zip.add("server/pi-vers", program, 0o755)?;
        Ok::<_, Box<dyn std::error::Error>>(zip.finish()?)
    };
    make().map_err(|why| Failure::internal(format!("cannot make a bundle: {why}")))
}

fn manifest() -> Result<Map<String, Value>, serde_json::Error> {
    let mut manifest: Map<String, Value> = serde_json::from_str(MANIFEST)?;
    manifest.insert("version".into(), VERSION.into());
    // As Node calls it.
    let system = match std::env::consts::OS {
        "macos" => "darwin",
        "windows" => "win32",
        other => other,
    };
    let compatibility = json!({ "platforms": [system] });
    manifest.insert("compatibility".into(), compatibility);
    Ok(manifest)
}

/// The entry for the registry of a bundle that is at this place.
fn registry(url: &str, digest: &str) -> Result<Map<String, Value>, Failure> {
    let entry = serde_json::from_str(REGISTRY);
    let mut entry: Map<String, Value> =
        entry.map_err(|why| Failure::internal(format!("server.json: {why}")))?;
    entry.insert("version".into(), VERSION.into());
    let package = json!({
        "registryType": "mcpb",
        "identifier": url,
        "version": VERSION,
        "fileSha256": digest,
        "transport": { "type": "stdio" },
        "environmentVariables": [{
            "name": "VERS_API_KEY",
            "description": "The key of the Vers account; not needed after `pi-vers login`",
            "isRequired": false,
            "isSecret": true,
        }],
    });
    entry.insert("packages".into(), json!([package]));
    Ok(entry)
}

fn pretty(object: &Map<String, Value>) -> String {
    let mut text = serde_json::to_string_pretty(object).unwrap_or_default();
    text.push('\n');
    text
}

fn shown(path: &Path) -> String {
    visible(&path.display().to_string())
}

/// Written beside itself and renamed: nobody finds half of it.
fn put(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let write = || -> std::io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(parent.unwrap_or(Path::new(".")))?;
        file.write_all(bytes)?;
        let mode = std::fs::Permissions::from_mode(0o644);
        file.as_file().set_permissions(mode)?;
        file.persist(path).map_err(|why| why.error).map(drop)
    };
    write().map_err(|why| {
        Failure::new(
            Code::Usage,
            "file",
            format!("cannot write {}: {why}", shown(path)),
        )
        .next("choose another place with --output")
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::super::entry;
    use super::super::options::{Client, HookKind};
    use super::*;

    #[test]
    fn the_same_program_gives_the_same_bundle() {
        let one = packed(b"program").unwrap();
        assert_eq!(one, packed(b"program").unwrap());
        assert_ne!(one, packed(b"another").unwrap());
    }

    #[test]
    fn the_manifest_hides_the_key_and_names_what_is_in_the_bundle() {
        let manifest = manifest().unwrap();
        assert_eq!(manifest["manifest_version"], "0.4");
        assert_eq!(manifest["version"], VERSION);
        assert_eq!(manifest["user_config"]["api_key"]["sensitive"], true);
        assert_eq!(manifest["server"]["entry_point"], "server/pi-vers");
        let environment = &manifest["server"]["mcp_config"]["env"];
        assert_eq!(
            environment,
            &json!({ "VERS_API_KEY": "${user_config.api_key}" })
        );
    }

    /// What the schema of 2025-12-11 asks of a server and of an MCPB package.
    #[test]
    fn the_entry_for_the_registry_has_what_its_schema_asks_for() {
        let digest = "0".repeat(64);
        let entry = registry("https://example.com/p.mcpb", &digest).unwrap();
        let text = |name: &str| entry[name].as_str().unwrap().to_owned();
        assert!(text("$schema").ends_with("/2025-12-11/server.schema.json"));
        let (space, name) = text("name")
            .split_once('/')
            .map(|(a, b)| (a.to_owned(), b.to_owned()))
            .unwrap();
        let fits = |part: &str| {
            part.bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        };
        assert!(fits(&space) && fits(&name));
        assert!((1..=100).contains(&text("description").chars().count()));
        assert!((1..=100).contains(&text("title").chars().count()));
        assert_eq!(text("version"), VERSION);
        assert_eq!(entry["repository"]["source"], "github");
        let package = &entry["packages"][0];
        assert_eq!(package["registryType"], "mcpb");
        // The registry wants the word in the address of an MCPB package.
        assert!(package["identifier"].as_str().unwrap().contains("mcpb"));
        assert_eq!(package["fileSha256"], digest.as_str());
        assert_eq!(package["transport"], json!({ "type": "stdio" }));
        assert_eq!(package["environmentVariables"][0]["isSecret"], true);
    }

    #[test]
    fn the_plugin_and_the_setup_agree() {
        let read = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        let plugin = read(include_str!(
            "../../clients/plugin/.claude-plugin/plugin.json"
        ));
        assert_eq!(
            plugin["version"], VERSION,
            "the plugin goes with the program"
        );
        assert!(plugin["mcpServers"]["vers"]["args"] == json!(["mcp"]));
        let hooks = read(include_str!("../../clients/plugin/hooks/hooks.json"));
        let name = format!("plugin:{}:vers", plugin["name"].as_str().unwrap());
        let hook = entry::hook(Client::Claude, HookKind::Tool, &name, "");
        let group = entry::group(Client::Claude, &hook.unwrap());
        assert_eq!(hooks["hooks"]["PreToolUse"], json!([group]));
        let skill = include_str!("../../clients/plugin/skills/vers/SKILL.md");
        let front = skill
            .strip_prefix("---\nname: vers\ndescription: ")
            .unwrap();
        let description = front.lines().next().unwrap();
        assert!(description.len() <= 1024 && skill.len() < 8 << 10);
        assert!(ICON.starts_with(b"\x89PNG"));
        let side = |at: usize| u32::from_be_bytes(ICON[at..at + 4].try_into().unwrap());
        assert_eq!(side(16), side(20), "square");
    }
}
