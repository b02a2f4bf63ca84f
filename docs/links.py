#!/usr/bin/env python3
"""Links of the book.

Pages link as they do where they lie: to `README.md`, and to files of the repository outside `docs/`. In the book the first is an index, and the others are
not there. As mdBook's preprocessor this rewrites both; `links.py check DIRECTORY` then says which links of the built book lead nowhere.
"""

import html.parser
import json
import os
import pathlib
import re
import sys
import urllib.parse

DOCS = pathlib.Path(__file__).resolve().parent
ROOT = DOCS.parent
LINK = re.compile(r"(\]\()([^)\s#]+)([^)\s]*\))")
FENCE = re.compile(r"^\s*(```+|~~~+)")


def repository():
    found = re.search(r'^repository = "(.*)"$', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)
    return found.group(1)


def rewritten(text, page, url):
    def target(match):
        start, link, end = match.groups()
        if "://" in link or link.startswith("mailto:"):
            return match.group()
        path = (page.parent / urllib.parse.unquote(link)).resolve()
        if path.is_dir() and path.is_relative_to(DOCS) and (path / "README.md").exists():
            return f"{start}{link.rstrip('/')}/index.md{end}"
        if path.is_relative_to(DOCS) and path.suffix == ".md":
            return start + re.sub(r"README\.md$", "index.md", link) + end
        kind = "tree" if path.is_dir() else "blob"
        return f"{start}{url}/{kind}/main/{path.relative_to(ROOT)}{end}"

    lines, fence = [], None
    for line in text.split("\n"):
        mark = FENCE.match(line)
        if fence is None and mark:
            fence = mark.group(1)
        elif fence is not None:
            if line.strip() == fence:
                fence = None
        else:
            line = LINK.sub(target, line)
        lines.append(line)
    return "\n".join(lines)


def preprocess():
    _, book = json.load(sys.stdin)
    url = repository()
    pending = list(book.get("items", book.get("sections", [])))
    while pending:
        item = pending.pop()
        chapter = item.get("Chapter") if isinstance(item, dict) else None
        if chapter is None:
            continue
        pending.extend(chapter["sub_items"])
        if chapter["source_path"] is not None:
            chapter["content"] = rewritten(chapter["content"], DOCS / chapter["source_path"], url)
    json.dump(book, sys.stdout)


class Page(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.ids, self.links = set(), []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name == "id":
                self.ids.add(value)
            elif name in ("href", "src") and value:
                self.links.append(value)


def check(directory):
    directory = pathlib.Path(directory).resolve()
    pages = {path: Page(path.read_text()) for path in directory.rglob("*.html")}
    wrong, checked = [], 0
    for path, page in pages.items():
        # The page for addresses that do not exist takes its own links from the root of the site.
        if path.name in ("404.html", "toc.html"):
            continue
        for link in page.links:
            parts = urllib.parse.urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            checked += 1
            to = path if not parts.path else pathlib.Path(os.path.normpath(path.parent / urllib.parse.unquote(parts.path)))
            known = pages.get(to)
            if not to.is_file():
                wrong.append(f"{path.relative_to(directory)} leads to {link}, which is not there")
            elif parts.fragment and known and urllib.parse.unquote(parts.fragment) not in known.ids:
                wrong.append(f"{path.relative_to(directory)} leads to {link}: there is no such place in it")
    if wrong or not checked:
        sys.exit("\n".join(wrong) or "the book has no links: it was not read")
    print(f"{len(pages)} pages, {checked} links")


match sys.argv[1:]:
    case ["supports", renderer]:
        sys.exit(renderer != "html")
    case ["check", directory]:
        check(directory)
    case _:
        preprocess()
