//! Local paths: which files of this machine are granted.
//!
//! Judged by their text alone, so that a decision touches nothing. That is half of the protection: links can lead
//! out of a granted directory, so whoever opens a file does it beneath [`crate::Grants::file_root`] with openat2-style
//! rules. `..` is refused rather than resolved, since what it means depends on links.
//!
//! Grants add up; there are no exceptions inside a grant, because a link inside a granted directory would reach
//! what the exception hides.

use std::path::{Component, Path, PathBuf};

/// Why a path is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It is empty.
    #[error("a path may not be empty")]
    Empty,
    /// It holds a NUL byte.
    #[error("a path may not contain a NUL byte")]
    Nul,
    /// It climbs.
    #[error("a path may not contain `..`: name the directory itself")]
    Parent,
    /// There is nothing to resolve it against, or a drive letter.
    #[error("the path does not start at a root directory")]
    NotAbsolute,
}

/// Makes a guest's path absolute: joins it to the working directory and drops `.` and doubled slashes. `~` has no meaning.
pub fn normalise(working_directory: &Path, path: &str) -> Result<PathBuf, PathError> {
    if path.is_empty() {
        return Err(PathError::Empty);
    }
    absolute(&working_directory.join(path))
}

/// The path without `.` and doubled slashes, if it is absolute and does not climb.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf, PathError> {
    if path.as_os_str().as_encoded_bytes().contains(&0) {
        return Err(PathError::Nul);
    }
    let mut parts = path.components();
    if parts.next() != Some(Component::RootDir) {
        return Err(PathError::NotAbsolute);
    }
    let mut out = PathBuf::from("/");
    for part in parts {
        match part {
            Component::Normal(name) => out.push(name),
            Component::CurDir => {}
            Component::ParentDir => return Err(PathError::Parent),
            Component::RootDir | Component::Prefix(_) => return Err(PathError::NotAbsolute),
        }
    }
    Ok(out)
}

/// A directory or file that a rule names: absolute, below the working directory (`.`, `out`) or below home (`~/x`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) source: String,
    /// Absent until the session's directories are known: then it matches nothing.
    resolved: Option<PathBuf>,
}

impl Place {
    pub(crate) fn parse(source: &str) -> Result<Self, PathError> {
        // Any root will do to find out what is wrong with the text.
        normalise(Path::new("/"), source)?;
        let fixed = Path::new(source)
            .is_absolute()
            .then(|| absolute(Path::new(source)))
            .transpose()?;
        Ok(Self {
            source: source.to_owned(),
            resolved: fixed,
        })
    }

    /// Fills in the directories of a session. Home may be unknown: places below it then match nothing.
    pub(crate) fn resolve(&mut self, working_directory: &Path, home: Option<&Path>) {
        let below_home = self
            .source
            .strip_prefix('~')
            .filter(|rest| rest.is_empty() || rest.starts_with('/'));
        self.resolved = match (below_home, home) {
            (Some(rest), Some(home)) => absolute(&home.join(rest.trim_start_matches('/'))).ok(),
            (Some(_), None) => None,
            (None, _) => normalise(working_directory, &self.source).ok(),
        };
    }

    /// The directory or file itself, if this path is it or below it.
    pub(crate) fn covers(&self, path: &Path) -> Option<&Path> {
        let root = self.resolved.as_deref()?;
        // Compared after normalising, so that a caller that forgot to cannot climb.
        absolute(path)
            .is_ok_and(|path| path.starts_with(root))
            .then_some(root)
    }

    /// Whether every path below `other` is below this, for any working directory.
    pub(crate) fn contains(&self, other: &Self) -> bool {
        let tree = |place: &Self| (place.source.starts_with('/'), place.source.starts_with('~'));
        let below = |place: &Self| normalise(Path::new("/"), &place.source).unwrap_or_default();
        tree(self) == tree(other) && below(other).starts_with(below(self))
    }
}
