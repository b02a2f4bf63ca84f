//! `pi-vers new`: a project that builds and passes its tests at once.
//!
//! It is made beside its place and renamed into it: there is the whole of it or nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;

use super::New;
use super::name::Name;
use super::templates;
use crate::failure::{Code, Failure};
use crate::terminal::Terminal;

/// Makes a project.
pub(crate) fn new(terminal: &Arc<Terminal>, options: &New) -> Result<Code, Failure> {
    let name = Name::new(&options.name)?;
    let files = templates::files(&options.lang, &name)?;
    let given = options
        .directory
        .clone()
        .unwrap_or_else(|| PathBuf::from(name.as_str()));
    let place = std::path::absolute(&given)
        .map_err(|why| Failure::usage(format!("{} is no directory: {why}", given.display())))?;
    write(&place, &files)?;
    if options.json {
        let paths: Vec<&str> = files.iter().map(|(path, _)| path.as_str()).collect();
        let json = json!({ "name": name.as_str(), "language": options.lang, "directory": place, "files": paths });
        terminal.line(json.to_string());
        return Ok(Code::Ok);
    }
    terminal.line(format!(
        "{} is a new project in {}",
        given.display(),
        options.lang
    ));
    for (path, _) in files {
        // What came along is read and not written.
        if !path.starts_with("vendor/") && !path.starts_with("wit/") {
            terminal.remark(format!("  {path}"));
        }
    }
    terminal.remark(format!("next: cd {} && pi-vers test", given.display()));
    Ok(Code::Ok)
}

fn write(place: &Path, files: &[templates::File]) -> Result<(), Failure> {
    let failed = |why: &dyn std::fmt::Display| {
        Failure::usage(format!("cannot make {}: {why}", place.display()))
    };
    if std::fs::symlink_metadata(place).is_ok() {
        // One that is empty is replaced by the rename below.
        let empty = std::fs::read_dir(place).is_ok_and(|mut entries| entries.next().is_none());
        let link = std::fs::symlink_metadata(place).is_ok_and(|data| data.is_symlink());
        if !empty || link {
            return Err(failed(&"something is there already").next("choose another --directory"));
        }
    }
    let parent = place.parent().ok_or_else(|| failed(&"it has no parent"))?;
    let whole = tempfile::Builder::new()
        .prefix(".pi-vers-new-")
        .tempdir_in(parent)
        .map_err(|why| failed(&why))?;
    for (path, text) in files {
        let path = whole.path().join(path);
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory).map_err(|why| failed(&why))?;
        }
        std::fs::write(&path, text).map_err(|why| failed(&why))?;
    }
    // A temporary directory is for its owner alone; a project is as open as its owner's others.
    let mode = std::fs::metadata(whole.path().join("pi-vers.toml"))
        .map_err(|why| failed(&why))?
        .permissions();
    open(whole.path(), &mode).map_err(|why| failed(&why))?;
    std::fs::rename(whole.path(), place).map_err(|why| failed(&why))?;
    // It is not there any more.
    let _ = whole.keep();
    Ok(())
}

/// Lets into the directory whoever may read its files.
fn open(directory: &Path, files: &std::fs::Permissions) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let read = files.mode() & 0o444;
    let mode = 0o700 | read | (read >> 2);
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_project_is_there_as_a_whole_and_replaces_nothing() {
        let root = tempfile::tempdir().unwrap();
        let files = vec![
            ("pi-vers.toml".to_owned(), "a".to_owned()),
            ("src/x".to_owned(), "b".to_owned()),
        ];
        let place = root.path().join("x");
        write(&place, &files).unwrap();
        assert_eq!(std::fs::read_to_string(place.join("src/x")).unwrap(), "b");
        let mode = std::fs::metadata(&place).unwrap().permissions().mode();
        assert_ne!(mode & 0o777, 0, "{mode:o}");
        assert!(write(&place, &files).is_err());
        let empty = root.path().join("empty");
        std::fs::create_dir(&empty).unwrap();
        write(&empty, &files).unwrap();
        // Nothing is left of what was made on the way.
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 2);
    }
}
