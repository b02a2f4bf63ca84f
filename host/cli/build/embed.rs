//! Text that `pi-vers new` writes: templates, the contract and the SDK's sources, inside the binary so that a project needs nothing but a
//! toolchain.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::{put, read};

/// What a project can be given: the name in the binary, and where it is.
const PARTS: [(&str, &str); 5] = [
    ("templates", "templates"),
    ("wit", "../../wit"),
    ("sdk/Cargo.toml", "../../extensions/sdk/Cargo.toml"),
    ("sdk/src", "../../extensions/sdk/src"),
    ("extensions", "../../extensions"),
];
/// Of the extensions' workspace: what a package of it inherits, and the versions it was tested with.
const WORKSPACE: [&str; 2] = ["Cargo.toml", "Cargo.lock"];

/// Writes `embedded.rs` with a list of names and texts, sorted.
pub(super) fn write(here: &Path, out: &Path) -> Result<(), String> {
    let mut found: Vec<(String, PathBuf)> = Vec::new();
    for (name, path) in PARTS {
        let path = here.join(path);
        if name == "extensions" {
            for file in WORKSPACE {
                found.push((format!("{name}/{file}"), path.join(file)));
            }
        } else {
            walk(name, &path, &mut found)?;
        }
    }
    found.sort();
    let mut list = String::from("pub(crate) const EMBEDDED: &[(&str, &str)] = &[\n");
    for (name, path) in found {
        // What is no text is told here and not by whoever writes a project.
        read(&path)?;
        let path = path
            .canonicalize()
            .map_err(|why| format!("cannot find {}: {why}", path.display()))?;
        let _ = writeln!(
            list,
            "    ({name:?}, include_str!({:?})),",
            path.display().to_string()
        );
    }
    list.push_str("];\n");
    put(&out.join("embedded.rs"), list.as_bytes())
}

fn walk(name: &str, path: &Path, found: &mut Vec<(String, PathBuf)>) -> Result<(), String> {
    if path.is_file() {
        found.push((name.to_owned(), path.to_owned()));
        return Ok(());
    }
    let entries =
        std::fs::read_dir(path).map_err(|why| format!("cannot list {}: {why}", path.display()))?;
    for entry in entries {
        let entry = entry.map_err(|why| format!("cannot list {}: {why}", path.display()))?;
        let file = entry.file_name();
        let file = file
            .to_str()
            .ok_or_else(|| format!("{} is no UTF-8", entry.path().display()))?;
        walk(&format!("{name}/{file}"), &entry.path(), found)?;
    }
    Ok(())
}
