//! Names of commits (two name spaces: flat tags, and tags in repositories) and the account's environment variables.
//!
//! These are small and rarely written: a change writes its file while the registry is locked, on a blocking thread.

use super::registry::Registry;
use super::{Fault, Manager, blocking};
use crate::state::record::{RepositoryRecord, TagRecord};
use crate::state::{remove, write_json};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::sync::Arc;
use uuid::Uuid;

const MAX_NAMES: usize = 4096;
const MAX_VARIABLES: usize = 1024;

/// A change of a tag: outer `None` keeps, inner `None` clears.
#[derive(Debug, Clone, Default)]
pub(crate) struct TagChange {
    pub(crate) commit_id: Option<Uuid>,
    pub(crate) description: Option<Option<String>>,
}

/// Names of tags and repositories: 1 to 64 of letters, digits, `-`, `_`, `.`.
pub(crate) fn valid_name(what: &str, name: &str) -> Result<(), Fault> {
    let fine = (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if fine {
        Ok(())
    } else {
        Err(Fault::Invalid(format!(
            "{what} must be 1-64 characters: letters, digits, hyphens, underscores, dots"
        )))
    }
}

fn new_tag(
    registry: &Registry,
    name: String,
    commit_id: Uuid,
    description: Option<String>,
) -> Result<TagRecord, Fault> {
    valid_name("tag name", &name)?;
    registry.commit(commit_id)?;
    let now = Timestamp::now();
    Ok(TagRecord {
        tag_id: Uuid::new_v4(),
        tag_name: name,
        commit_id,
        description,
        created_at: now,
        updated_at: now,
    })
}

fn changed(registry: &Registry, mut tag: TagRecord, change: TagChange) -> Result<TagRecord, Fault> {
    if change.commit_id.is_none() && change.description.is_none() {
        return Err(Fault::Invalid("No updates provided".into()));
    }
    if let Some(commit) = change.commit_id {
        registry.commit(commit)?;
        tag.commit_id = commit;
    }
    if let Some(description) = change.description {
        tag.description = description;
    }
    tag.updated_at = Timestamp::now();
    Ok(tag)
}

impl Manager {
    /// A short change of names, on a blocking thread, under the registry's lock.
    async fn names<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self, &mut Registry) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let me = self.clone();
        self.owned(async move {
            let done = {
                let me = me.clone();
                blocking(move || work(&me, &mut me.registry())).await?
            };
            // A name may have been the last that needed a commit.
            me.drop_unneeded().await;
            done
        })
        .await
    }

    pub(crate) fn tags(&self) -> Vec<TagRecord> {
        self.registry().tags.values().cloned().collect()
    }

    pub(crate) fn tag(&self, name: &str) -> Result<TagRecord, Fault> {
        self.registry()
            .tags
            .get(name)
            .cloned()
            .ok_or(Fault::TAG_NOT_FOUND)
    }

    pub(crate) async fn create_tag(
        self: &Arc<Self>,
        name: String,
        commit: Uuid,
        description: Option<String>,
    ) -> Result<TagRecord, Fault> {
        self.names(move |me, registry| {
            let tag = new_tag(registry, name, commit, description)?;
            if registry.tags.contains_key(&tag.tag_name) {
                return Err(Fault::Conflict("tag already exists".into()));
            }
            room(registry.tags.len())?;
            write_json(&me.state.commit_tag(tag.tag_id), &tag)?;
            registry.tags.insert(tag.tag_name.clone(), tag.clone());
            Ok(tag)
        })
        .await
    }

    pub(crate) async fn update_tag(
        self: &Arc<Self>,
        name: String,
        change: TagChange,
    ) -> Result<(), Fault> {
        self.names(move |me, registry| {
            let tag = registry
                .tags
                .get(&name)
                .cloned()
                .ok_or(Fault::TAG_NOT_FOUND)?;
            let tag = changed(registry, tag, change)?;
            write_json(&me.state.commit_tag(tag.tag_id), &tag)?;
            registry.tags.insert(name, tag);
            Ok(())
        })
        .await
    }

    pub(crate) async fn delete_tag(self: &Arc<Self>, name: String) -> Result<(), Fault> {
        self.names(move |me, registry| {
            let id = registry.tags.get(&name).ok_or(Fault::TAG_NOT_FOUND)?.tag_id;
            remove(&me.state.commit_tag(id))?;
            registry.tags.remove(&name);
            Ok(())
        })
        .await
    }

    pub(crate) fn repositories(&self) -> Vec<RepositoryRecord> {
        self.registry().repositories.values().cloned().collect()
    }

    pub(crate) fn repository(&self, name: &str) -> Result<RepositoryRecord, Fault> {
        self.registry()
            .repositories
            .get(name)
            .cloned()
            .ok_or(Fault::REPOSITORY_NOT_FOUND)
    }

    pub(crate) async fn create_repository(
        self: &Arc<Self>,
        name: String,
        description: Option<String>,
    ) -> Result<RepositoryRecord, Fault> {
        self.names(move |me, registry| {
            valid_name("repository name", &name)?;
            if registry.repositories.contains_key(&name) {
                return Err(Fault::Conflict("repository already exists".into()));
            }
            room(registry.repositories.len())?;
            let repository = RepositoryRecord {
                repo_id: Uuid::new_v4(),
                name: name.clone(),
                description,
                is_public: false,
                created_at: Timestamp::now(),
                tags: BTreeMap::new(),
            };
            write_json(&me.state.repository(repository.repo_id), &repository)?;
            registry.repositories.insert(name, repository.clone());
            Ok(repository)
        })
        .await
    }

    /// Removes a repository and its tags. The commits stay.
    pub(crate) async fn delete_repository(self: &Arc<Self>, name: String) -> Result<(), Fault> {
        self.names(move |me, registry| {
            let id = registry
                .repositories
                .get(&name)
                .ok_or(Fault::REPOSITORY_NOT_FOUND)?
                .repo_id;
            remove(&me.state.repository(id))?;
            registry.repositories.remove(&name);
            Ok(())
        })
        .await
    }

    pub(crate) async fn set_visibility(
        self: &Arc<Self>,
        name: String,
        is_public: bool,
    ) -> Result<(), Fault> {
        self.change_repository(name, move |repository, _| {
            repository.is_public = is_public;
            Ok(())
        })
        .await
    }

    async fn change_repository<T: Send + 'static>(
        self: &Arc<Self>,
        name: String,
        change: impl FnOnce(&mut RepositoryRecord, &Registry) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        self.names(move |me, registry| {
            let mut repository = registry
                .repositories
                .get(&name)
                .cloned()
                .ok_or(Fault::REPOSITORY_NOT_FOUND)?;
            let result = change(&mut repository, registry)?;
            write_json(&me.state.repository(repository.repo_id), &repository)?;
            registry.repositories.insert(name, repository);
            Ok(result)
        })
        .await
    }

    pub(crate) fn repo_tag(&self, repository: &str, tag: &str) -> Result<TagRecord, Fault> {
        self.repository(repository)?
            .tags
            .remove(tag)
            .ok_or(Fault::TAG_NOT_FOUND)
    }

    pub(crate) async fn create_repo_tag(
        self: &Arc<Self>,
        repository: String,
        name: String,
        commit: Uuid,
        description: Option<String>,
    ) -> Result<TagRecord, Fault> {
        self.change_repository(repository, move |repository, registry| {
            let tag = new_tag(registry, name, commit, description)?;
            if repository.tags.contains_key(&tag.tag_name) {
                return Err(Fault::Conflict("tag already exists".into()));
            }
            room(repository.tags.len())?;
            repository.tags.insert(tag.tag_name.clone(), tag.clone());
            Ok(tag)
        })
        .await
    }

    pub(crate) async fn update_repo_tag(
        self: &Arc<Self>,
        repository: String,
        name: String,
        change: TagChange,
    ) -> Result<(), Fault> {
        self.change_repository(repository, move |repository, registry| {
            let tag = repository
                .tags
                .get(&name)
                .cloned()
                .ok_or(Fault::TAG_NOT_FOUND)?;
            let tag = changed(registry, tag, change)?;
            repository.tags.insert(name, tag);
            Ok(())
        })
        .await
    }

    pub(crate) async fn delete_repo_tag(
        self: &Arc<Self>,
        repository: String,
        name: String,
    ) -> Result<(), Fault> {
        self.change_repository(repository, move |repository, _| {
            repository
                .tags
                .remove(&name)
                .map(|_| ())
                .ok_or(Fault::TAG_NOT_FOUND)
        })
        .await
    }

    /// The commit that `repository:tag` names.
    pub(crate) fn resolve_ref(&self, reference: &str) -> Result<Uuid, Fault> {
        let (repository, tag) = reference
            .split_once(':')
            .filter(|(r, t)| !r.is_empty() && !t.is_empty() && !t.contains(':'))
            .ok_or_else(|| {
                Fault::Invalid("Invalid ref format. Expected 'repo_name:tag_name'".into())
            })?;
        self.repo_tag(repository, tag).map(|t| t.commit_id)
    }

    pub(crate) fn env(&self) -> BTreeMap<String, String> {
        self.registry().env.clone()
    }

    /// Adds variables, or replaces all. They reach VMs at their next start.
    pub(crate) async fn set_env(
        self: &Arc<Self>,
        vars: BTreeMap<String, String>,
        replace: bool,
    ) -> Result<BTreeMap<String, String>, Fault> {
        for (key, value) in &vars {
            valid_variable(key, value)?;
        }
        self.names(move |me, registry| {
            let mut all = if replace {
                BTreeMap::new()
            } else {
                registry.env.clone()
            };
            all.extend(vars);
            if all.len() > MAX_VARIABLES {
                return Err(Fault::Invalid(format!(
                    "at most {MAX_VARIABLES} environment variables are kept"
                )));
            }
            write_json(&me.state.path("env_vars.json"), &all)?;
            registry.env.clone_from(&all);
            Ok(all)
        })
        .await
    }

    pub(crate) async fn delete_env(self: &Arc<Self>, key: String) -> Result<(), Fault> {
        self.names(move |me, registry| {
            let mut all = registry.env.clone();
            all.remove(&key)
                .ok_or(Fault::NotFound("Environment variable not found"))?;
            write_json(&me.state.path("env_vars.json"), &all)?;
            registry.env = all;
            Ok(())
        })
        .await
    }
}

fn room(have: usize) -> Result<(), Fault> {
    if have >= MAX_NAMES {
        return Err(Fault::Invalid(format!(
            "at most {MAX_NAMES} names are kept; delete some"
        )));
    }
    Ok(())
}

fn valid_variable(key: &str, value: &str) -> Result<(), Fault> {
    let named = key
        .bytes()
        .enumerate()
        .all(|(i, b)| b == b'_' || b.is_ascii_alphabetic() || (i > 0 && b.is_ascii_digit()));
    if key.is_empty() || key.len() > 256 || !named {
        return Err(Fault::Invalid(
            "environment variable keys must match ^[A-Za-z_][A-Za-z0-9_]*$ and have at most 256 characters".into(),
        ));
    }
    if value.chars().count() > 8192 || value.contains('\0') {
        return Err(Fault::Invalid(format!(
            "the value of environment variable {key} must have at most 8192 characters and no NUL"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod unit {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn only_plain_names_pass(name in "\\PC{0,70}") {
            let plain = !name.is_empty() && name.len() <= 64
                && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
            prop_assert_eq!(valid_name("name", &name).is_ok(), plain);
        }

        #[test]
        fn only_shell_names_pass(key in "[A-Za-z0-9_= ]{0,8}") {
            let fine = !key.is_empty() && !key.starts_with(|c: char| c.is_ascii_digit())
                && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            prop_assert_eq!(valid_variable(&key, "v").is_ok(), fine);
        }
    }

    #[test]
    fn values_have_a_bound() {
        assert!(valid_variable("K", &"x".repeat(8192)).is_ok());
        assert!(valid_variable("K", &"x".repeat(8193)).is_err());
        assert!(valid_variable("K", "a\0b").is_err());
    }
}
