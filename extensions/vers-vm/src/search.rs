//! Searching on a VM: argument vectors for the programs, and what they print.
//!
//! `rg` where it is installed: it knows `.gitignore`, and its expressions are those of pi's own `grep`. Otherwise `grep`, first with
//! Perl expressions, which are close to that, then with extended ones. All print `path NUL number : text`, so a file name can
//! hold anything but NUL. Patterns and paths stand behind `--` (or, for `find`, can't begin with `-`), and no shell is involved.

use pi_vers_sdk::declare::{JsonSchema, schemars};
use serde::Deserialize;

use crate::limits::{MAX_BYTES, MAX_MATCH, size};
use crate::paths::argument;

/// Parameters of `grep`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Query {
    /// Search pattern (regex or literal string)
    pub pattern: String,
    /// Directory or file to search (default: current directory)
    pub path: Option<String>,
    /// Filter files by glob pattern, e.g. '*.ts' or '**/*.spec.ts'
    pub glob: Option<String>,
    /// Case-insensitive search (default: false)
    pub ignore_case: Option<bool>,
    /// Treat pattern as literal string instead of regex (default: false)
    pub literal: Option<bool>,
    /// Number of lines to show before and after each match (default: 0)
    pub context: Option<u64>,
    /// Maximum number of matches to return (default: 100)
    #[schemars(range(min = 1))]
    pub limit: Option<u64>,
}

/// Which program searches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
pub enum Dialect {
    /// ripgrep
    Ripgrep,
    /// `grep -P`
    Perl,
    /// `grep -E`
    Extended,
}

impl Dialect {
    /// What to try where this is not installed.
    #[must_use]
    pub fn next(self) -> Option<Self> {
        match self {
            Self::Ripgrep => Some(Self::Perl),
            Self::Perl => Some(Self::Extended),
            Self::Extended => None,
        }
    }
}

/// The argument vector that searches the contents of files below `path`.
#[must_use]
pub fn grep(dialect: Dialect, query: &Query, path: &str) -> Vec<String> {
    let mut argv: Vec<String> = Vec::new();
    let mut add = |args: &[&str]| argv.extend(args.iter().map(|&arg| arg.to_owned()));
    if dialect == Dialect::Ripgrep {
        add(&[
            "rg",
            "--no-config",
            "--null",
            "--line-number",
            "--with-filename",
            "--no-heading",
            "--color=never",
        ]);
        add(&["--hidden", "--sort=path"]);
    } else {
        add(&["grep", "-rnHIZ", "--color=never", "--exclude-dir=.git"]);
        add(&[match dialect {
            _ if query.literal == Some(true) => "-F",
            Dialect::Perl => "-P",
            _ => "-E",
        }]);
    }
    if query.ignore_case == Some(true) {
        add(&["-i"]);
    }
    if query.literal == Some(true) && dialect == Dialect::Ripgrep {
        add(&["--fixed-strings"]);
    }
    if let Some(lines @ 1..) = query.context {
        add(&[&format!("--context={}", lines.min(1000))]);
    }
    if let Some(glob) = &query.glob {
        if dialect == Dialect::Ripgrep {
            add(&[&format!("--glob={glob}")]);
        } else if is_name_pattern(glob) {
            add(&[&format!("--include={glob}")]);
        }
    }
    if dialect == Dialect::Ripgrep {
        add(&["--glob=!.git"]);
    }
    add(&["--", &query.pattern, path]);
    argv
}

/// The argument vector that lists files below `path`, each followed by NUL.
#[must_use]
pub fn list(ripgrep: bool, pattern: &str, path: &str) -> Vec<String> {
    let path = argument(path);
    let args: Vec<&str> = if ripgrep {
        let options =
            "rg --no-config --files --hidden --null --color=never --sort=path --glob=!.git --";
        options.split(' ').chain([path.as_str()]).collect()
    } else {
        let mut args = vec!["find", &path];
        args.extend("( -name .git -o -name node_modules ) -prune -o ! -type d".split(' '));
        if is_name_pattern(pattern) {
            args.extend(["-name", pattern]);
        }
        args.push("-print0");
        args
    };
    args.into_iter().map(str::to_owned).collect()
}

/// Whether `fnmatch` on the last name means the same as our own globs.
fn is_name_pattern(glob: &str) -> bool {
    !glob.contains(['/', '{', '}', '\\']) && !glob.contains("**")
}

/// A path that a program printed, below the searched one: what pi shows.
#[must_use]
pub fn below<'a>(root: &str, path: &'a str) -> &'a str {
    let root = root.trim_end_matches('/');
    match path
        .strip_prefix(root)
        .and_then(|rest| rest.strip_prefix('/'))
    {
        Some(rest) if !rest.is_empty() => rest,
        _ if root == "." => path.strip_prefix("./").unwrap_or(path),
        _ => path.rsplit('/').next().unwrap_or(path),
    }
}

/// Takes what `grep` or `rg` print apart, in whatever pieces it comes. Each part is kept to a bound.
#[derive(Debug, Default)]
pub struct Matches {
    path: Vec<u8>,
    text: Vec<u8>,
    in_text: bool,
}

/// One printed line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// As the program printed it.
    pub path: String,
    /// From 1.
    pub number: u64,
    /// Whether it matches; otherwise it is context.
    pub is_match: bool,
    /// The line, shortened to [`MAX_MATCH`] characters.
    pub text: String,
    /// Whether it was shortened.
    pub shortened: bool,
}

/// A path is longer than this only in error; a line beyond it is not shown.
const LONGEST_PATH: usize = 16 * 1024;
const LONGEST_LINE: usize = 4 * (MAX_MATCH + 32);

impl Matches {
    /// The next bytes; calls `found` for each line, until it says no.
    pub fn push(&mut self, bytes: &[u8], mut found: impl FnMut(Line) -> bool) -> bool {
        for byte in bytes {
            match (self.in_text, byte) {
                (false, 0) => self.in_text = true,
                (false, _) => keep(&mut self.path, *byte, LONGEST_PATH),
                (true, b'\n') => {
                    let line = self.line();
                    self.path.clear();
                    self.text.clear();
                    self.in_text = false;
                    if let Some(line) = line
                        && !found(line)
                    {
                        return false;
                    }
                }
                (true, _) => keep(&mut self.text, *byte, LONGEST_LINE),
            }
        }
        true
    }

    fn line(&self) -> Option<Line> {
        let path = String::from_utf8_lossy(&self.path);
        // Between groups of context both programs print a line `--`, which then stands before the path.
        let path = path.strip_prefix("--\n").unwrap_or(&path);
        let digits = self.text.iter().take_while(|b| b.is_ascii_digit()).count();
        let (number, rest) = self.text.split_at(digits);
        let (mark, text) = rest.split_first()?;
        let text = String::from_utf8_lossy(text.strip_suffix(b"\r").unwrap_or(text));
        let end = text.char_indices().nth(MAX_MATCH).map(|(at, _)| at);
        let shown = end.and_then(|end| text.get(..end));
        Some(Line {
            path: path.to_owned(),
            number: std::str::from_utf8(number).ok()?.parse().ok()?,
            is_match: *mark == b':',
            shortened: shown.is_some(),
            text: shown.map_or_else(
                || text.clone().into_owned(),
                |shown| format!("{shown}... [truncated]"),
            ),
        })
    }
}

fn keep(buffer: &mut Vec<u8>, byte: u8, most: usize) {
    if buffer.len() < most {
        buffer.push(byte);
    }
}

/// A result that grows line by line to [`MAX_BYTES`].
#[derive(Debug, Default)]
pub struct Listing {
    text: String,
    full: bool,
}

impl Listing {
    /// Adds a line; false when there is no room.
    pub fn push(&mut self, line: &str) -> bool {
        let room = MAX_BYTES.saturating_sub(self.text.len() + usize::from(!self.text.is_empty()));
        self.full = self.full || line.len() > room;
        if !self.full {
            if !self.text.is_empty() {
                self.text.push('\n');
            }
            self.text.push_str(line);
        }
        !self.full
    }

    /// Whether nothing was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Whether a line found no room.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.full
    }

    /// The text with its notices.
    #[must_use]
    pub fn finish(mut self, mut notices: Vec<String>) -> String {
        if self.full {
            notices.push(format!("{} limit reached", size(MAX_BYTES as u64)));
        }
        if !notices.is_empty() {
            self.text.push_str(&format!("\n\n[{}]", notices.join(". ")));
        }
        self.text
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn query(pattern: &str) -> Query {
        serde_json::from_value(serde_json::json!({ "pattern": pattern })).unwrap()
    }

    fn lines(chunks: &[&[u8]]) -> Vec<Line> {
        let mut matches = Matches::default();
        let mut all = Vec::new();
        for chunk in chunks {
            matches.push(chunk, |line| {
                all.push(line);
                true
            });
        }
        all
    }

    #[test]
    fn data_stands_behind_the_options() {
        for dialect in [Dialect::Ripgrep, Dialect::Perl, Dialect::Extended] {
            let argv = grep(dialect, &query("--pre=sh"), "-x");
            assert_eq!(
                argv.get(argv.len() - 3..).unwrap(),
                ["--", "--pre=sh", "-x"]
            );
        }
        assert!(list(false, "*", "-delete").contains(&"./-delete".to_owned()));
        let argv = list(true, "*", "-x");
        assert_eq!(argv.get(argv.len() - 2..).unwrap(), ["--", "./-x"]);
    }

    #[test]
    fn globs_go_to_the_program_only_where_they_mean_the_same() {
        let mut q = query("x");
        q.glob = Some("src/**/*.rs".into());
        assert!(grep(Dialect::Ripgrep, &q, ".").contains(&"--glob=src/**/*.rs".into()));
        assert!(
            !grep(Dialect::Perl, &q, ".")
                .iter()
                .any(|arg| arg.starts_with("--include"))
        );
        assert!(list(false, "*.rs", ".").contains(&"*.rs".into()));
        assert!(!list(false, "*.{rs,c}", ".").contains(&"*.{rs,c}".into()));
    }

    #[test]
    fn matches_and_context_are_told_apart() {
        let all = lines(&[
            b"/a/x:1.rs\x007:let a = 1;\n/a/x:1.rs\x008-next\n--\n/a/y\x00",
            b"12:z\r\n",
        ]);
        let seen: Vec<(&str, u64, bool, &str)> = all
            .iter()
            .map(|l| (l.path.as_str(), l.number, l.is_match, l.text.as_str()))
            .collect();
        assert_eq!(
            seen,
            [
                ("/a/x:1.rs", 7, true, "let a = 1;"),
                ("/a/x:1.rs", 8, false, "next"),
                ("/a/y", 12, true, "z")
            ]
        );
    }

    #[test]
    fn a_long_line_is_shortened_and_takes_no_room() {
        let long = [
            b"f\x001:".to_vec(),
            "ü".repeat(1_000_000).into_bytes(),
            b"\n".to_vec(),
        ]
        .concat();
        let all = lines(&[&long]);
        let line = all.first().unwrap();
        assert!(line.shortened && line.text.ends_with("... [truncated]"));
        assert_eq!(
            line.text.chars().count(),
            MAX_MATCH + "... [truncated]".len()
        );
    }

    #[test]
    fn paths_are_shown_below_the_searched_one() {
        for (root, path, shown) in [
            ("/srv", "/srv/a/b", "a/b"),
            ("/srv/", "/srv/a", "a"),
            ("/", "/etc/x", "etc/x"),
            (".", "./a/b", "a/b"),
            (".", "a/b", "a/b"),
            ("/srv/file.txt", "/srv/file.txt", "file.txt"),
            ("sub", "sub/x", "x"),
        ] {
            assert_eq!(below(root, path), shown);
        }
    }

    #[test]
    fn a_listing_ends_at_its_limit_and_says_so() {
        let mut listing = Listing::default();
        let line = "x".repeat(1000);
        let count = (0..100).take_while(|_| listing.push(&line)).count();
        assert_eq!(count, 51);
        let text = listing.finish(vec!["100 matches limit reached".into()]);
        assert!(text.ends_with("x\n\n[100 matches limit reached. 50.0KB limit reached]"));
    }

    proptest! {
        #[test]
        fn foreign_output_never_panics_and_splits_anywhere(bytes in proptest::collection::vec(prop_oneof![Just(0u8), Just(b'\n'), Just(b':'), Just(b'1'), any::<u8>()], 0..60), cut in 0usize..60) {
            let (a, b) = bytes.split_at(cut.min(bytes.len()));
            prop_assert_eq!(lines(&[a, b]), lines(&[&bytes]));
        }
    }
}
