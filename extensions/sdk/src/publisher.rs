//! The shape of an extension that publishes resources and prompts: a second trait beside [`Extension`](crate::Extension).
//!
//! It is apart because few extensions publish anything, and the host asks every component that exports the
//! interfaces for its lists.

#[cfg(target_family = "wasm")]
use crate::publications::exports::vers::harness::{prompts, resources};
use crate::{Conversation, Error, Prompt, Resource, ResourceContents, ResourceTemplate};

/// What an extension publishes. Say `pi_vers_sdk::extension!(declare, Type)`, or `pi_vers_sdk::export!(Type, Publisher)`. Lists may change at any time:
/// [`client::list_changed`](crate::client::list_changed) then tells those who keep a copy.
#[allow(
    async_fn_in_trait,
    reason = "guests have one thread; no caller could need `Send`"
)]
pub trait Publisher: 'static {
    /// The resources there are now.
    ///
    /// # Errors
    /// Why they are not known; clients then see none of this extension.
    async fn resources() -> Result<Vec<Resource>, Error> {
        Ok(Vec::new())
    }

    /// The families of resources there are.
    ///
    /// # Errors
    /// As for [`Publisher::resources`].
    async fn templates() -> Result<Vec<ResourceTemplate>, Error> {
        Ok(Vec::new())
    }

    /// What a resource holds.
    ///
    /// # Errors
    /// `Error::NotFound`: it is none of this extension.
    async fn read(uri: String) -> Result<Vec<ResourceContents>, Error> {
        Err(Error::NotFound(format!("There is no resource {uri}.")))
    }

    /// The prompts there are now.
    ///
    /// # Errors
    /// As for [`Publisher::resources`].
    async fn prompts() -> Result<Vec<Prompt>, Error> {
        Ok(Vec::new())
    }

    /// Fills a prompt in. The arguments are as the user typed them, by name.
    ///
    /// # Errors
    /// `Error::NotFound`: it is none of this extension. `Error::Invalid`: an argument is missing or malformed.
    async fn prompt(
        name: String,
        _arguments: Vec<(String, String)>,
    ) -> Result<Conversation, Error> {
        Err(Error::NotFound(format!("There is no prompt {name}.")))
    }

    /// Ways to go on typing the value of a prompt's argument.
    async fn complete_argument(_prompt: String, _argument: String, _value: String) -> Vec<String> {
        Vec::new()
    }
}

#[cfg(target_family = "wasm")]
impl<P: Publisher> resources::Guest for P {
    async fn list() -> Result<Vec<Resource>, Error> {
        P::resources().await
    }

    async fn templates() -> Result<Vec<ResourceTemplate>, Error> {
        P::templates().await
    }

    async fn read(uri: String) -> Result<Vec<ResourceContents>, Error> {
        P::read(uri).await
    }
}

#[cfg(target_family = "wasm")]
impl<P: Publisher> prompts::Guest for P {
    async fn list() -> Result<Vec<Prompt>, Error> {
        P::prompts().await
    }

    async fn get(name: String, arguments: Vec<(String, String)>) -> Result<Conversation, Error> {
        P::prompt(name, arguments).await
    }

    async fn complete(prompt: String, argument: String, value: String) -> Vec<String> {
        P::complete_argument(prompt, argument, value).await
    }
}
