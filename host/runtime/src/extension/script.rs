//! An extension that is a script: one file of text, run by a component that is there for all scripts.
//!
//! The host knows nothing of the language. It gives the runner the file's name and text as its program arguments, an
//! instance for each script. What grants are bound to is the digest of runner and script together: another
//! script is another extension, and so is the same script in another runner.

use std::path::Path;

use pi_vers_policy::Digest;

use crate::error::Error;

/// The largest script, in bytes: models write smaller ones, and bundlers should leave out what nobody uses.
const LARGEST: usize = 1 << 20;

/// What a file is called that holds a script.
const ENDINGS: [&str; 2] = ["js", "mjs"];

/// A script.
pub(crate) struct Script {
    name: String,
    source: String,
}

/// Whether a file of this name is a script.
pub(crate) fn is_script(path: &Path) -> bool {
    path.extension()
        .is_some_and(|ending| ENDINGS.iter().any(|known| ending == *known))
}

impl Script {
    /// Reads a script. `origin` names it in messages; the script itself learns no more than its file's name.
    pub(crate) fn read(origin: &str, bytes: &[u8]) -> Result<Self, Error> {
        let wrong = |why: String| Error::Script {
            origin: origin.into(),
            why,
        };
        if bytes.len() > LARGEST {
            return Err(wrong(format!(
                "{} KiB is more than the {} KiB a script may have",
                bytes.len() >> 10,
                LARGEST >> 10
            )));
        }
        let source = std::str::from_utf8(bytes)
            .map_err(|why| wrong(format!("it is no UTF-8 text: {why}")))?;
        if source.contains('\0') {
            return Err(wrong("there is a null character in it".into()));
        }
        let name = Path::new(origin)
            .file_name()
            .map_or_else(|| origin.into(), |name| name.to_string_lossy());
        Ok(Self {
            name: name.replace('\0', ""),
            source: source.into(),
        })
    }

    /// What grants are bound to: as `sha256sum` gives it for the two digests, each on a line of its own, below a first line that
    /// says what they are.
    pub(crate) fn digest(&self, runner: &Digest) -> Digest {
        let script = Digest::of(self.source.as_bytes());
        Digest::of(format!("pi-vers script 1\n{runner}\n{script}\n").as_bytes())
    }

    /// The runner's program arguments.
    pub(crate) fn arguments(&self) -> [&str; 2] {
        [&self.name, &self.source]
    }

    /// Bytes of it.
    pub(crate) fn size(&self) -> usize {
        self.source.len()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn grants_hold_for_one_script_in_one_runner() {
        let (one, other) = (Digest::of(b"runner"), Digest::of(b"another runner"));
        let script = |text: &str| Script::read("/home/me/a.js", text.as_bytes()).unwrap();
        let digest = script("a").digest(&one);
        assert_eq!(digest, script("a").digest(&one));
        assert_ne!(digest, script("a ").digest(&one));
        assert_ne!(digest, script("a").digest(&other));
        // No component and no plain file has it.
        assert_ne!(digest, Digest::of(b"a"));
    }

    #[test]
    fn what_is_no_script_is_refused_in_words() {
        for (bytes, said) in [
            (&b"\xff"[..], "no UTF-8"),
            (b"a\0b", "null character"),
            (&[b'a'; LARGEST + 1], "1024 KiB"),
        ] {
            let why = Script::read("a.js", bytes).err().unwrap().to_string();
            assert!(why.starts_with("a.js") && why.contains(said), "{why}");
        }
        assert!(is_script(Path::new("x/a.js")) && is_script(Path::new("a.mjs")));
        assert!(!is_script(Path::new("a.wasm")) && !is_script(Path::new("js")));
    }

    #[test]
    fn a_script_learns_its_name_and_not_where_it_is() {
        let script = Script::read("/home/me/secret-project/a.js", b"x").unwrap();
        assert_eq!(script.arguments(), ["a.js", "x"]);
    }
}
