//! Where an extension comes from: a file, a URL, or a repository of an OCI registry.
//!
//! | written as | means |
//! |---|---|
//! | `./hello.wasm`, `/abs/hello.wasm`, `file.wasm` | a file of this machine |
//! | `https://host/path/hello.wasm` | a URL; `http` only to this machine's loopback interface |
//! | `oci://host/repository:tag`, `oci://host/repository@sha256:…` | an artifact of a registry; without tag and digest `latest` |

use std::fmt;
use std::path::{Path, PathBuf};

use pi_vers_host::policy::Digest;
use pi_vers_host::visible;
use url::{Host, Url};

/// Longer ones are no address.
const LONGEST: usize = 2048;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    File(PathBuf),
    Url(Url),
    Oci(Oci),
}

/// What to pull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Oci {
    /// `host` or `host:port`.
    pub(crate) registry: String,
    pub(crate) repository: String,
    pub(crate) reference: Reference,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reference {
    Tag(String),
    Digest(Digest),
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => f.write_str(tag),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Url(url) => url.fmt(f),
            Self::Oci(Oci {
                registry,
                repository,
                reference: Reference::Tag(tag),
            }) => write!(f, "oci://{registry}/{repository}:{tag}"),
            Self::Oci(Oci {
                registry,
                repository,
                reference: Reference::Digest(digest),
            }) => write!(f, "oci://{registry}/{repository}@{digest}"),
        }
    }
}

impl Source {
    /// Reads a source. Files are not looked for.
    ///
    /// # Errors
    /// Why it is none, in words.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("{} is no source of an extension: {why}", visible(text));
        if text.is_empty() || text.len() > LONGEST || text.contains('\0') {
            return Err(wrong("it is empty or too long"));
        }
        if let Some(rest) = text.strip_prefix("oci://") {
            return oci(rest).map(Self::Oci).map_err(|why| wrong(&why));
        }
        if text.contains("://") {
            let url: Url = text.parse().map_err(|_| wrong("it is no valid URL"))?;
            allowed(&url).map_err(|why| wrong(&why))?;
            return Ok(Self::Url(url));
        }
        Ok(Self::File(PathBuf::from(text)))
    }

    /// The same as seen from another directory: a relative path is from here.
    pub(crate) fn from(self, directory: &Path) -> Self {
        match self {
            Self::File(path) => Self::File(directory.join(path)),
            other => other,
        }
    }
}

/// Whether a host is this machine, by a name or an address that says so.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// What may be asked for an extension.
///
/// # Errors
/// Why not.
pub(crate) fn allowed(url: &Url) -> Result<(), String> {
    match url.scheme() {
        "https" => {}
        "http" if is_loopback(url) => {}
        "http" => return Err("write https: http is for this machine alone".into()),
        other => return Err(format!("{other} is neither https nor oci")),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("it holds a user or a password".into());
    }
    if url.host().is_none() {
        return Err("it names no host".into());
    }
    Ok(())
}

/// `host[:port]/repository[:tag][@digest]`, with the grammar of the distribution specification.
fn oci(text: &str) -> Result<Oci, String> {
    let (registry, path) = text
        .split_once('/')
        .ok_or("write it as oci://host/repository:tag")?;
    // The URL's own rules for a host, and nothing besides one.
    let probe: Url = format!("https://{registry}/")
        .parse()
        .map_err(|_| "the registry is no host")?;
    let plain = registry
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte));
    if !plain || probe.path() != "/" || probe.host().is_none() {
        return Err("the registry is no host".into());
    }
    let (path, digest) = match path.split_once('@') {
        Some((path, digest)) => {
            let digest: Digest = digest
                .parse()
                .map_err(|_| "what follows @ is no sha256 digest")?;
            (path, Some(digest))
        }
        None => (path, None),
    };
    let (repository, tag) = match path.rsplit_once(':') {
        Some((repository, tag)) => (repository, Some(tag)),
        None => (path, None),
    };
    let part = |part: &str| {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        part.bytes()
            .all(|byte| plain(byte) || b"._-".contains(&byte))
            && part.bytes().next().is_some_and(plain)
            && part.bytes().last().is_some_and(plain)
    };
    if repository.len() > 255 || !repository.split('/').all(part) {
        return Err(
            "the repository has other characters than small letters, digits, . _ - and /".into(),
        );
    }
    let named = |tag: &str| {
        (1..=128).contains(&tag.len())
            && tag
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
            && !tag.starts_with(['.', '-'])
    };
    let reference = match (digest, tag) {
        // The digest says which; a tag beside it says nothing.
        (Some(digest), _) => Reference::Digest(digest),
        (None, Some(tag)) if named(tag) => Reference::Tag(tag.to_owned()),
        (None, Some(_)) => return Err("the tag has characters that a tag has not".into()),
        (None, None) => Reference::Tag("latest".into()),
    };
    Ok(Oci {
        registry: registry.to_owned(),
        repository: repository.to_owned(),
        reference,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn sources_are_read_and_written_as_they_were() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for text in [
            "./a.wasm",
            "/x/a.wasm",
            "https://example.com/a.wasm?x=1",
            "http://127.0.0.1:80/a.wasm",
            "oci://registry.example:5000/team/tool:1.2",
            &format!("oci://registry.example/tool@{digest}"),
        ] {
            let source = Source::parse(text).unwrap();
            let again = Source::parse(&source.to_string()).unwrap();
            assert_eq!(source, again, "{text}");
        }
        let latest = Source::parse("oci://r.example/t").unwrap();
        assert_eq!(latest.to_string(), "oci://r.example/t:latest");
    }

    #[test]
    fn what_is_no_source_is_refused_in_words() {
        for text in [
            "",
            "http://example.com/a.wasm",
            "http://127.0.0.1.example.com/a.wasm",
            "https://user:secret@example.com/a.wasm",
            "ftp://example.com/a",
            "file:///etc/passwd",
            "oci://example.com",
            "oci://example.com/",
            "oci://example.com/UPPER",
            "oci://example.com/../x",
            "oci://example.com/a//b",
            "oci://user@example.com/a",
            "oci://example.com/a:.hidden",
            "oci://example.com/a@sha256:12",
            "oci://exam ple.com/a",
        ] {
            assert!(Source::parse(text).is_err(), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "(oci://|https://|)\\PC{0,40}") {
            if let Ok(source) = Source::parse(&text) {
                let _ = source.to_string();
            }
        }
    }
}
