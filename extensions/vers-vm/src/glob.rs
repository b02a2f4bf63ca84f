//! Globs as `find` takes them: `*.ts`, `**/*.json`, `src/**/*.{ts,tsx}`.
//!
//! `*`, `?` and `[…]` stay within a name, `**` spans directories, `{a,b}` is one or the other, `\` takes the next character as it
//! is. A pattern without `/` is matched against the last name of a path, at any depth; one with `/` against the whole path
//! below the searched directory.

/// Most alternatives that braces may multiply to.
const MOST_ALTERNATIVES: usize = 256;

/// Longest pattern, in bytes: its braces are taken apart by recursion.
const LONGEST: usize = 1024;

/// A parsed glob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob {
    whole_path: bool,
    /// Each a list of names.
    alternatives: Vec<Vec<Name>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Name {
    /// `**`: any number of directories.
    Any,
    Parts(Vec<Part>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Char(char),
    /// `?`
    One,
    /// `*`
    Many,
    /// `[…]`: ranges, and whether they are excluded.
    Class(Vec<(char, char)>, bool),
}

impl Glob {
    /// Parses a pattern; none if it is longer than any pattern of a person, or its braces multiply beyond reason.
    #[must_use]
    pub fn parse(pattern: &str) -> Option<Self> {
        if pattern.len() > LONGEST {
            return None;
        }
        let pattern = pattern.strip_prefix("./").unwrap_or(pattern);
        let whole_path = pattern.contains('/');
        let pattern: Vec<char> = pattern.trim_start_matches('/').chars().collect();
        let mut alternatives = Vec::new();
        expand(&pattern, &mut alternatives)?;
        let alternatives = alternatives
            .iter()
            .map(|alternative| alternative.split(|c| *c == '/').map(name).collect())
            .collect();
        Some(Self {
            whole_path,
            alternatives,
        })
    }

    /// Whether a path below the searched directory matches.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        let names: Vec<Vec<char>> = if self.whole_path {
            path.split('/').map(|name| name.chars().collect()).collect()
        } else {
            vec![
                path.rsplit('/')
                    .next()
                    .unwrap_or_default()
                    .chars()
                    .collect(),
            ]
        };
        self.alternatives.iter().any(|pattern| {
            sequence(
                pattern,
                &names,
                |p| matches!(p, Name::Any),
                |p, name| one_name(p, name),
            )
        })
    }
}

/// Every alternative of the braces in `pattern`.
fn expand(pattern: &[char], out: &mut Vec<Vec<char>>) -> Option<()> {
    let Some((before, choices, after)) = first_braces(pattern) else {
        out.push(pattern.to_vec());
        return (out.len() <= MOST_ALTERNATIVES).then_some(());
    };
    for choice in choices {
        expand(&[before, choice, after].concat(), out)?;
    }
    Some(())
}

type Braces<'a> = (&'a [char], Vec<&'a [char]>, &'a [char]);

fn first_braces(pattern: &[char]) -> Option<Braces<'_>> {
    let mut open = None;
    let mut depth = 0;
    let mut choices = Vec::new();
    let mut from = 0;
    let mut escaped = false;
    for (i, c) in pattern.iter().enumerate() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '{' => {
                if depth == 0 {
                    open = Some(i);
                    from = i + 1;
                    choices.clear();
                }
                depth += 1;
            }
            ',' if depth == 1 => {
                choices.push(pattern.get(from..i)?);
                from = i + 1;
            }
            '}' if depth > 0 => {
                depth -= 1;
                if depth == 0 {
                    choices.push(pattern.get(from..i)?);
                    return Some((pattern.get(..open?)?, choices, pattern.get(i + 1..)?));
                }
            }
            _ => {}
        }
    }
    None
}

fn name(pattern: &[char]) -> Name {
    if pattern == ['*', '*'] {
        return Name::Any;
    }
    let mut parts = Vec::new();
    let mut rest = pattern;
    while let Some((c, after)) = rest.split_first() {
        rest = after;
        parts.push(match c {
            '*' => Part::Many,
            '?' => Part::One,
            '[' => match class(after) {
                Some((part, after)) => {
                    rest = after;
                    part
                }
                None => Part::Char('['),
            },
            '\\' => match after.split_first() {
                Some((c, after)) => {
                    rest = after;
                    Part::Char(*c)
                }
                None => Part::Char('\\'),
            },
            c => Part::Char(*c),
        });
    }
    Name::Parts(parts)
}

/// A class behind its `[`, and what follows its `]`.
fn class(pattern: &[char]) -> Option<(Part, &[char])> {
    let (excluded, body) = match pattern.split_first() {
        Some(('!' | '^', body)) => (true, body),
        _ => (false, pattern),
    };
    // A `]` in the first place is one of the characters.
    let end = body.iter().enumerate().skip(1).find(|(_, c)| **c == ']')?.0;
    let mut ranges = Vec::new();
    let mut rest = body.get(..end)?;
    while let Some((from, after)) = rest.split_first() {
        match after {
            ['-', to, after @ ..] => {
                ranges.push((*from, *to));
                rest = after;
            }
            _ => {
                ranges.push((*from, *from));
                rest = after;
            }
        }
    }
    Some((Part::Class(ranges, excluded), body.get(end + 1..)?))
}

fn one_name(pattern: &Name, name: &[char]) -> bool {
    match pattern {
        Name::Any => true,
        Name::Parts(parts) => sequence(parts, name, |part| *part == Part::Many, one_char),
    }
}

fn one_char(part: &Part, c: &char) -> bool {
    match part {
        Part::Char(wanted) => wanted == c,
        Part::One | Part::Many => true,
        Part::Class(ranges, excluded) => {
            ranges.iter().any(|(from, to)| (from..=to).contains(&c)) != *excluded
        }
    }
}

/// Matches items against a pattern in which some elements stand for any number of items. Going back to the last such element is
/// enough, so the time is bounded by the product of the lengths.
fn sequence<P, T>(
    pattern: &[P],
    items: &[T],
    is_many: impl Fn(&P) -> bool,
    one: impl Fn(&P, &T) -> bool,
) -> bool {
    let (mut p, mut i) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    loop {
        match (pattern.get(p), items.get(i)) {
            (None, None) => return true,
            (Some(element), _) if is_many(element) => {
                back = Some((p, i));
                p += 1;
            }
            (Some(element), Some(item)) if one(element, item) => {
                p += 1;
                i += 1;
            }
            _ => match back {
                Some((many, from)) if from < items.len() => {
                    back = Some((many, from + 1));
                    p = many + 1;
                    i = from + 1;
                }
                _ => return false,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn patterns_match_as_people_expect() {
        for (pattern, yes, no) in [
            ("*.ts", vec!["a.ts", "src/b.ts", ".ts"], vec!["a.tsx", "ts"]),
            ("**/*.json", vec!["a.json", "x/y/b.json"], vec!["a.jsonc"]),
            (
                "src/**/*.spec.ts",
                vec!["src/a.spec.ts", "src/x/y/b.spec.ts"],
                vec!["lib/src/a.spec.ts", "src/a.ts"],
            ),
            (
                "src/*.rs",
                vec!["src/a.rs"],
                vec!["src/x/a.rs", "a/src/b.rs"],
            ),
            ("*.{ts,tsx}", vec!["a.ts", "b/c.tsx"], vec!["a.js"]),
            ("{a,b{c,d}}x", vec!["ax", "bcx", "y/bdx"], vec!["bx", "x"]),
            (
                "file?.[ch]",
                vec!["file1.c", "filex.h"],
                vec!["file.c", "file12.c"],
            ),
            ("[!a-c]*", vec!["d", "zebra"], vec!["a", "cat"]),
            ("[]x]", vec!["]", "x"], vec!["a"]),
            ("\\*.txt", vec!["*.txt"], vec!["a.txt"]),
            (
                "Cargo.toml",
                vec!["Cargo.toml", "a/Cargo.toml"],
                vec!["Cargo_toml", "Cargo.toml.bak"],
            ),
            ("./src/a", vec!["src/a"], vec!["x/src/a"]),
            ("src/**", vec!["src/a", "src/a/b"], vec!["a"]),
            ("a[b", vec!["a[b"], vec!["ab"]),
            ("{a", vec!["{a"], vec!["a"]),
            ("**", vec!["a", "a/b"], vec![]),
        ] {
            let glob = Glob::parse(pattern).unwrap();
            for path in yes {
                assert!(glob.matches(path), "{pattern} should match {path}");
            }
            for path in no {
                assert!(!glob.matches(path), "{pattern} should not match {path}");
            }
        }
    }

    #[test]
    fn a_multiplying_pattern_is_refused() {
        assert_eq!(Glob::parse(&"{a,b}".repeat(20)), None);
    }

    #[test]
    fn a_pattern_of_stars_ends() {
        let glob = Glob::parse(&"*a".repeat(200)).unwrap();
        assert!(!glob.matches(&"a".repeat(199)));
        let glob = Glob::parse(&format!("{}x", "**/".repeat(60))).unwrap();
        assert!(!glob.matches(&"y/".repeat(300)));
    }

    proptest! {
        #[test]
        fn foreign_patterns_never_panic(pattern in any::<String>(), path in any::<String>()) {
            if let Some(glob) = Glob::parse(&pattern) {
                // Names alone: a directory in front changes nothing where the pattern has none.
                if !glob.whole_path && !path.contains('/') {
                    prop_assert_eq!(glob.matches(&path), glob.matches(&format!("dir/{path}")));
                }
                let _ = glob.matches(&path);
            }
        }

        #[test]
        fn a_plain_name_matches_itself(name in "[a-zA-Z0-9._-]{1,12}") {
            prop_assert!(Glob::parse(&name).unwrap().matches(&name));
        }
    }
}
