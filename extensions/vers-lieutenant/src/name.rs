//! What a lieutenant may be called.
//!
//! A name becomes a label of a VM, a directory, a key of the store and the agent's `VERS_AGENT_NAME`. So it is one word of
//! characters that mean nothing anywhere, instead of a text that each place would have to quote.

/// Longest name, in characters.
pub const LONGEST: usize = 64;

/// Takes a name as it is, or says in words why it is none.
///
/// # Errors
/// A sentence for the model.
pub fn check(name: &str) -> Result<(), String> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let begins = name
        .chars()
        .next()
        .is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
    if begins && name.len() <= LONGEST && name.chars().all(good) {
        return Ok(());
    }
    let shown: String = name.escape_debug().take(80).collect();
    Err(format!(
        "\"{shown}\" is no name for a lieutenant: 1 to {LONGEST} letters (a-z, A-Z), digits, '-', '_' or '.', the first one a letter, \
         a digit or '_'. For example: infra"
    ))
}

/// The first name of `wanted`, `wanted-2`, `wanted-3`, … that is free.
#[must_use]
pub fn free(wanted: &str, taken: impl Fn(&str) -> bool) -> Option<String> {
    if !taken(wanted) {
        return Some(wanted.into());
    }
    (2..100)
        .map(|number| {
            let ending = format!("-{number}");
            let stem: String = wanted.chars().take(LONGEST - ending.len()).collect();
            stem + &ending
        })
        .find(|name| !taken(name))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_one_plain_word() {
        for good in ["infra", "a", "A.b-c_9", "_x", &"n".repeat(64)] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "*",
            ".",
            "..",
            "-rf",
            "a b",
            "a/b",
            "a'b",
            "$(x)",
            "a\n",
            "é",
            &"n".repeat(65),
        ] {
            assert!(check(bad).unwrap_err().contains("no name"), "{bad}");
        }
    }

    #[test]
    fn a_name_that_is_taken_gets_a_number() {
        assert_eq!(free("a", |_| false).unwrap(), "a");
        assert_eq!(free("a", |n| n == "a" || n == "a-2").unwrap(), "a-3");
        assert_eq!(free("a", |_| true), None);
        let long = "n".repeat(64);
        assert_eq!(free(&long, |n| n == long).unwrap().len(), 64);
    }

    proptest! {
        #[test]
        fn what_is_taken_needs_no_quoting_anywhere(name in ".{0,80}") {
            if check(&name).is_ok() {
                prop_assert!(!name.contains(['/', '\'', '"', '$', '`', '\\', ' ', '\0', '\n']));
                prop_assert!(name != "." && name != ".." && !name.starts_with('-'));
            }
        }
    }
}
