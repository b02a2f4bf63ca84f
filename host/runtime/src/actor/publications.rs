//! The exports by which an extension publishes resources and prompts, and the orders they serve.

use std::sync::Arc;

use wasmtime::Store;
use wasmtime::component::{Accessor, Instance};

use super::{Export, NotExported, export, invoke};
use crate::bindings::exports::vers::harness::{prompts, resources};
use crate::bindings::vers::harness::types as wit;
use crate::extension::Extension;
use crate::guest::Guest;
use crate::owner::Owner;

pub(crate) const RESOURCES: &str = "vers:harness/resources";
pub(crate) const PROMPTS: &str = "vers:harness/prompts";

/// Names and values for the blanks of a prompt.
type Arguments = Vec<(String, String)>;

/// What is wanted of an extension's publications.
#[derive(Clone)]
pub(crate) enum Wanted {
    Resources,
    Templates,
    Contents {
        uri: String,
    },
    Prompts,
    Conversation {
        name: String,
        arguments: Arguments,
    },
    Values {
        prompt: String,
        argument: String,
        value: String,
    },
}

impl Wanted {
    /// The interface that answers.
    pub(crate) fn interface(&self) -> &'static str {
        match self {
            Self::Resources | Self::Templates | Self::Contents { .. } => RESOURCES,
            Self::Prompts | Self::Conversation { .. } | Self::Values { .. } => PROMPTS,
        }
    }
}

/// What an extension answered.
pub(crate) enum Found {
    Resources(Result<Vec<resources::Entry>, wit::Error>),
    Templates(Result<Vec<resources::Template>, wit::Error>),
    Contents(Result<Vec<wit::ResourceContents>, wit::Error>),
    Prompts(Result<Vec<prompts::Prompt>, wit::Error>),
    Conversation(Result<prompts::Conversation, wit::Error>),
    Values(Vec<String>),
}

/// The exports an instance has.
pub(super) struct Publications {
    resources: Export<(), Result<Vec<resources::Entry>, wit::Error>>,
    templates: Export<(), Result<Vec<resources::Template>, wit::Error>>,
    read: Export<(String,), Result<Vec<wit::ResourceContents>, wit::Error>>,
    prompts: Export<(), Result<Vec<prompts::Prompt>, wit::Error>>,
    get: Export<(String, Arguments), Result<prompts::Conversation, wit::Error>>,
    complete: Export<(String, String, String), Vec<String>>,
}

impl Publications {
    pub(super) fn find(
        store: &mut Store<Guest>,
        instance: &Instance,
        extension: &Extension,
    ) -> wasmtime::Result<Self> {
        Ok(Self {
            resources: export(store, instance, extension, RESOURCES, "list")?,
            templates: export(store, instance, extension, RESOURCES, "templates")?,
            read: export(store, instance, extension, RESOURCES, "read")?,
            prompts: export(store, instance, extension, PROMPTS, "list")?,
            get: export(store, instance, extension, PROMPTS, "get")?,
            complete: export(store, instance, extension, PROMPTS, "complete")?,
        })
    }

    pub(super) async fn serve(
        &self,
        accessor: &Accessor<Guest>,
        owner: Arc<Owner>,
        wanted: Wanted,
    ) -> wasmtime::Result<Result<Found, NotExported>> {
        Ok(match wanted {
            Wanted::Resources => invoke(accessor, self.resources, owner, (), "resources")
                .await?
                .map(|(found,)| Found::Resources(found)),
            Wanted::Templates => invoke(accessor, self.templates, owner, (), "resources")
                .await?
                .map(|(found,)| Found::Templates(found)),
            Wanted::Contents { uri } => invoke(accessor, self.read, owner, (uri,), "resources")
                .await?
                .map(|(found,)| Found::Contents(found)),
            Wanted::Prompts => invoke(accessor, self.prompts, owner, (), "prompts")
                .await?
                .map(|(found,)| Found::Prompts(found)),
            Wanted::Conversation { name, arguments } => {
                invoke(accessor, self.get, owner, (name, arguments), "prompts")
                    .await?
                    .map(|(found,)| Found::Conversation(found))
            }
            Wanted::Values {
                prompt,
                argument,
                value,
            } => invoke(
                accessor,
                self.complete,
                owner,
                (prompt, argument, value),
                "prompts",
            )
            .await?
            .map(|(found,)| Found::Values(found)),
        })
    }
}
