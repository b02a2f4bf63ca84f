//! The one place that holds secrets.
//!
//! The threat: a value that turns up in a log, an error, a state file, a guest. So values go out one by one, by name,
//! in a wrapper that shows nothing and is wiped when it is dropped; and whatever text leaves the host can be passed
//! through [`Secrets::redact`], which looks for the values themselves, not for things that look secret. It finds a value
//! as it is, in base64 (either alphabet, wherever in the encoded text it begins), in hexadecimal, escaped as in JSON,
//! and percent-encoded in any mixture. Other encodings (compressed, encrypted, split up) pass.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use memchr::memmem;
use zeroize::Zeroizing;

/// Values shorter than this (bytes) are held but not redacted: they would be found everywhere.
pub const MIN_REDACTED: usize = 6;
/// What stands in a text where a value was.
pub const MARK: &str = "[redacted]";

/// One value, wiped when the last copy is dropped; `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<Zeroizing<String>>);

impl Secret {
    /// The value itself. Hand it on; do not keep it, print it, or put it into an argument vector.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Secrets by name; share it in an `Arc`.
#[derive(Default)]
pub struct Secrets(RwLock<Held>);

#[derive(Default)]
struct Held {
    by_name: BTreeMap<String, Secret>,
    /// Every form of every value that was ever held.
    forms: Vec<Zeroizing<Vec<u8>>>,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Secrets").field(&self.names()).finish()
    }
}

impl Secrets {
    /// None held yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes those of the named environment variables that are set, and no others.
    pub fn from_env<I, S>(names: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: AsRef<str>,
    {
        let secrets = Self::new();
        for name in names {
            // `var` panics on no name; it calls one that cannot be a variable absent.
            if let Ok(value) = std::env::var(name.as_ref()) {
                secrets.insert(name.as_ref(), value);
            }
        }
        secrets
    }

    /// Holds a value under a name. If it replaces another, the old one goes on being redacted.
    pub fn insert(&self, name: &str, value: String) {
        let mut held = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if value.len() >= MIN_REDACTED {
            for form in forms(&value) {
                if !held.forms.contains(&form) {
                    held.forms.push(form);
                }
            }
        }
        held.by_name
            .insert(name.to_owned(), Secret(Arc::new(Zeroizing::new(value))));
    }

    /// The value by name.
    pub fn get(&self, name: &str) -> Option<Secret> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .by_name
            .get(name)
            .cloned()
    }

    /// The names, sorted.
    pub fn names(&self) -> Vec<String> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .by_name
            .keys()
            .cloned()
            .collect()
    }

    /// The text without any held value: [`MARK`] where one was. A value cut in two by the text's own borders is not found,
    /// so redact whole messages, not chunks of them.
    pub fn redact<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let held = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let found = held.find(text);
        if found.is_empty() {
            return Cow::Borrowed(text);
        }
        let mut clean = String::with_capacity(text.len());
        let mut from = 0;
        for range in found {
            clean.push_str(text.get(from..range.start).unwrap_or_default());
            clean.push_str(MARK);
            from = range.end;
        }
        clean.push_str(text.get(from..).unwrap_or_default());
        // A value that is part of the mark, or arises around one: then nothing of the text can be shown.
        match held.find(&clean).is_empty() {
            true => Cow::Owned(clean),
            false => Cow::Borrowed(""),
        }
    }
}

impl Held {
    /// Where values are, merged, in order, on borders of characters.
    fn find(&self, text: &str) -> Vec<Range<usize>> {
        let bytes = text.as_bytes();
        let may_be_encoded = memchr::memchr2(b'%', b'+', bytes).is_some();
        let mut found = Vec::new();
        for form in &self.forms {
            // Every occurrence, those that overlap one another too.
            let finder = memmem::Finder::new(form.as_slice());
            let mut from = 0;
            while let Some(at) = bytes.get(from..).and_then(|rest| finder.find(rest)) {
                found.push(from + at..from + at + form.len());
                from += at + 1;
            }
            if may_be_encoded {
                let encoded =
                    |start| Some(start..start + percent_encoded(form, bytes.get(start..)?)?);
                found.extend((0..bytes.len()).filter_map(encoded));
            }
        }
        found.sort_by_key(|range| range.start);
        let mut merged: Vec<Range<usize>> = Vec::new();
        for mut range in found {
            while !text.is_char_boundary(range.start) {
                range.start -= 1;
            }
            while !text.is_char_boundary(range.end) {
                range.end += 1;
            }
            match merged.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => merged.push(range),
            }
        }
        merged
    }
}

/// How many bytes at the beginning of `text` stand for `form`, any of its bytes percent-encoded and spaces perhaps as `+`.
fn percent_encoded(form: &[u8], text: &[u8]) -> Option<usize> {
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let mut at = 0;
    for wanted in form {
        let first = *text.get(at)?;
        let escaped = match first {
            b'%' => digit(text.get(at + 1))
                .zip(digit(text.get(at + 2)))
                .map(|(high, low)| high * 16 + low),
            _ => None,
        };
        at += if escaped == Some(u32::from(*wanted)) {
            3
        } else if first == *wanted || (first == b'+' && *wanted == b' ') {
            1
        } else {
            return None;
        };
    }
    Some(at)
}

/// The value as it may turn up in a text.
fn forms(value: &str) -> Vec<Zeroizing<Vec<u8>>> {
    let bytes = value.as_bytes();
    let mut forms = vec![Zeroizing::new(bytes.to_vec())];
    if let Ok(json) = serde_json::to_string(value) {
        let json = Zeroizing::new(json);
        // Without the quotes around it.
        forms.push(Zeroizing::new(
            json.as_bytes()
                .get(1..json.len() - 1)
                .unwrap_or_default()
                .to_vec(),
        ));
    }
    let hex: Zeroizing<String> =
        Zeroizing::new(bytes.iter().map(|byte| format!("{byte:02x}")).collect());
    forms.push(Zeroizing::new(hex.to_uppercase().into_bytes()));
    forms.push(Zeroizing::new(hex.as_bytes().to_vec()));
    for before in 0..3 {
        // Within a longer text, the value begins at the first, second or third byte of a group of three. Its characters
        // that hold a part of a neighbour vary and are left out.
        let mut shifted = Zeroizing::new(vec![0; before]);
        shifted.extend_from_slice(bytes);
        let (first, last) = ((before * 8).div_ceil(6), shifted.len() * 8 / 6);
        for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
            let encoded = Zeroizing::new(engine.encode(&*shifted));
            if let Some(sure) = encoded.as_bytes().get(first..last) {
                forms.push(Zeroizing::new(sure.to_vec()));
            }
        }
    }
    forms.dedup();
    forms
}

mod stream;
#[cfg(test)]
mod tests;

pub use stream::Strainer;
