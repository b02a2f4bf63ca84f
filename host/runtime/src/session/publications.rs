//! Resources and prompts of a session: listed over all its extensions, read and filled in by the one that has them.
//!
//! Who has a name is found by asking: lists may change at any time, and members of a template are on no list. The
//! extensions are asked in the order they were loaded, so the first one wins, as in the lists.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{COMPLETE, Cause, Offer, Session, given_up, refused};
use crate::actor::{Found, Job, Reply, Wanted};
use crate::bindings::vers::harness::types as wit;
use crate::content::{Content, ResourceContents};
use crate::error::CallError;
use crate::outgoing;
use crate::owner::Owner;
use crate::publications::{
    Conversation, Entry, MOST_ENTRIES, Prompt, Resource, ResourceTemplate, entries, parts, values,
};
use crate::slot::{Ended, Slot};
use crate::types::{ToolOutput, visible};

impl Session {
    /// The resources there are now, over all extensions, at most 1,000. An extension that fails or takes longer than 5 s is left
    /// out, with a line in the log; entries with a URI that could be misread are left out, too.
    ///
    /// # Errors
    /// [`CallError::Cancelled`] alone. Cancel-safe.
    pub async fn resources(&self, cause: &Cause) -> Result<Vec<Offer<Resource>>, CallError> {
        self.listed(cause, Wanted::Resources, |slot, found| match found {
            Found::Resources(found) => Some(found.map(|found| entries(slot.name(), found))),
            _ => None,
        })
        .await
    }

    /// The families of resources there are, like [`Session::resources`].
    ///
    /// # Errors
    /// [`CallError::Cancelled`] alone. Cancel-safe.
    pub async fn resource_templates(
        &self,
        cause: &Cause,
    ) -> Result<Vec<Offer<ResourceTemplate>>, CallError> {
        self.listed(cause, Wanted::Templates, |slot, found| match found {
            Found::Templates(found) => Some(found.map(|found| entries(slot.name(), found))),
            _ => None,
        })
        .await
    }

    /// The prompts there are now, like [`Session::resources`]. Commands are not among them.
    ///
    /// # Errors
    /// [`CallError::Cancelled`] alone. Cancel-safe.
    pub async fn prompts(&self, cause: &Cause) -> Result<Vec<Offer<Prompt>>, CallError> {
        self.listed(cause, Wanted::Prompts, |slot, found| match found {
            Found::Prompts(found) => Some(found.map(|found| entries(slot.name(), found))),
            _ => None,
        })
        .await
    }

    /// What a resource holds: of the first extension that has it.
    ///
    /// # Errors
    /// [`CallError::Unknown`] when none has it, else like a tool call's. Cancel-safe: dropping the future gives it up.
    pub async fn read_resource(
        &self,
        cause: &Cause,
        uri: &str,
    ) -> Result<Vec<ResourceContents>, CallError> {
        let unknown = || unknown("resource", uri);
        crate::content::uri(uri).map_err(|_| unknown())?;
        let wanted = Wanted::Contents { uri: uri.into() };
        let what = format!("reading of {uri}");
        let (slot, found) = self
            .first(cause, wanted, &what)
            .await?
            .ok_or_else(unknown)?;
        let Found::Contents(Ok(found)) = found else {
            return Err(unknown());
        };
        let secrets = &self.0.services.secrets;
        let mut contents = parts(found).map_err(|why| broken(&slot, why))?;
        let texts = contents.iter_mut().flat_map(ResourceContents::texts_mut);
        outgoing::clean_all(secrets, texts);
        let sizes = contents.iter().map(ResourceContents::size);
        outgoing::within(slot.grants.limits().output, sizes)
            .map_err(|why| broken(&slot, format!("the resource {why}")))?;
        Ok(contents)
    }

    /// A prompt with its blanks filled in by these values. They are not checked: what a blank takes is the extension's to say.
    ///
    /// # Errors
    /// [`CallError::Unknown`] when there is no such prompt, else like a tool call's. Cancel-safe: dropping the future gives it up.
    pub async fn prompt(
        &self,
        cause: &Cause,
        name: &str,
        arguments: Vec<(String, String)>,
    ) -> Result<Conversation, CallError> {
        let unknown = || unknown("prompt", name);
        let wanted = Wanted::Conversation {
            name: name.into(),
            arguments,
        };
        let what = format!("prompt {}", visible(name));
        let (slot, found) = self
            .first(cause, wanted, &what)
            .await?
            .ok_or_else(unknown)?;
        let Found::Conversation(Ok(found)) = found else {
            return Err(unknown());
        };
        let secrets = &self.0.services.secrets;
        let mut conversation = Conversation::try_from(found).map_err(|why| broken(&slot, why))?;
        let blocks = conversation.messages.iter_mut().map(|one| &mut one.content);
        let texts = blocks.flat_map(Content::texts_mut);
        outgoing::clean_all(secrets, texts.chain(conversation.description.as_mut()));
        outgoing::within(slot.grants.limits().output, [conversation.size()])
            .map_err(|why| broken(&slot, format!("the prompt {why}")))?;
        Ok(conversation)
    }

    /// Ways to go on typing the value of a prompt's argument, at most 100: of the first extension that knows any. An extension
    /// that fails or takes longer than 5 s knows none.
    ///
    /// # Errors
    /// [`CallError::Cancelled`] alone. Cancel-safe.
    pub async fn complete_prompt(
        &self,
        cause: &Cause,
        prompt: &str,
        argument: &str,
        value: &str,
    ) -> Result<Vec<String>, CallError> {
        let wanted = Wanted::Values {
            prompt: prompt.into(),
            argument: argument.into(),
            value: value.into(),
        };
        for slot in self.publishers(&wanted) {
            let found = self.quickly(cause, &slot, wanted.clone()).await?;
            let Some(Found::Values(found)) = found else {
                continue;
            };
            let found = values(found);
            if !found.is_empty() {
                return Ok(found);
            }
        }
        Ok(Vec::new())
    }

    /// The extensions that export what answers this.
    fn publishers(&self, wanted: &Wanted) -> impl Iterator<Item = Arc<Slot>> {
        let interface = wanted.interface();
        let slots = self.0.slots.iter();
        slots
            .filter(move |slot| slot.extension.anatomy().export(interface).is_some())
            .cloned()
    }

    /// The lists of all extensions as one: asked side by side, in the order of the extensions, each name once.
    async fn listed<E: Entry>(
        &self,
        cause: &Cause,
        wanted: Wanted,
        read: impl Fn(&Slot, Found) -> Option<Result<Vec<E>, wit::Error>>,
    ) -> Result<Vec<Offer<E>>, CallError> {
        let asked = self.publishers(&wanted).map(|slot| {
            let wanted = wanted.clone();
            async move {
                let found = self.quickly(cause, &slot, wanted).await;
                (slot, found)
            }
        });
        let mut seen = HashSet::new();
        let mut all = Vec::new();
        for (slot, found) in futures::future::join_all(asked).await {
            let Some(found) = found?.and_then(|found| read(&slot, found)) else {
                continue;
            };
            let list = match found {
                Ok(list) => list,
                Err(why) => {
                    tracing::warn!(
                        extension = slot.name(),
                        "no list of it: {}",
                        refused(&self.0.services.secrets, why)
                    );
                    continue;
                }
            };
            for item in list {
                if all.len() == MOST_ENTRIES {
                    tracing::warn!(
                        "the session lists more than {MOST_ENTRIES}; the rest is left out"
                    );
                    return Ok(all);
                }
                if !seen.insert(item.key().to_owned()) {
                    tracing::warn!(
                        extension = slot.name(),
                        "{} is listed by another extension already",
                        item.key()
                    );
                    continue;
                }
                all.push(Offer {
                    extension: slot.name().to_owned(),
                    item,
                });
            }
        }
        Ok(all)
    }

    /// An answer within seconds, or none.
    async fn quickly(
        &self,
        cause: &Cause,
        slot: &Arc<Slot>,
        wanted: Wanted,
    ) -> Result<Option<Found>, CallError> {
        match self.asked(cause, slot, wanted, "a list", COMPLETE).await {
            Ok(found) => Ok(Some(found)),
            Err(cancelled @ CallError::Cancelled { .. }) if cause.cancel.is_cancelled() => {
                Err(cancelled)
            }
            Err(why) => {
                tracing::warn!(extension = slot.name(), "{why}");
                Ok(None)
            }
        }
    }

    /// The first answer that is not "not found".
    async fn first(
        &self,
        cause: &Cause,
        wanted: Wanted,
        what: &str,
    ) -> Result<Option<(Arc<Slot>, Found)>, CallError> {
        for slot in self.publishers(&wanted) {
            let limit = slot.limit();
            let found = self
                .asked(cause, &slot, wanted.clone(), what, limit)
                .await?;
            let error = match found {
                Found::Contents(Err(why)) | Found::Conversation(Err(why)) => why,
                found => return Ok(Some((slot, found))),
            };
            if !matches!(error, wit::Error::NotFound(_)) {
                return Err(refused(&self.0.services.secrets, error));
            }
        }
        Ok(None)
    }

    async fn asked(
        &self,
        cause: &Cause,
        slot: &Arc<Slot>,
        wanted: Wanted,
        what: &str,
        limit: Duration,
    ) -> Result<Found, CallError> {
        let owner = Owner::of_call(
            cause.id.clone(),
            what.to_owned(),
            slot.token(),
            Some(Instant::now() + limit),
            None,
        );
        let job = Job::Publication(wanted);
        match self.give(cause, slot, owner.clone(), job).await? {
            Ended {
                reply: Some(Reply::Publication(found)),
                end: None,
                ..
            } => Ok(found),
            ended => Err(given_up(&owner, slot, ended, ToolOutput::default())),
        }
    }
}

fn unknown(what: &'static str, name: &str) -> CallError {
    CallError::Unknown {
        what,
        name: visible(name).chars().take(80).collect(),
        near: None,
    }
}

fn broken(slot: &Slot, why: String) -> CallError {
    CallError::Contract {
        extension: slot.name().to_owned(),
        why,
    }
}
