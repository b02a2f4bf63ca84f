//! What extensions publish besides tools: resources to read and prompts to fill in.
//!
//! Lists are a guest's words and go to foreign programs, which make slash commands of names and fetch URIs. So an
//! entry whose name or URI could be misread is left out with a line in the log (the others are still of use),
//! texts are made visible and cut at a length, and the number is bounded.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::bindings::exports::vers::harness::{prompts as wit_prompts, resources as wit_resources};
use crate::content::{Content, ResourceContents, media_type, uri, uri_template};
use crate::types::{fits_name, visible};

/// The most entries of one list, of all extensions of a session together.
pub(crate) const MOST_ENTRIES: usize = 1000;

/// The most arguments of a prompt.
const MOST_ARGUMENTS: usize = 64;

/// The most ways to go on typing an argument, as MCP has it.
const MOST_VALUES: usize = 100;

/// The longest name or title, in characters.
const LONGEST_NAME: usize = 256;

/// The longest description, in characters.
const LONGEST_DESCRIPTION: usize = 4096;

/// The longest value of an argument that is offered, in bytes.
const LONGEST_VALUE: usize = 1024;

/// A resource that can be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resource {
    /// Printable ASCII, with a scheme; unique in the session.
    pub uri: String,
    /// What to call it in a program or a prompt.
    pub name: String,
    /// What to call it for people, if that is something else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// What it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// For example `text/plain`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
}

/// A family of resources that are not all listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourceTemplate {
    /// As RFC 6570 writes it, for example `notes://{year}/{name}`.
    pub uri_template: String,
    /// What to call it in a program or a prompt.
    pub name: String,
    /// What to call it for people, if that is something else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// What its members are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The same of all members, if it is the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
}

/// A blank of a prompt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromptArgument {
    /// 1 to 64 letters, digits, `_` and `-`.
    pub name: String,
    /// What to fill in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Whether it has to be filled in.
    pub required: bool,
}

/// Messages that an extension writes for the user to send.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prompt {
    /// 1 to 64 letters, digits, `_` and `-`; unique in the session.
    pub name: String,
    /// What to call it for people, if that is something else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// What it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Its blanks.
    pub arguments: Vec<PromptArgument>,
}

/// Who says a message of a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the names say it all")]
pub enum Speaker {
    User,
    Assistant,
}

/// One message of a prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromptMessage {
    /// Who says it.
    pub speaker: Speaker,
    /// What is said.
    pub content: Content,
}

/// A prompt with its blanks filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conversation {
    /// What it is for.
    pub description: Option<String>,
    /// The messages, in order.
    pub messages: Vec<PromptMessage>,
}

impl Conversation {
    pub(crate) fn size(&self) -> usize {
        let sizes = self.messages.iter().map(|message| message.content.size());
        sizes.fold(0, usize::saturating_add)
    }
}

/// An entry of a list, with what makes it one of a kind.
pub(crate) trait Entry {
    fn key(&self) -> &str;
}

impl Entry for Resource {
    fn key(&self) -> &str {
        &self.uri
    }
}

impl Entry for ResourceTemplate {
    fn key(&self) -> &str {
        &self.uri_template
    }
}

impl Entry for Prompt {
    fn key(&self) -> &str {
        &self.name
    }
}

/// The sound entries of a guest's list, each once; those left out are named in the log.
pub(crate) fn entries<W, E>(from: &str, listed: Vec<W>) -> Vec<E>
where
    E: Entry + TryFrom<W, Error = String>,
{
    let mut seen = HashSet::new();
    let mut kept = Vec::new();
    for one in listed {
        if kept.len() == MOST_ENTRIES {
            tracing::warn!(
                extension = from,
                "it lists more than {MOST_ENTRIES} of one kind; the rest is left out"
            );
            break;
        }
        match E::try_from(one) {
            Ok(entry) if seen.insert(entry.key().to_owned()) => kept.push(entry),
            Ok(entry) => {
                tracing::warn!(extension = from, "it lists {} twice", entry.key());
            }
            Err(why) => tracing::warn!(extension = from, "an entry is left out: {why}"),
        }
    }
    kept
}

/// The values of a guest that can be offered.
pub(crate) fn values(found: Vec<String>) -> Vec<String> {
    let fit = |value: &String| value.len() <= LONGEST_VALUE && visible(value) == *value;
    found.into_iter().filter(fit).take(MOST_VALUES).collect()
}

fn cut(text: &str, longest: usize) -> String {
    let mut text = visible(text);
    if let Some((at, _)) = text.char_indices().nth(longest) {
        text.truncate(at);
        text.push('…');
    }
    text
}

fn titled(text: &str) -> String {
    cut(text, LONGEST_NAME).replace('\n', " ")
}

fn described(text: Option<String>) -> Option<String> {
    text.map(|text| cut(&text, LONGEST_DESCRIPTION))
}

impl TryFrom<wit_resources::Entry> for Resource {
    type Error = String;

    fn try_from(entry: wit_resources::Entry) -> Result<Self, String> {
        uri(&entry.uri)?;
        entry.media_type.as_deref().map_or(Ok(()), media_type)?;
        Ok(Self {
            uri: entry.uri,
            name: titled(&entry.name),
            title: entry.title.as_deref().map(titled),
            description: described(entry.description),
            media_type: entry.media_type,
        })
    }
}

impl TryFrom<wit_resources::Template> for ResourceTemplate {
    type Error = String;

    fn try_from(template: wit_resources::Template) -> Result<Self, String> {
        uri_template(&template.uri_template)?;
        template.media_type.as_deref().map_or(Ok(()), media_type)?;
        Ok(Self {
            uri_template: template.uri_template,
            name: titled(&template.name),
            title: template.title.as_deref().map(titled),
            description: described(template.description),
            media_type: template.media_type,
        })
    }
}

impl TryFrom<wit_prompts::Prompt> for Prompt {
    type Error = String;

    fn try_from(prompt: wit_prompts::Prompt) -> Result<Self, String> {
        fits_name("a prompt's name", &prompt.name)?;
        if prompt.arguments.len() > MOST_ARGUMENTS {
            return Err(format!(
                "the prompt {} has {} arguments; {MOST_ARGUMENTS} are the most",
                prompt.name,
                prompt.arguments.len()
            ));
        }
        let mut arguments: Vec<PromptArgument> = Vec::new();
        for argument in prompt.arguments {
            fits_name("a prompt's argument", &argument.name)?;
            if arguments.iter().any(|known| known.name == argument.name) {
                return Err(format!(
                    "the prompt {} has the argument {} twice",
                    prompt.name, argument.name
                ));
            }
            arguments.push(PromptArgument {
                name: argument.name,
                description: described(argument.description),
                required: argument.required,
            });
        }
        Ok(Self {
            name: prompt.name,
            title: prompt.title.as_deref().map(titled),
            description: described(prompt.description),
            arguments,
        })
    }
}

impl TryFrom<wit_prompts::Conversation> for Conversation {
    type Error = String;

    fn try_from(conversation: wit_prompts::Conversation) -> Result<Self, String> {
        let message = |message: wit_prompts::Message| {
            Ok(PromptMessage {
                speaker: match message.speaker {
                    wit_prompts::Speaker::User => Speaker::User,
                    wit_prompts::Speaker::Assistant => Speaker::Assistant,
                },
                content: message.content.try_into()?,
            })
        };
        Ok(Self {
            description: described(conversation.description),
            messages: conversation
                .messages
                .into_iter()
                .map(message)
                .collect::<Result<_, String>>()?,
        })
    }
}

/// Parts of a resource as a guest handed them back.
pub(crate) fn parts(
    read: Vec<crate::bindings::vers::harness::types::ResourceContents>,
) -> Result<Vec<ResourceContents>, String> {
    read.into_iter().map(ResourceContents::try_from).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn entry(uri: &str) -> wit_resources::Entry {
        wit_resources::Entry {
            uri: uri.into(),
            name: "n\u{1b}[2J".into(),
            title: None,
            description: Some("d".repeat(LONGEST_DESCRIPTION + 1)),
            media_type: None,
        }
    }

    #[test]
    fn a_bad_entry_hides_no_good_one_and_texts_are_made_visible_and_cut() {
        let listed = vec![
            entry("no uri"),
            entry("test://a"),
            entry("test://a"),
            entry("test://b"),
        ];
        let kept: Vec<Resource> = entries("x", listed);
        let uris: Vec<&str> = kept.iter().map(|one| one.uri.as_str()).collect();
        assert_eq!(uris, ["test://a", "test://b"]);
        for one in &kept {
            assert_eq!(one.name, "n\u{241b}[2J");
            let length = one.description.as_ref().unwrap().chars().count();
            assert_eq!(length, LONGEST_DESCRIPTION + 1);
        }
    }

    #[test]
    fn a_list_without_end_is_cut() {
        let listed = (0..=MOST_ENTRIES).map(|n| entry(&format!("test://{n}")));
        assert_eq!(
            entries::<_, Resource>("x", listed.collect()).len(),
            MOST_ENTRIES
        );
    }

    #[test]
    fn prompts_with_names_that_could_be_misread_are_left_out() {
        let prompt = |name: &str, arguments: &[&str]| wit_prompts::Prompt {
            name: name.into(),
            title: None,
            description: None,
            arguments: arguments
                .iter()
                .map(|name| wit_prompts::Argument {
                    name: (*name).into(),
                    description: None,
                    required: true,
                })
                .collect(),
        };
        let listed = vec![
            prompt("a b", &[]),
            prompt("-x", &[]),
            prompt("twice", &["a", "a"]),
            prompt("blank", &[""]),
            prompt("good", &["arg1", "resourceUri"]),
        ];
        let kept: Vec<Prompt> = entries("x", listed);
        assert_eq!(kept.len(), 1);
        assert_eq!(kept.first().unwrap().name, "good");
    }

    #[test]
    fn values_that_move_the_cursor_or_are_too_many_are_not_offered() {
        let mut found = vec!["a\u{1b}".to_owned(), "x".repeat(LONGEST_VALUE + 1)];
        found.extend((0..200).map(|n| n.to_string()));
        let offered = values(found);
        assert_eq!(offered.len(), MOST_VALUES);
        assert_eq!(offered.first().unwrap(), "0");
    }
}
