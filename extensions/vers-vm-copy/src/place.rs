//! Where a copy comes from or goes to, as a model writes it.
//!
//! `vm:<vm id>:<path>` is on a VM, anything else on this machine. A local file whose name looks like that is written with
//! its directory: `./vm:x:y`. A text that begins with `vm:` and is neither is refused: it was meant for a VM, and as a local
//! name it would leave a strange file behind.

/// Where a copy comes from or goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// On this machine; relative to the session's directory.
    Local(String),
    /// On a VM.
    Vm {
        /// The VM's id, or the beginning of it.
        id: String,
        /// The path there, as it was written.
        path: String,
    },
}

impl Place {
    /// Reads a parameter named `what`.
    ///
    /// # Errors
    /// What is wrong with it, and how to write it.
    pub fn parse(what: &str, text: &str) -> Result<Self, String> {
        if text.contains('\0') {
            return Err(format!(
                "{what} contains a NUL character, which no path has."
            ));
        }
        if let Some(rest) = text.strip_prefix("vm:") {
            return match rest.split_once(':') {
                Some((id, path)) if !id.trim().is_empty() && !path.is_empty() => Ok(Self::Vm {
                    id: id.trim().into(),
                    path: path.into(),
                }),
                _ => Err(format!(
                    "{what} begins with vm: and is no VM path: {text}. Write vm:<vm id>:<path>; a local file of that name is ./{text}"
                )),
            };
        }
        if text.is_empty() {
            return Err(format!(
                "{what} is empty. Write a local path, or vm:<vm id>:<path>."
            ));
        }
        if text == "~" || text.starts_with("~/") {
            return Err(format!(
                "{what} is the local path {text}, and ~ is known on VMs only. Write the path from the root or from the working directory; \
                 a local file called ~ is ./{text}"
            ));
        }
        Ok(Self::Local(text.into()))
    }
}

/// A path of a VM as the host takes it: absolute, or relative to the home directory.
#[must_use]
pub fn below_home(path: &str) -> String {
    let path = match path.strip_prefix('~') {
        Some("") => "",
        Some(rest) if rest.starts_with('/') => rest.trim_start_matches('/'),
        _ => path,
    };
    if path.is_empty() {
        ".".into()
    } else {
        path.into()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn vm(id: &str, path: &str) -> Place {
        Place::Vm {
            id: id.into(),
            path: path.into(),
        }
    }

    #[test]
    fn the_first_two_colons_decide() {
        for (text, place) in [
            ("vm:1f2e:/srv/a", vm("1f2e", "/srv/a")),
            ("vm:1f2e:a b:c", vm("1f2e", "a b:c")),
            ("vm: 1f2e :~/x", vm("1f2e", "~/x")),
            ("vm:1f2e:a\nb", vm("1f2e", "a\nb")),
            ("./vm:1f2e:/srv/a", Place::Local("./vm:1f2e:/srv/a".into())),
            ("out/vm:x:y", Place::Local("out/vm:x:y".into())),
            ("VM:x:y", Place::Local("VM:x:y".into())),
            ("~x", Place::Local("~x".into())),
            ("a", Place::Local("a".into())),
        ] {
            assert_eq!(Place::parse("src", text), Ok(place), "{text:?}");
        }
    }

    #[test]
    fn what_was_meant_for_a_vm_never_becomes_a_local_file() {
        for text in ["vm:", "vm:x", "vm::y", "vm:x:", "vm: :y", "vm:/srv/a"] {
            let why = Place::parse("dst", text).unwrap_err();
            assert!(
                why.starts_with("dst begins with vm:") && why.ends_with(&format!(" ./{text}")),
                "{why}"
            );
        }
        for text in ["", "~", "~/x", "a\0b", "vm:x:\0"] {
            assert!(Place::parse("src", text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_home_directory_is_where_relative_paths_begin() {
        for (path, host) in [
            ("~", "."),
            ("~/", "."),
            ("~//a", "a"),
            ("~/a/b", "a/b"),
            ("~user/a", "~user/a"),
            ("a", "a"),
            ("/a", "/a"),
        ] {
            assert_eq!(below_home(path), host, "{path}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_in_words(text in "\\PC{0,12}|vm:[^\\x00]{0,12}") {
            match Place::parse("src", &text) {
                Ok(Place::Local(path)) => { prop_assert!(!path.starts_with("vm:")); prop_assert_eq!(path, text); }
                Ok(Place::Vm { id, path }) => { prop_assert!(!id.is_empty() && !path.is_empty()); prop_assert!(!below_home(&path).is_empty()); }
                Err(why) => prop_assert!(why.starts_with("src ")),
            }
        }

        #[test]
        fn a_local_path_with_its_directory_is_always_local(name in "[^\\x00/]{1,12}") {
            prop_assert_eq!(Place::parse("src", &format!("./{name}")), Ok(Place::Local(format!("./{name}"))));
        }
    }
}
