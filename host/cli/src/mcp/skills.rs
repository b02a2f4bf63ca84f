//! Skills: documents that teach a model how to use what is here.
//!
//! One is shipped. A directory of the user's adds others; its tree is read once, and nothing outside of it is served.

use std::path::Path;

use rmcp::ErrorData;
use rmcp::handler::server::skill_catalog::SkillCatalog;
use rmcp::model::{
    GetSkillResult, ListSkillsResult, ReadResourceDirectoryResult, ReadResourceResult, Resource,
};

use crate::dirs;
use crate::failure::{Code, Failure};

/// The shipped skill.
const SHIPPED: &str = include_str!("../../clients/plugin/skills/vers/SKILL.md");

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Skills(Vec<SkillCatalog>);

impl Skills {
    /// The shipped skill and those below this directory. Reads files.
    pub(crate) fn load(own: Option<&Path>) -> Result<Self, Failure> {
        let mut all = Vec::new();
        match shipped() {
            Ok(catalog) => all.push(catalog),
            // Tools work without it.
            Err(why) => tracing::warn!("the shipped skill is not served: {why}"),
        }
        if let Some(own) = own {
            let catalog = SkillCatalog::from_dir(own).map_err(|why| {
                Failure::new(
                    Code::Usage,
                    "usage",
                    format!("the skills are not served: {why}"),
                )
                .next(
                    "give a directory with --skills that has a directory with a SKILL.md for each",
                )
            })?;
            all.push(catalog);
        }
        Ok(Self(all))
    }

    pub(crate) fn list(&self) -> ListSkillsResult {
        let mut skills: Vec<_> = self.0.iter().flat_map(SkillCatalog::skills).collect();
        skills.sort_by(|a, b| a.uri.cmp(&b.uri));
        skills.dedup_by(|a, b| a.uri == b.uri);
        ListSkillsResult::with_all_items(skills)
    }

    pub(crate) fn get(&self, uri: &str) -> Result<GetSkillResult, ErrorData> {
        self.first(|catalog| catalog.get_skill(uri))
    }

    pub(crate) fn directory(&self, uri: &str) -> Result<ReadResourceDirectoryResult, ErrorData> {
        self.first(|catalog| catalog.read_resource_directory(uri))
    }

    pub(crate) fn resources(&self) -> Vec<Resource> {
        self.0.iter().flat_map(SkillCatalog::resources).collect()
    }

    pub(crate) fn read(&self, uri: &str) -> Option<ReadResourceResult> {
        self.0.iter().find_map(|catalog| catalog.read_resource(uri))
    }

    fn first<T>(
        &self,
        find: impl Fn(&SkillCatalog) -> Result<T, ErrorData>,
    ) -> Result<T, ErrorData> {
        let mut last = ErrorData::invalid_params("there are no skills", None);
        for catalog in &self.0 {
            match find(catalog) {
                Ok(found) => return Ok(found),
                Err(why) => last = why,
            }
        }
        Err(last)
    }
}

/// The SDK reads skills from a directory: the shipped one is put into one of the cache.
fn shipped() -> Result<SkillCatalog, String> {
    let root = dirs::cache()
        .map_err(|why| why.line())?
        .join("skills")
        .join(env!("CARGO_PKG_VERSION"));
    let file = root.join("vers/SKILL.md");
    if std::fs::read(&file).ok().as_deref() != Some(SHIPPED.as_bytes()) {
        let write = || {
            let directory = root.join("vers");
            std::fs::create_dir_all(&directory)?;
            let new = tempfile::NamedTempFile::new_in(&directory)?;
            std::fs::write(new.path(), SHIPPED)?;
            new.persist(&file).map_err(|why| why.error)
        };
        write().map_err(|why| format!("{}: {why}", file.display()))?;
    }
    SkillCatalog::from_dir(root).map_err(|why| why.to_string())
}
