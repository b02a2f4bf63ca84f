//! Paths on a VM, as a model writes them.
//!
//! The host takes paths that are absolute or relative to the home directory. A model's relative path is
//! relative to the working directory that its commands left behind; `~` is the home directory. `..` and links are the
//! VM's business: only it knows what they lead to.

/// Whether the working directory matters for this path.
#[must_use]
pub fn is_relative(path: &str) -> bool {
    !path.starts_with('/') && path != "~" && !path.starts_with("~/")
}

/// The path as the host takes it. `cwd`: the working directory, absolute; `none` is the home directory.
#[must_use]
pub fn resolve(path: &str, cwd: Option<&str>) -> String {
    if path == "~" {
        return ".".into();
    }
    if let Some(below_home) = path.strip_prefix("~/") {
        let below_home = below_home.trim_start_matches('/');
        return if below_home.is_empty() {
            ".".into()
        } else {
            below_home.into()
        };
    }
    match cwd {
        Some(cwd) if is_relative(path) => {
            let path = path.strip_prefix("./").unwrap_or(path);
            match path {
                "" | "." => cwd.into(),
                _ => format!("{}/{path}", cwd.trim_end_matches('/')),
            }
        }
        _ if path.is_empty() => ".".into(),
        _ => path.into(),
    }
}

/// Why a path cannot name a file to write, if so.
#[must_use]
pub fn not_a_file(path: &str) -> Option<&'static str> {
    let last = path.rsplit('/').next().unwrap_or_default();
    match last {
        _ if path.is_empty() => Some("the path is empty"),
        "" => Some("it ends in '/', so it names a directory"),
        "." | ".." => Some("it names a directory"),
        "~" if path == "~" => Some("it names a directory"),
        _ if path.contains('\0') => Some("it contains a NUL character"),
        _ => None,
    }
}

/// A path for a program's argument vector: one that begins with `-` would be taken for an option.
#[must_use]
pub fn argument(path: &str) -> String {
    if path.starts_with('-') {
        format!("./{path}")
    } else {
        path.into()
    }
}

/// A path quoted for a shell, to be shown to the model.
#[must_use]
pub fn quoted(path: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@%,:=".contains(c);
    if !path.is_empty() && path.chars().all(plain) {
        path.into()
    } else {
        format!("'{}'", path.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_paths_follow_the_working_directory() {
        for (path, cwd, resolved) in [
            ("a/b", Some("/srv"), "/srv/a/b"),
            ("./a", Some("/srv/"), "/srv/a"),
            (".", Some("/srv"), "/srv"),
            ("../x", Some("/srv/a"), "/srv/a/../x"),
            ("/etc/x", Some("/srv"), "/etc/x"),
            ("~/x", Some("/srv"), "x"),
            ("~", Some("/srv"), "."),
            ("~//", None, "."),
            ("~user/x", Some("/srv"), "/srv/~user/x"),
            ("a", None, "a"),
            ("", None, "."),
            ("a", Some("/"), "/a"),
        ] {
            assert_eq!(resolve(path, cwd), resolved, "{path}");
        }
    }

    #[test]
    fn a_directory_is_no_file_to_write() {
        for path in ["", "a/", "/", "a/..", ".", "~", "~/", "a\0b"] {
            assert!(not_a_file(path).is_some(), "{path}");
        }
        for path in ["a", "/a/b", "~/x", "...", "a/~"] {
            assert_eq!(not_a_file(path), None, "{path}");
        }
    }

    #[test]
    fn an_argument_is_never_an_option() {
        assert_eq!(argument("-rf"), "./-rf");
        assert_eq!(argument("a-b"), "a-b");
    }

    #[test]
    fn quoting_survives_a_quote() {
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("/srv/a.txt"), "/srv/a.txt");
        assert_eq!(quoted("$(x)'"), r"'$(x)'\'''");
    }
}
