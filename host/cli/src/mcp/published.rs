//! What can be listed and read: commands and prompts, widgets, skills, and what extensions publish.

use std::collections::BTreeSet;
use std::sync::Arc;

use pi_vers_host::{CallError, Cause, Session};
use rmcp::ErrorData;
use rmcp::model::{
    ArgumentInfo, CompletionInfo, Prompt, PromptArgument, ReadResourceResult, Resource,
    ResourceContents, ResourceTemplate,
};
use serde_json::json;

use super::content::{contents_of, unknown};
use super::home::{Home, House};
use super::listing::Listing;
use super::locked;

async fn house(home: &Home) -> Result<Arc<House>, ErrorData> {
    let house = home.house().await;
    house.map_err(|why| ErrorData::internal_error(why.line(), None))
}

/// What is offered: from an earlier process until the session runs.
pub(crate) async fn listing(home: &Home) -> Result<Listing, ErrorData> {
    if home.standing().is_none()
        && let Some(early) = home.site.early()
    {
        return Ok(early.clone());
    }
    Ok(Listing::of(&house(home).await?.catalogue))
}

/// Commands and published prompts, by name. A command goes before a prompt of its name.
pub(crate) async fn prompts(home: &Home) -> Result<Vec<Prompt>, ErrorData> {
    let listing = listing(home).await?;
    let mut all = listing.prompts;
    if listing.more_prompts {
        house(home).await?;
        let work = async |session: Session, cause: Cause| session.prompts(&cause).await;
        let published = home.ask(work).await.map_err(failed)?;
        let mut known: BTreeSet<String> = all.iter().map(|prompt| prompt.name.clone()).collect();
        let published = published.into_iter().map(|offer| prompt(offer.item));
        all.extend(published.filter(|prompt| known.insert(prompt.name.clone())));
        all.sort_by(|a, b| a.name.cmp(&b.name));
    }
    Ok(all)
}

fn prompt(prompt: pi_vers_host::Prompt) -> Prompt {
    let arguments = prompt.arguments.into_iter().map(|one| {
        let mut argument = PromptArgument::new(one.name).with_required(one.required);
        argument.description = one.description;
        argument
    });
    let arguments: Vec<PromptArgument> = arguments.collect();
    let arguments = Some(arguments).filter(|all| !all.is_empty());
    let mut told = Prompt::new(prompt.name, prompt.description, arguments);
    told.title = prompt.title;
    told
}

/// How to go on typing an argument of a command or a prompt.
pub(crate) async fn complete(
    home: &Home,
    name: &str,
    argument: ArgumentInfo,
) -> Result<CompletionInfo, ErrorData> {
    let house = house(home).await?;
    let (own, value) = (name.to_owned(), argument.value);
    let found = if house.catalogue.prompts.contains_key(name) {
        let work = async move |session: Session, _: Cause| session.complete(&own, &value).await;
        let found = home.ask(work).await.map_err(failed)?;
        found.into_iter().map(|one| one.value).collect()
    } else {
        let work = async move |session: Session, cause: Cause| {
            let argument = argument.name;
            session
                .complete_prompt(&cause, &own, &argument, &value)
                .await
        };
        home.ask(work).await.map_err(|why| match why {
            CallError::Unknown { .. } => unknown("prompt", name),
            why => failed(why),
        })?
    };
    completion(found)
}

fn completion(mut found: Vec<String>) -> Result<CompletionInfo, ErrorData> {
    let total = found.len();
    found.truncate(CompletionInfo::MAX_VALUES);
    let info = CompletionInfo::new(found);
    let mut info = info.map_err(|why| ErrorData::internal_error(why, None))?;
    info.has_more = Some(total > info.values.len());
    info.total = u32::try_from(total).ok();
    Ok(info)
}

/// Status, widgets, skills, and what extensions publish.
pub(crate) async fn resources(home: &Home) -> Result<Vec<Resource>, ErrorData> {
    let mut all = {
        let board = locked(&home.board);
        board.list()
    };
    all.extend(home.site.skills.resources());
    house(home).await?;
    let work = async |session: Session, cause: Cause| session.resources(&cause).await;
    let published = home.ask(work).await.map_err(failed)?;
    all.extend(published.into_iter().map(|offer| {
        let item = offer.item;
        let mut told = Resource::new(item.uri, item.name);
        (told.title, told.description, told.mime_type) =
            (item.title, item.description, item.media_type);
        told
    }));
    Ok(all)
}

/// Patterns of what extensions publish.
pub(crate) async fn templates(home: &Home) -> Result<Vec<ResourceTemplate>, ErrorData> {
    house(home).await?;
    let work = async |session: Session, cause: Cause| session.resource_templates(&cause).await;
    let published = home.ask(work).await.map_err(failed)?;
    let template = |item: pi_vers_host::ResourceTemplate| {
        let mut told = ResourceTemplate::new(item.uri_template, item.name);
        (told.title, told.description, told.mime_type) =
            (item.title, item.description, item.media_type);
        told
    };
    Ok(published
        .into_iter()
        .map(|offer| template(offer.item))
        .collect())
}

/// Reads one of them.
pub(crate) async fn read(home: &Home, uri: String) -> Result<ReadResourceResult, ErrorData> {
    if let Some(skill) = home.site.skills.read(&uri) {
        return Ok(skill);
    }
    let text = {
        let board = locked(&home.board);
        board.read(&uri)
    };
    if let Some(text) = text {
        let contents = ResourceContents::text(text, uri).with_mime_type("text/plain");
        return Ok(ReadResourceResult::new(vec![contents]));
    }
    house(home).await?;
    let wanted = uri.clone();
    let work =
        async move |session: Session, cause: Cause| session.read_resource(&cause, &wanted).await;
    match home.ask(work).await {
        Ok(contents) => Ok(ReadResourceResult::new(
            contents.iter().map(contents_of).collect(),
        )),
        Err(CallError::Unknown { .. }) => {
            let uri = json!({ "uri": uri });
            Err(ErrorData::resource_not_found(
                "there is no such resource",
                Some(uri),
            ))
        }
        Err(why) => Err(failed(why)),
    }
}

fn failed(why: CallError) -> ErrorData {
    ErrorData::internal_error(why.to_string(), None)
}
