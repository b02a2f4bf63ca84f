//! Reading and writing a file that belongs to another program, which may be running.
//!
//! It is written beside itself and renamed, so that nobody ever reads half of it, with the permissions and the owner it had; a link stays one. If it changed
//! since it was read, it is not written. As it was, it stays beside it under another name.

use std::fs::{File, Permissions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use pi_vers_host::visible;

use crate::failure::{Code, Failure};

/// Larger ones are no configuration.
const LARGEST: u64 = 64 << 20;
/// Ends the name of the file as it was.
const BACKUP: &str = ".before-pi-vers";

/// A file as it was read.
#[derive(Debug)]
pub(crate) struct Kept {
    /// As the user knows it.
    pub(crate) path: PathBuf,
    /// Where a link leads.
    real: PathBuf,
    /// None: it is not there.
    pub(crate) text: Option<String>,
}

/// What a change of the file left.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) backup: Option<PathBuf>,
}

fn failed(what: &str, path: &Path, why: &dyn std::fmt::Display) -> Failure {
    let path = visible(&path.display().to_string());
    Failure::new(Code::Usage, "file", format!("cannot {what} {path}: {why}"))
}

impl Kept {
    /// Reads the file, if it is there.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let real = match std::fs::canonicalize(path) {
            Ok(real) => real,
            Err(why) if why.kind() == ErrorKind::NotFound => {
                if path.is_symlink() {
                    return Err(failed("read", path, &"it is a link to nowhere")
                        .next("remove the link, or make what it leads to"));
                }
                return Ok(Self {
                    path: path.to_owned(),
                    real: path.to_owned(),
                    text: None,
                });
            }
            Err(why) => return Err(failed("read", path, &why).next("check the path")),
        };
        let text = contents(&real).map_err(|why| failed("read", path, &why))?;
        Ok(Self {
            path: path.to_owned(),
            real,
            text: Some(text),
        })
    }

    /// Writes the file anew, with a copy of what it was beside it. Nothing to hold any more: it is removed.
    pub(crate) fn write(&self, text: Option<&str>, private: bool) -> Result<Written, Failure> {
        let now = match contents(&self.real) {
            Ok(now) => Some(now),
            Err(why) if why.kind() == ErrorKind::NotFound => None,
            Err(why) => return Err(failed("read", &self.path, &why)),
        };
        if now != self.text {
            return Err(
                failed("change", &self.path, &"somebody else just changed it")
                    .next("run this again"),
            );
        }
        let backup = match &self.text {
            Some(old) => {
                let mut name = self.real.clone().into_os_string();
                name.push(BACKUP);
                let backup = PathBuf::from(name);
                self.put(&backup, old, private)?;
                Some(backup)
            }
            None => None,
        };
        match text {
            Some(text) => self.put(&self.real, text, private)?,
            None => {
                std::fs::remove_file(&self.real)
                    .map_err(|why| failed("remove", &self.path, &why))?;
            }
        }
        Ok(Written { backup })
    }

    /// Writes a file of our own anew: without a copy of what it was.
    pub(crate) fn write_plainly(&self, text: &str) -> Result<(), Failure> {
        let now = match contents(&self.real) {
            Ok(now) => Some(now),
            Err(why) if why.kind() == ErrorKind::NotFound => None,
            Err(why) => return Err(failed("read", &self.path, &why)),
        };
        if now != self.text {
            return Err(
                failed("change", &self.path, &"somebody else just changed it")
                    .next("run this again"),
            );
        }
        self.put(&self.real, text, false)
    }

    fn put(&self, path: &Path, text: &str, private: bool) -> Result<(), Failure> {
        let directory = path.parent().unwrap_or(Path::new("."));
        let put = || -> std::io::Result<()> {
            std::fs::create_dir_all(directory)?;
            let old = std::fs::metadata(&self.real).ok();
            let mode = match &old {
                Some(old) => old.permissions().mode() & 0o7777,
                None if private => 0o600,
                None => 0o644,
            };
            // Made for its owner alone, then given the permissions it shall have.
            let mut file = tempfile::Builder::new()
                .prefix(".pi-vers-")
                .tempfile_in(directory)?;
            file.write_all(text.as_bytes())?;
            if let Some(old) = &old {
                let own = file.as_file().metadata()?;
                if (own.uid(), own.gid()) != (old.uid(), old.gid()) {
                    std::os::unix::fs::fchown(file.as_file(), Some(old.uid()), Some(old.gid()))?;
                }
            }
            file.as_file()
                .set_permissions(Permissions::from_mode(mode))?;
            file.as_file().sync_all()?;
            file.persist(path).map_err(|why| why.error)?;
            // The rename, too, outlives a crash. Not every file system can be asked for that.
            let _ = File::open(directory).and_then(|directory| directory.sync_all());
            Ok(())
        };
        put().map_err(|why| {
            failed("write", path, &why)
                .next("make its directory yours and writable; nothing of it was changed")
        })
    }
}

fn contents(path: &Path) -> std::io::Result<String> {
    // A pipe or a device would never end.
    let metadata = std::fs::metadata(path)?;
    let other = |what: &str| std::io::Error::new(ErrorKind::InvalidData, what.to_owned());
    if !metadata.is_file() {
        return Err(other("it is no file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?
        .take(LARGEST + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        return Err(other("it is too large for a configuration"));
    }
    String::from_utf8(bytes).map_err(|_| other("it is no text in UTF-8"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn permissions_stay_and_what_it_was_stays_beside_it() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("f.json");
        std::fs::write(&path, "old").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let written = Kept::read(&path).unwrap().write(Some("new"), true).unwrap();
        let backup = written.backup.unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(std::fs::read_to_string(&backup).unwrap(), "old");
        assert_eq!((mode(&path), mode(&backup)), (0o640, 0o640));
        let names = std::fs::read_dir(root.path()).unwrap().count();
        assert_eq!(names, 2, "nothing else is left");
    }

    #[test]
    fn a_new_file_is_private_where_it_is_the_user_s_alone() {
        let root = tempfile::tempdir().unwrap();
        for (name, private, expected) in [("a/b/user", true, 0o600), ("project", false, 0o644)] {
            let path = root.path().join(name);
            let written = Kept::read(&path)
                .unwrap()
                .write(Some("x"), private)
                .unwrap();
            assert!(written.backup.is_none());
            assert_eq!(mode(&path), expected);
        }
    }

    #[test]
    fn a_link_stays_a_link() {
        let root = tempfile::tempdir().unwrap();
        let (real, link) = (root.path().join("dotfiles"), root.path().join("link"));
        std::fs::write(&real, "old").unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        Kept::read(&link).unwrap().write(Some("new"), true).unwrap();
        assert!(link.is_symlink());
        assert_eq!(std::fs::read_to_string(&real).unwrap(), "new");
        std::fs::remove_file(&real).unwrap();
        assert!(
            Kept::read(&link)
                .unwrap_err()
                .line()
                .contains("link to nowhere")
        );
    }

    /// Regression: a client that wrote its file between our reading and writing lost what it wrote.
    #[test]
    fn what_changed_meanwhile_is_not_overwritten() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("f");
        std::fs::write(&path, "old").unwrap();
        let kept = Kept::read(&path).unwrap();
        std::fs::write(&path, "theirs").unwrap();
        let why = kept.write(Some("ours"), true).unwrap_err();
        assert!(why.line().contains("run this again"), "{}", why.line());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "theirs");
    }

    #[test]
    fn what_is_no_text_file_is_told() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("f");
        std::fs::write(&path, b"\xff").unwrap();
        assert!(Kept::read(&path).unwrap_err().line().contains("UTF-8"));
        assert!(
            Kept::read(root.path())
                .unwrap_err()
                .line()
                .contains("no file")
        );
    }
}
