//! What is left out by name, as in `.gitignore`.
//!
//! Patterns are judged on this side, whichever side the source is on; they never reach a shell.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::error::{Error, Result, shown};

/// Patterns beyond this are refused.
const MOST: usize = 10_000;

pub(super) struct Exclude(Option<Gitignore>);

impl Exclude {
    /// # Errors
    /// [`Kind::Invalid`](crate::Kind) names the pattern that cannot be understood.
    pub(super) fn new(patterns: &[String]) -> Result<Self> {
        if patterns.is_empty() {
            return Ok(Self(None));
        }
        if patterns.len() > MOST {
            return Err(Error::new(
                crate::Kind::Limit,
                format!("copy: more than {MOST} patterns of what to leave out"),
            ));
        }
        let mut builder = GitignoreBuilder::new("");
        for pattern in patterns {
            let invalid = |why: &dyn std::fmt::Display| {
                Error::invalid(format!(
                    "copy: the pattern {:?} of what to leave out: {}",
                    shown(pattern),
                    shown(&why.to_string())
                ))
            };
            if pattern.contains(['\n', '\0']) {
                return Err(invalid(&"it is more than one line"));
            }
            builder
                .add_line(None, pattern)
                .map_err(|error| invalid(&error))?;
        }
        let built = builder.build().map_err(|error| {
            Error::invalid(format!(
                "copy: the patterns of what to leave out: {}",
                shown(&error.to_string())
            ))
        })?;
        Ok(Self(Some(built)))
    }

    /// Whether this very entry is left out. What lies in a directory that is left out, is too; whoever walks down
    /// asks for the directory first.
    pub(super) fn matches(&self, path: &[u8], directory: bool) -> bool {
        let Some(patterns) = &self.0 else {
            return false;
        };
        !path.is_empty()
            && patterns
                .matched(Path::new(OsStr::from_bytes(path)), directory)
                .is_ignore()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    #[test]
    fn patterns_mean_what_they_mean_in_gitignore() {
        let patterns = [
            "*.o",
            "!keep.o",
            "/top",
            "deep/inner",
            "only/",
            "a/**/z",
            "# no",
            "\\#yes",
        ];
        let exclude = Exclude::new(&patterns.map(str::to_owned)).unwrap();
        for (path, directory, out) in [
            ("x.o", false, true),
            ("sub/x.o", false, true),
            ("sub/keep.o", false, false),
            ("top", false, true),
            ("sub/top", false, false),
            ("deep/inner", true, true),
            ("x/deep/inner", true, false),
            ("only", true, true),
            ("only", false, false),
            ("a/b/c/z", false, true),
            ("no", false, false),
            ("#yes", false, true),
            ("", true, false),
        ] {
            assert_eq!(exclude.matches(path.as_bytes(), directory), out, "{path}");
        }
        let bytes = Exclude::new(&["*.o".to_owned()]).unwrap();
        assert!(bytes.matches(b"\xff\xfe.o", false));
        assert!(Exclude::new(&["a\nb".to_owned()]).is_err());
    }
}
