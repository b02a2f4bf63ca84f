//! What was offered when the same extensions were loaded before: a list that can be told before they are compiled.
//!
//! It is kept under a digest of all that decides it: this program's version, the shipped extensions by their digests, the files of the
//! command line and the policies. So what it lists can be called, once the extensions are loaded.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use rmcp::model::{Prompt, Tool};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::catalogue::Catalogue;
use crate::args::Loading;
use crate::{dirs, setup, shipped};

/// A list that is larger is not kept.
const LARGEST: u64 = 8 << 20;

/// The tools and prompts of a catalogue, as they are listed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Listing {
    pub(crate) tools: Vec<Tool>,
    pub(crate) prompts: Vec<Prompt>,
    /// There are others, which only the extensions know.
    pub(crate) more_prompts: bool,
}

impl Listing {
    pub(crate) fn of(catalogue: &Catalogue) -> Self {
        let tools = catalogue.tools.values().map(|entry| entry.listed.clone());
        let prompts = catalogue.prompts.values().map(|one| one.listed.clone());
        Self {
            tools: tools.collect(),
            prompts: prompts.collect(),
            more_prompts: catalogue.more_prompts,
        }
    }

    /// The one of an earlier process. A file that can't be used is as good as none.
    pub(crate) fn read(file: &Path) -> Option<Self> {
        let size = std::fs::metadata(file).ok()?.len();
        if size > LARGEST {
            return None;
        }
        serde_json::from_slice(&std::fs::read(file).ok()?).ok()
    }

    /// Keeps it for the next process.
    pub(crate) fn write(&self, file: &Path) -> std::io::Result<()> {
        let directory = file.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(directory)?;
        let mut new = tempfile::NamedTempFile::new_in(directory)?;
        new.write_all(&serde_json::to_vec(self)?)?;
        new.persist(file).map_err(|why| why.error).map(drop)
    }
}

/// Where the list of these extensions is kept.
pub(crate) fn file(loading: &Loading) -> Option<PathBuf> {
    let mut hash = Sha256::new();
    let mut add = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    add(env!("CARGO_PKG_VERSION").as_bytes());
    add(shipped::grants().as_bytes());
    for extension in &loading.extension {
        add(&std::fs::read(extension).ok()?);
    }
    let policies = [
        setup::policy_file(loading.policy.as_deref()).ok()?,
        PathBuf::from(setup::PROJECT),
    ];
    for policy in policies {
        add(&std::fs::read(policy).unwrap_or_default());
    }
    for part in crate::registry::fingerprint(std::path::Path::new(".")) {
        add(&part);
    }
    let name: String = hash
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    Some(dirs::cache().ok()?.join("mcp").join(name + ".json"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn a_damaged_list_is_none_and_a_kept_one_comes_back() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("mcp/x.json");
        assert_eq!(Listing::read(&file), None);
        let listing = Listing {
            tools: serde_json::from_value(json!([{ "name": "a", "inputSchema": {} }])).unwrap(),
            prompts: Vec::new(),
            more_prompts: false,
        };
        listing.write(&file).unwrap();
        assert_eq!(Listing::read(&file), Some(listing));
        std::fs::write(&file, "{").unwrap();
        assert_eq!(Listing::read(&file), None);
    }

    #[test]
    fn other_bytes_have_another_list() {
        let directory = tempfile::tempdir().unwrap();
        let extension = directory.path().join("e.wasm");
        let loading = Loading {
            extension: vec![extension.clone()],
            policy: Some(directory.path().join("policy.toml")),
            ..Loading::default()
        };
        assert_eq!(file(&loading), None, "the file is not there");
        std::fs::write(&extension, "one").unwrap();
        let one = file(&loading);
        std::fs::write(&extension, "two").unwrap();
        let two = file(&loading);
        std::fs::write(directory.path().join("policy.toml"), "x").unwrap();
        let three = file(&loading);
        assert!(one.is_some() && one != two && two != three);
    }
}
