//! What a copy says of itself: the texts that its users know, with whole ids.

use pi_vers_sdk::text::size;
use serde_json::{Value, json};

/// One end of a copy, its VM resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// The whole id of the VM; none is this machine.
    pub vm: Option<String>,
    /// The path as it was written.
    pub path: String,
}

/// What was copied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Copied {
    /// Files.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Links, copied as such.
    pub links: u64,
    /// Bytes of the files' content.
    pub bytes: u64,
    /// Devices, sockets and named pipes, which stay where they are.
    pub left_out: u64,
    /// Whether the source was a directory.
    pub was_directory: bool,
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.vm {
            Some(vm) => write!(f, "VM {vm}:{}", self.path),
            None => f.write_str(&self.path),
        }
    }
}

/// The result's text.
#[must_use]
pub fn text(source: &End, target: &End, copied: &Copied) -> String {
    let mut text = if copied.was_directory {
        format!("Copied {} file(s) from {source} → {target}", copied.files)
    } else {
        format!("Copied {source} → {target} ({})", size(copied.bytes))
    };
    if copied.left_out > 0 {
        text.push_str(&format!(
            "\n{} device(s), socket(s) or named pipe(s) were left out.",
            copied.left_out
        ));
    }
    text
}

/// The result's details.
#[must_use]
pub fn details(source: &End, target: &End, copied: &Copied) -> Value {
    let mut details = serde_json::Map::new();
    details.insert("copied".into(), copied.files.into());
    details.insert("size".into(), copied.bytes.into());
    if copied.was_directory {
        for (name, number) in [
            ("directories", copied.directories),
            ("links", copied.links),
            ("leftOut", copied.left_out),
        ] {
            details.insert(name.into(), number.into());
        }
    }
    let (names, direction): (&[(&str, &Option<String>)], _) = match (&source.vm, &target.vm) {
        (Some(_), None) => (&[("vmId", &source.vm)], "download"),
        (None, _) => (&[("vmId", &target.vm)], "upload"),
        (Some(_), Some(_)) => (
            &[("srcVmId", &source.vm), ("dstVmId", &target.vm)],
            "vm-to-vm",
        ),
    };
    for (name, vm) in names {
        details.insert((*name).into(), json!(vm));
    }
    details.insert("direction".into(), direction.into());
    Value::Object(details)
}

/// The line that is shown while the copy runs.
#[must_use]
pub fn progress(
    files: u64,
    bytes: u64,
    total_files: Option<u64>,
    total_bytes: Option<u64>,
    current: &str,
) -> String {
    let of = |total: Option<String>| total.map_or_else(String::new, |total| format!(" of {total}"));
    let line = format!(
        "{files}{} file(s), {}{}",
        of(total_files.map(|n| n.to_string())),
        size(bytes),
        of(total_bytes.map(size))
    );
    if current.is_empty() {
        line
    } else {
        format!("{line}: {current}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "0a1b2c3d-0000-4000-8000-00000000000a";
    const B: &str = "0a1b2c3d-0000-4000-8000-00000000000b";

    fn end(vm: Option<&str>, path: &str) -> End {
        End {
            vm: vm.map(str::to_owned),
            path: path.into(),
        }
    }

    #[test]
    fn texts_are_those_users_know_with_whole_ids() {
        let file = Copied {
            files: 1,
            bytes: 1536,
            ..Copied::default()
        };
        let tree = Copied {
            files: 3,
            bytes: 7,
            was_directory: true,
            ..Copied::default()
        };
        let (here, a, b) = (end(None, "out"), end(Some(A), "/srv"), end(Some(B), "~/x"));
        for (source, target, copied, says) in [
            (
                &a,
                &here,
                &file,
                format!("Copied VM {A}:/srv → out (1.5KB)"),
            ),
            (
                &a,
                &here,
                &tree,
                format!("Copied 3 file(s) from VM {A}:/srv → out"),
            ),
            (
                &here,
                &a,
                &file,
                format!("Copied out → VM {A}:/srv (1.5KB)"),
            ),
            (
                &here,
                &a,
                &tree,
                format!("Copied 3 file(s) from out → VM {A}:/srv"),
            ),
            (
                &a,
                &b,
                &file,
                format!("Copied VM {A}:/srv → VM {B}:~/x (1.5KB)"),
            ),
            (
                &a,
                &b,
                &tree,
                format!("Copied 3 file(s) from VM {A}:/srv → VM {B}:~/x"),
            ),
        ] {
            assert_eq!(text(source, target, copied), says);
        }
        let odd = Copied {
            left_out: 2,
            ..tree
        };
        assert!(
            text(&a, &here, &odd)
                .ends_with("\n2 device(s), socket(s) or named pipe(s) were left out.")
        );
    }

    #[test]
    fn details_name_the_direction_and_the_vms() {
        let copied = Copied {
            files: 1,
            bytes: 5,
            ..Copied::default()
        };
        let (here, a, b) = (end(None, "out"), end(Some(A), "/srv"), end(Some(B), "~/x"));
        for (source, target, says) in [
            (
                &a,
                &here,
                json!({ "copied": 1, "size": 5, "vmId": A, "direction": "download" }),
            ),
            (
                &here,
                &b,
                json!({ "copied": 1, "size": 5, "vmId": B, "direction": "upload" }),
            ),
            (
                &a,
                &b,
                json!({ "copied": 1, "size": 5, "srcVmId": A, "dstVmId": B, "direction": "vm-to-vm" }),
            ),
        ] {
            assert_eq!(details(source, target, &copied), says);
        }
        let tree = Copied {
            was_directory: true,
            directories: 2,
            links: 1,
            ..copied
        };
        assert_eq!(
            details(&a, &here, &tree),
            json!({ "copied": 1, "size": 5, "directories": 2, "links": 1, "leftOut": 0, "vmId": A, "direction": "download" })
        );
    }

    #[test]
    fn progress_shows_totals_when_they_are_known() {
        assert_eq!(progress(1, 10, None, None, ""), "1 file(s), 10B");
        assert_eq!(
            progress(1, 10, Some(3), Some(2048), "a/b"),
            "1 of 3 file(s), 10B of 2.0KB: a/b"
        );
    }
}
