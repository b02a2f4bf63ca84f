//! What a guest hands on to the harness: without the value of any secret, wherever the guest had it from, and no larger
//! than its limit `output`.

use std::borrow::Cow;
use std::fmt;

use pi_vers_system::secrets::Secrets;
use serde_json::Value;

use crate::content::Content;

/// More than the limit `output` allows.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooLarge {
    size: usize,
    limit: u64,
}

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { size, limit } = self;
        write!(
            f,
            "has {size} bytes, more than the {limit} that the limit `output` allows"
        )
    }
}

/// Makes a message and the data that go with it fit to leave.
pub(crate) fn message<'a>(
    secrets: &Secrets,
    limit: u64,
    content: &mut [Content],
    data: impl IntoIterator<Item = &'a mut Value>,
) -> Result<(), TooLarge> {
    clean_all(secrets, content.iter_mut().flat_map(Content::texts_mut));
    let contents = content.iter().map(Content::size);
    let data = data.into_iter().map(|value| {
        clean_json(secrets, value);
        bytes(value)
    });
    within(limit, contents.chain(data))
}

/// Whether parts of these sizes are within the limit together.
pub(crate) fn within(limit: u64, sizes: impl IntoIterator<Item = usize>) -> Result<(), TooLarge> {
    let size = sizes.into_iter().fold(0, usize::saturating_add);
    if u64::try_from(size).unwrap_or(u64::MAX) > limit {
        return Err(TooLarge { size, limit });
    }
    Ok(())
}

/// Takes the secrets out of texts.
pub(crate) fn clean_all<'a>(secrets: &Secrets, texts: impl IntoIterator<Item = &'a mut String>) {
    texts.into_iter().for_each(|text| clean(secrets, text));
}

/// The same for one.
pub(crate) fn clean(secrets: &Secrets, text: &mut String) {
    if let Cow::Owned(clean) = secrets.redact(text) {
        *text = clean;
    }
}

/// The same for every text of a JSON value, names of members included.
pub(crate) fn clean_json(secrets: &Secrets, value: &mut Value) {
    match value {
        Value::String(text) => clean(secrets, text),
        Value::Array(items) => items.iter_mut().for_each(|item| clean_json(secrets, item)),
        Value::Object(members) => {
            let is_secret = |name: &String| matches!(secrets.redact(name), Cow::Owned(_));
            if members.keys().any(is_secret) {
                *members = std::mem::take(members)
                    .into_iter()
                    .map(|(name, value)| (secrets.redact(&name).into_owned(), value))
                    .collect();
            }
            members
                .values_mut()
                .for_each(|member| clean_json(secrets, member));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// About as many bytes as the value has as a text.
fn bytes(value: &Value) -> usize {
    const LEAST: usize = 4;
    match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(bytes).fold(LEAST, usize::saturating_add),
        Value::Object(members) => members
            .iter()
            .map(|(name, value)| name.len().saturating_add(bytes(value)))
            .fold(LEAST, usize::saturating_add),
        Value::Null | Value::Bool(_) | Value::Number(_) => LEAST,
    }
}
