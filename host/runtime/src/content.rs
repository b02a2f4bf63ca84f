//! Blocks of messages: what a tool, a prompt or a resource hands to the model or to the user.
//!
//! The texts in them are the guest's and stay as they are, for the model reads them; a front end makes them
//! [visible](crate::visible) where it shows them. What programs act on is judged when it comes in: a URI that
//! could be misread or a media type that is none breaks the contract.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::bindings::vers::harness::types as wit;
use crate::types::visible;

/// The longest URI or URI template.
const LONGEST_URI: usize = 8 << 10;

/// The longest media type.
const LONGEST_MEDIA_TYPE: usize = 255;

/// A picture for the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// For example `image/png`.
    pub media_type: String,
    /// The encoded picture.
    pub data: Vec<u8>,
}

/// A sound for the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audio {
    /// For example `audio/wav`.
    pub media_type: String,
    /// The encoded sound.
    pub data: Vec<u8>,
}

/// What a resource holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResourceBody {
    /// Text.
    Text(String),
    /// Bytes of any other kind.
    Blob(Vec<u8>),
}

/// A resource with what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceContents {
    /// Printable ASCII, with a scheme.
    pub uri: String,
    /// For example `text/plain`.
    pub media_type: Option<String>,
    /// What it holds.
    pub body: ResourceBody,
}

/// The way to a resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourceLink {
    /// Printable ASCII, with a scheme.
    pub uri: String,
    /// What to call it.
    pub name: String,
    /// What it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// For example `text/plain`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
}

/// One block of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Text.
    Text(String),
    /// A picture.
    Image(Image),
    /// A sound.
    Audio(Audio),
    /// A resource that is part of the message.
    Resource(ResourceContents),
    /// A resource to be read when it is wanted.
    Link(ResourceLink),
}

impl Content {
    /// A block of text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// The text, if it is one.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Image(_) | Self::Audio(_) | Self::Resource(_) | Self::Link(_) => None,
        }
    }

    /// The block in words, for front ends that can't show its kind: texts as they are, of everything else what it is
    /// and, where it is text in the end, that text.
    #[must_use]
    pub fn in_words(&self) -> Cow<'_, str> {
        match self {
            Self::Text(text) => Cow::Borrowed(text),
            Self::Image(image) => stand_in("image", Some(&image.media_type), image.data.len()),
            Self::Audio(audio) => stand_in("audio", Some(&audio.media_type), audio.data.len()),
            Self::Resource(resource) => match &resource.body {
                ResourceBody::Text(text) => Cow::Owned(format!("[{}]\n{text}", resource.uri)),
                ResourceBody::Blob(data) => {
                    stand_in(&resource.uri, resource.media_type.as_deref(), data.len())
                }
            },
            Self::Link(link) => {
                let name = visible(&link.name).replace('\n', " ");
                let what = link.description.as_deref().map(visible);
                let what = what.map_or_else(String::new, |what| format!(": {what}"));
                Cow::Owned(format!("[{name}]({}){what}", link.uri))
            }
        }
    }

    /// Bytes of texts and data.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Image(image) => image.data.len(),
            Self::Audio(audio) => audio.data.len(),
            Self::Resource(resource) => resource.size(),
            Self::Link(link) => {
                link.uri.len() + link.name.len() + link.description.as_ref().map_or(0, String::len)
            }
        }
    }

    /// Every text in it that the guest made up.
    pub(crate) fn texts_mut(&mut self) -> Vec<&mut String> {
        match self {
            Self::Text(text) => vec![text],
            Self::Image(_) | Self::Audio(_) => Vec::new(),
            Self::Resource(resource) => resource.texts_mut(),
            Self::Link(link) => [&mut link.uri, &mut link.name]
                .into_iter()
                .chain(link.description.as_mut())
                .collect(),
        }
    }
}

impl ResourceContents {
    pub(crate) fn size(&self) -> usize {
        let body = match &self.body {
            ResourceBody::Text(text) => text.len(),
            ResourceBody::Blob(data) => data.len(),
        };
        self.uri.len() + body
    }

    pub(crate) fn texts_mut(&mut self) -> Vec<&mut String> {
        let body = match &mut self.body {
            ResourceBody::Text(text) => Some(text),
            ResourceBody::Blob(_) => None,
        };
        std::iter::once(&mut self.uri).chain(body).collect()
    }
}

fn stand_in(what: &str, media_type: Option<&str>, bytes: usize) -> Cow<'static, str> {
    let kind = media_type.map_or_else(String::new, |kind| format!(" {}", visible(kind)));
    Cow::Owned(format!("[{what}{kind}, {bytes} bytes]"))
}

/// A URI as RFC 3986 writes it: a scheme, and nothing that could be misread. Not resolved, not normalised: it is a name.
pub(crate) fn uri(uri: &str) -> Result<(), String> {
    reference(uri, |byte| {
        byte.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&'()*+,;=%".contains(&byte)
    })
    .map_err(|why| format!("{why} is no URI"))
}

/// A URI template as RFC 6570 writes it: a URI with blanks in braces.
pub(crate) fn uri_template(template: &str) -> Result<(), String> {
    reference(template, |byte| {
        byte.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&'()*+,;=%{}|".contains(&byte)
    })
    .map_err(|why| format!("{why} is no URI template"))
}

fn reference(text: &str, allowed: fn(u8) -> bool) -> Result<(), String> {
    let scheme = text.split(':').next().unwrap_or_default();
    let fits = text.len() <= LONGEST_URI
        && scheme.len() < text.len()
        && scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
        && text.bytes().all(allowed);
    if fits { Ok(()) } else { Err(brief(text)) }
}

/// A media type, parameters included: printable, with one slash between two names.
pub(crate) fn media_type(kind: &str) -> Result<(), String> {
    let token = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte))
    };
    let essence = kind.split(';').next().unwrap_or_default().trim_end();
    let fits = kind.len() <= LONGEST_MEDIA_TYPE
        && kind.bytes().all(|byte| (0x20..0x7f).contains(&byte))
        && essence
            .split_once('/')
            .is_some_and(|(kind, name)| token(kind) && token(name));
    if fits {
        Ok(())
    } else {
        Err(format!("{} is no media type", brief(kind)))
    }
}

fn brief(text: &str) -> String {
    let shown: String = pi_vers_policy::visible(text).chars().take(80).collect();
    format!("{shown:?}")
}

impl TryFrom<wit::Content> for Content {
    type Error = String;

    fn try_from(content: wit::Content) -> Result<Self, String> {
        Ok(match content {
            wit::Content::Text(text) => Self::Text(text),
            wit::Content::Image(image) => Self::Image(Image {
                media_type: image.media_type,
                data: image.data,
            }),
            wit::Content::Audio(audio) => {
                media_type(&audio.media_type)?;
                Self::Audio(Audio {
                    media_type: audio.media_type,
                    data: audio.data,
                })
            }
            wit::Content::Resource(contents) => Self::Resource(contents.try_into()?),
            wit::Content::Link(link) => {
                uri(&link.uri)?;
                link.media_type.as_deref().map_or(Ok(()), media_type)?;
                Self::Link(ResourceLink {
                    uri: link.uri,
                    name: link.name,
                    description: link.description,
                    media_type: link.media_type,
                })
            }
        })
    }
}

impl TryFrom<wit::ResourceContents> for ResourceContents {
    type Error = String;

    fn try_from(contents: wit::ResourceContents) -> Result<Self, String> {
        uri(&contents.uri)?;
        contents.media_type.as_deref().map_or(Ok(()), media_type)?;
        Ok(Self {
            uri: contents.uri,
            media_type: contents.media_type,
            body: match contents.body {
                wit::ResourceBody::Text(text) => ResourceBody::Text(text),
                wit::ResourceBody::Blob(data) => ResourceBody::Blob(data),
            },
        })
    }
}

impl From<Content> for wit::Content {
    fn from(content: Content) -> Self {
        match content {
            Content::Text(text) => Self::Text(text),
            Content::Image(image) => Self::Image(wit::Image {
                media_type: image.media_type,
                data: image.data,
            }),
            Content::Audio(audio) => Self::Audio(wit::Audio {
                media_type: audio.media_type,
                data: audio.data,
            }),
            Content::Resource(contents) => Self::Resource(wit::ResourceContents {
                uri: contents.uri,
                media_type: contents.media_type,
                body: match contents.body {
                    ResourceBody::Text(text) => wit::ResourceBody::Text(text),
                    ResourceBody::Blob(data) => wit::ResourceBody::Blob(data),
                },
            }),
            Content::Link(link) => Self::Link(wit::ResourceLink {
                uri: link.uri,
                name: link.name,
                description: link.description,
                media_type: link.media_type,
            }),
        }
    }
}

/// The blocks of a guest, or what is wrong with the first one that is not sound.
pub(crate) fn from_guest(blocks: Vec<wit::Content>) -> Result<Vec<Content>, String> {
    blocks.into_iter().map(Content::try_from).collect()
}

/// The blocks for a guest.
pub(crate) fn for_guest(blocks: Vec<Content>) -> Vec<wit::Content> {
    blocks.into_iter().map(wit::Content::from).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn uris_that_could_be_misread_are_refused() {
        for bad in [
            "",
            "no-scheme",
            ":x",
            "1a:x",
            "a b:c",
            "test://a b",
            "test://a\u{1b}[2J",
            "test://\u{202e}gpj.exe",
            "test://a\nb",
            "test://{id}",
            &format!("test://{}", "x".repeat(LONGEST_URI)),
        ] {
            assert!(uri(bad).is_err(), "{bad:?}");
        }
        for good in [
            "test://static-text",
            "urn:isbn:0451450523",
            "file:///a%20b?c#d",
            "x+y-z.1:",
        ] {
            assert!(uri(good).is_ok(), "{good:?}");
        }
        assert!(uri_template("test://template/{id}/data").is_ok());
        assert!(uri_template("test://template/{\u{202e}}").is_err());
        let why = uri("test://a\u{1b}[2J").unwrap_err();
        assert!(
            !why.contains('\u{1b}') && why.contains("is no URI"),
            "{why}"
        );
    }

    #[test]
    fn media_types_have_two_parts() {
        for bad in [
            "",
            "text",
            "text/",
            "/plain",
            "a b/c",
            "text/plain\n",
            "a/b/c",
        ] {
            assert!(media_type(bad).is_err(), "{bad:?}");
        }
        for good in ["text/plain", "image/svg+xml", "text/plain; charset=utf-8"] {
            assert!(media_type(good).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn every_kind_of_block_has_words() {
        let resource = |body| {
            Content::Resource(ResourceContents {
                uri: "test://x".into(),
                media_type: Some("text/plain".into()),
                body,
            })
        };
        let audio = Content::Audio(Audio {
            media_type: "audio/wav".into(),
            data: vec![0; 44],
        });
        let link = Content::Link(ResourceLink {
            uri: "test://x".into(),
            name: "Notes\u{1b}".into(),
            description: Some("of today".into()),
            media_type: None,
        });
        assert_eq!(Content::text("a\u{1b}").in_words(), "a\u{1b}");
        assert_eq!(audio.in_words(), "[audio audio/wav, 44 bytes]");
        assert_eq!(
            resource(ResourceBody::Text("hi".into())).in_words(),
            "[test://x]\nhi"
        );
        assert_eq!(
            resource(ResourceBody::Blob(vec![0; 3])).in_words(),
            "[test://x text/plain, 3 bytes]"
        );
        assert_eq!(link.in_words(), "[Notes\u{241b}](test://x): of today");
    }

    proptest::proptest! {
        #[test]
        fn a_uri_that_is_let_through_is_one_printable_word(text in "\\PC{0,40}|[a-z]{1,3}:[ -~]{0,20}") {
            if uri(&text).is_ok() {
                proptest::prop_assert!(text.contains(':') && text.bytes().all(|byte| byte.is_ascii_graphic()));
            }
            let _ = media_type(&text);
        }
    }
}
