//! A tree of files as people have them, and how two of them differ.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use sha2::{Digest as _, Sha256};

/// More differences than these help nobody.
const MOST: usize = 5;

/// Makes a tree of `files` files of 3 to 5 KiB in 50 directories, with modes, times, links, odd names and an empty
/// directory. Returns the bytes of the files.
pub(super) fn make(root: &Path, files: usize) -> io::Result<u64> {
    let mut bytes = 0;
    for number in 0..files {
        let directory = root.join(format!("part {:02}", number % 50));
        fs::create_dir_all(&directory)?;
        let path = directory.join(format!("it's \"file\" {number}.txt"));
        let mut content = Vec::new();
        while content.len() < (3 + number % 3) << 10 {
            content.extend_from_slice(&Sha256::digest(format!("{number} {}", content.len())));
        }
        let mut file = File::create(&path)?;
        file.write_all(&content)?;
        file.set_permissions(Permissions::from_mode(if number % 7 == 0 {
            0o755
        } else {
            0o640
        }))?;
        let age = Duration::from_secs(1_000_000_000 + number as u64 * 3_600);
        file.set_modified(SystemTime::UNIX_EPOCH + age)?;
        bytes += content.len() as u64;
    }
    fs::create_dir(root.join("empty"))?;
    symlink("part 01/it's \"file\" 1.txt", root.join("link"))?;
    symlink("nowhere", root.join("dangling"))?;
    Ok(bytes)
}

/// What an entry is, as far as a copy keeps it.
#[derive(Debug, PartialEq, Eq)]
enum Entry {
    File {
        mode: u32,
        modified: i64,
        digest: Vec<u8>,
    },
    Directory {
        mode: u32,
    },
    Link {
        to: PathBuf,
    },
}

fn read(root: &Path) -> io::Result<BTreeMap<PathBuf, Entry>> {
    let mut found = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory)? {
            let path = entry?.path();
            let metadata = fs::symlink_metadata(&path)?;
            let mode = metadata.mode() & 0o7777;
            let kind = if metadata.is_dir() {
                open.push(path.clone());
                Entry::Directory { mode }
            } else if metadata.is_symlink() {
                Entry::Link {
                    to: fs::read_link(&path)?,
                }
            } else {
                let digest = Sha256::digest(fs::read(&path)?).to_vec();
                Entry::File {
                    mode,
                    modified: metadata.mtime(),
                    digest,
                }
            };
            let name = path.strip_prefix(root).unwrap_or(&path).to_owned();
            found.insert(name, kind);
        }
    }
    Ok(found)
}

/// How two trees differ, a sentence each; empty if they do not.
pub(super) fn differences(one: &Path, two: &Path) -> io::Result<Vec<String>> {
    let (one, mut two) = (read(one)?, read(two)?);
    let name = |path: &Path| String::from_utf8_lossy(path.as_os_str().as_bytes()).into_owned();
    let mut differ = Vec::new();
    for (path, entry) in &one {
        match two.remove(path) {
            None => differ.push(format!("{} is missing", name(path))),
            Some(other) if other != *entry => {
                differ.push(format!("{} is {other:?}, not {entry:?}", name(path)));
            }
            Some(_) => {}
        }
    }
    differ.extend(two.keys().map(|path| format!("{} is too much", name(path))));
    differ.truncate(MOST);
    Ok(differ)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_kind_of_difference_is_seen() {
        let ground = tempfile::tempdir().unwrap();
        let (one, two) = (ground.path().join("one"), ground.path().join("two"));
        make(&one, 60).unwrap();
        make(&two, 60).unwrap();
        assert_eq!(differences(&one, &two).unwrap(), Vec::<String>::new());
        let file = two.join("part 00/it's \"file\" 0.txt");
        let spoil: [&dyn Fn(); 5] = [
            &|| fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap(),
            &|| fs::write(two.join("extra"), "").unwrap(),
            &|| fs::remove_dir(two.join("empty")).unwrap(),
            &|| fs::write(two.join("part 01/it's \"file\" 1.txt"), "x").unwrap(),
            &|| {
                fs::remove_file(two.join("link")).unwrap();
                symlink("elsewhere", two.join("link")).unwrap();
            },
        ];
        for (count, spoil) in spoil.iter().enumerate() {
            spoil();
            assert_eq!(differences(&one, &two).unwrap().len(), count + 1);
        }
    }
}
