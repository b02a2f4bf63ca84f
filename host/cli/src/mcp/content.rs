//! What extensions make, in the protocol's types.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pi_vers_host::{Content, ResourceBody, ResourceContents, visible};
use rmcp::ErrorData;
use rmcp::model::{ContentBlock, Resource, ResourceContents as Told};

/// One block of a message.
pub(crate) fn block(content: &Content) -> ContentBlock {
    match content {
        Content::Text(text) => ContentBlock::text(text.clone()),
        Content::Image(image) => {
            ContentBlock::image(STANDARD.encode(&image.data), image.media_type.clone())
        }
        Content::Audio(audio) => {
            ContentBlock::audio(STANDARD.encode(&audio.data), audio.media_type.clone())
        }
        Content::Resource(contents) => ContentBlock::resource(contents_of(contents)),
        Content::Link(link) => {
            let mut told = Resource::new(&link.uri, &link.name);
            told.description = link.description.clone();
            told.mime_type = link.media_type.clone();
            ContentBlock::resource_link(told)
        }
    }
}

/// What a resource holds.
pub(crate) fn contents_of(contents: &ResourceContents) -> Told {
    let told = match &contents.body {
        ResourceBody::Text(text) => Told::text(text.clone(), &contents.uri),
        ResourceBody::Blob(bytes) => Told::blob(STANDARD.encode(bytes), &contents.uri),
    };
    match &contents.media_type {
        Some(media_type) => told.with_mime_type(media_type),
        None => told,
    }
}

/// There is none of this name.
pub(crate) fn unknown(what: &str, name: &str) -> ErrorData {
    let name: String = visible(name).chars().take(80).collect();
    ErrorData::invalid_params(format!("Unknown {what}: {name}"), None)
}
