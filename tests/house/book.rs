//! The book: every page is in its list, and every link leads somewhere, to the very heading.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use pi_vers_tests::built;

use crate::page::{anchors, links, pages};

/// Without its `..`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                plain.pop();
            }
            Component::CurDir => {}
            other => plain.push(other),
        }
    }
    plain
}

#[test]
fn every_page_is_in_the_list_once() {
    let docs = built::root().join("docs");
    let list = std::fs::read_to_string(docs.join("SUMMARY.md")).expect("the book has a list");
    let mut listed = BTreeSet::new();
    for link in links(&list) {
        assert!(
            listed.insert(plain(&docs.join(&link))),
            "{link} is listed twice"
        );
    }
    let there: BTreeSet<PathBuf> = pages()
        .into_iter()
        .map(|page| page.path)
        .filter(|path| path.starts_with(&docs) && !path.ends_with("SUMMARY.md"))
        .collect();
    let missing: Vec<_> = there.difference(&listed).collect();
    assert!(missing.is_empty(), "not in docs/SUMMARY.md: {missing:?}");
    let gone: Vec<_> = listed.difference(&there).collect();
    assert!(
        gone.is_empty(),
        "in docs/SUMMARY.md, and not there: {gone:?}"
    );
}

#[test]
fn every_link_leads_somewhere() {
    let pages = pages();
    let entries: BTreeMap<PathBuf, BTreeSet<String>> = pages
        .iter()
        .map(|page| (page.path.clone(), anchors(&page.text).into_iter().collect()))
        .collect();
    let (mut wrong, mut checked) = (Vec::new(), 0);
    for page in &pages {
        for link in links(&page.text) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            checked += 1;
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let directory = page.path.parent().expect("a page lies in a directory");
            let to = if file.is_empty() {
                page.path.clone()
            } else {
                plain(&directory.join(file))
            };
            if !to.exists() {
                wrong.push(format!("{} leads to {link}, which is not there", page.name));
            } else if !anchor.is_empty()
                && !entries.get(&to).is_some_and(|all| all.contains(anchor))
            {
                wrong.push(format!(
                    "{} leads to {link}: there is no such heading",
                    page.name
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(checked > 100, "the links were not found: {checked}");
}

#[test]
fn every_included_file_is_there() {
    for page in pages() {
        let files = page.text.split("{{#include ").skip(1);
        for file in files.filter_map(|rest| rest.split_once("}}")) {
            let file = file.0.split(':').next().unwrap_or_default();
            let path = page
                .path
                .parent()
                .expect("a page lies in a directory")
                .join(file);
            assert!(
                path.exists(),
                "{} includes {file}, which is not there",
                page.name
            );
        }
    }
}
