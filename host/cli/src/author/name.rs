//! Names of new extensions. A name becomes part of file names, of a crate, of tools and of policies, so it is plain in all of them.

use crate::failure::Failure;
use crate::shipped::SHIPPED;

const LONGEST: usize = 48;
/// What a package or a module of a language can't be called, or what the project's own parts are called.
const TAKEN: [&str; 63] = [
    "abstract",
    "alloc",
    "and",
    "as",
    "async",
    "await",
    "become",
    "box",
    "break",
    "build",
    "class",
    "const",
    "continue",
    "core",
    "crate",
    "def",
    "deps",
    "do",
    "dyn",
    "else",
    "enum",
    "extern",
    "false",
    "final",
    "fn",
    "for",
    "futures",
    "if",
    "impl",
    "import",
    "in",
    "js",
    "let",
    "loop",
    "macro",
    "match",
    "mod",
    "move",
    "mut",
    "none",
    "override",
    "package",
    "pi-vers",
    "pi-vers-sdk",
    "priv",
    "proc-macro",
    "pub",
    "ref",
    "return",
    "self",
    "serde",
    "static",
    "std",
    "struct",
    "super",
    "test",
    "trait",
    "true",
    "type",
    "unsafe",
    "use",
    "where",
    "while",
];

/// An extension's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name(String);

impl Name {
    /// Reads a name for something new.
    pub(super) fn new(text: &str) -> Result<Self, Failure> {
        let wrong = |why: String| {
            Failure::usage(format!(
                "{} is no name for an extension: {why}",
                pi_vers_host::visible(text)
            ))
        };
        let plain = text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        if !plain || !text.starts_with(|first: char| first.is_ascii_lowercase()) {
            return Err(wrong(
                "use small letters, digits and hyphens, beginning with a letter".into(),
            ));
        }
        if text.len() > LONGEST {
            return Err(wrong(format!("it has more than {LONGEST} letters")));
        }
        if text.ends_with('-') || text.contains("--") {
            return Err(wrong("a hyphen stands between two words".into()));
        }
        if TAKEN.contains(&text) {
            return Err(wrong("some language means something else by it".into()));
        }
        if SHIPPED.iter().any(|shipped| shipped.name == text) {
            return Err(wrong("the extension inside pi-vers is called that".into()));
        }
        Ok(Self(text.to_owned()))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// As an identifier.
    pub(super) fn identifier(&self) -> String {
        self.0.replace('-', "_")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_are_plain_everywhere() {
        for good in ["a", "hello", "my-tool-2"] {
            assert!(Name::new(good).is_ok(), "{good}");
        }
        assert_eq!(Name::new("my-tool-2").unwrap().identifier(), "my_tool_2");
        let long = "x".repeat(49);
        for bad in [
            "", "-a", "a-", "a--b", "2a", "A", "a_b", "a b", "../a", "a/b", "ä", "a\0", "test",
            "vers-vm", &long,
        ] {
            assert!(Name::new(bad).is_err(), "{bad:?}");
        }
        assert!(TAKEN.is_sorted());
    }
}
