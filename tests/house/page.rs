//! Reads a page of Markdown as far as the tests need it: fenced blocks, headings, links.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pi_vers_tests::built;

/// A page of the README or the book.
pub(crate) struct Page {
    /// From the repository's root on: `docs/cli.md`.
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    pub(crate) text: String,
}

/// A fenced block.
#[derive(Debug, PartialEq)]
pub(crate) struct Block {
    /// The first word of what stands behind the fence.
    pub(crate) language: String,
    /// The other words, separated by commas.
    pub(crate) tags: Vec<String>,
    pub(crate) text: String,
    /// The line of the opening fence.
    pub(crate) line: usize,
    /// The last line before it that is not empty.
    pub(crate) before: String,
}

impl Block {
    pub(crate) fn has(&self, tag: &str) -> bool {
        self.tags.iter().any(|other| other == tag)
    }
}

/// All pages: the README first, then those of `docs/`.
pub(crate) fn pages() -> Vec<Page> {
    let root = built::root();
    let mut paths = Vec::new();
    below(&root.join("docs"), &mut paths);
    paths.sort();
    paths.insert(0, root.join("README.md"));
    let read = |path: PathBuf| Page {
        name: path
            .strip_prefix(&root)
            .expect("it is of the repository")
            .display()
            .to_string(),
        text: std::fs::read_to_string(&path).expect("a page is UTF-8"),
        path,
    };
    paths.into_iter().map(read).collect()
}

fn below(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            below(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
}

/// The length of a fence of backticks, and what stands behind it.
fn fence(line: &str) -> Option<(usize, &str)> {
    let rest = line.trim_start().trim_start_matches('`');
    let length = line.trim_start().len() - rest.len();
    (length >= 3).then_some((length, rest.trim()))
}

/// The page in its two parts: fenced blocks, and all other lines.
pub(crate) fn parts(text: &str) -> (Vec<Block>, Vec<&str>) {
    let (mut blocks, mut prose) = (Vec::new(), Vec::new());
    let mut open: Option<(usize, Block)> = None;
    let mut before = "";
    for (number, line) in text.lines().enumerate() {
        match (&mut open, fence(line)) {
            (None, Some((length, info))) => {
                let mut words = info.split(',').map(|word| word.trim().to_owned());
                let block = Block {
                    language: words.next().unwrap_or_default(),
                    tags: words.collect(),
                    text: String::new(),
                    line: number + 1,
                    before: before.to_owned(),
                };
                open = Some((length, block));
            }
            (Some((opened, _)), Some((length, ""))) if length >= *opened => {
                blocks.extend(open.take().map(|(_, block)| block));
                before = "";
            }
            (Some((_, block)), _) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, None) => {
                if !line.trim().is_empty() {
                    before = line;
                }
                prose.push(line);
            }
        }
    }
    assert!(open.is_none(), "a fenced block has no end: {open:?}");
    (blocks, prose)
}

/// Where a page can be entered: the names of its headings, as mdBook and GitHub make them.
pub(crate) fn anchors(text: &str) -> Vec<String> {
    let (mut anchors, mut seen) = (Vec::new(), BTreeMap::new());
    for line in parts(text).1 {
        let title = line.trim_start_matches('#');
        let level = line.len() - title.len();
        if !(1..=6).contains(&level) || !title.starts_with(' ') {
            continue;
        }
        let kept = |c: char| match c {
            ' ' => Some('-'),
            c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c),
            _ => None,
        };
        let name: String = title
            .trim()
            .to_lowercase()
            .chars()
            .filter_map(kept)
            .collect();
        let again = seen.entry(name.clone()).or_insert(0);
        anchors.push(if *again == 0 {
            name
        } else {
            format!("{name}-{again}")
        });
        *again += 1;
    }
    anchors
}

/// The targets of the inline links.
pub(crate) fn links(text: &str) -> Vec<String> {
    let mut links = Vec::new();
    for line in parts(text).1 {
        let targets = line.split("](").skip(1);
        links.extend(
            targets
                .filter_map(|rest| rest.split([')', ' ']).next())
                .map(str::to_owned),
        );
    }
    links
}

#[test]
fn a_page_is_read() {
    let page = "# The `one` (1)\n[b](c.md#d) and [e](f)\n\n<!-- why -->\n\n```sh,no-run\n# no [x](y)\n```\n## A b\n````text\n```\n````\n## A b\n";
    let (blocks, prose) = parts(page);
    assert_eq!(blocks.len(), 2, "{blocks:?}");
    assert_eq!(blocks[0].language, "sh");
    assert!(blocks[0].has("no-run"));
    assert_eq!(blocks[0].text, "# no [x](y)\n");
    assert_eq!((blocks[0].line, &*blocks[0].before), (6, "<!-- why -->"));
    assert_eq!(blocks[1].text, "```\n");
    assert!(prose.contains(&"## A b"));
    assert_eq!(anchors(page), ["the-one-1", "a-b", "a-b-1"]);
    assert_eq!(links(page), ["c.md#d", "f"]);
}
