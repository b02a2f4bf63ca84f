//! Pulling from an OCI registry: the few requests of the distribution specification that a component needs.
//!
//! A manifest, a token where the registry asks for one (anonymous ones: for public repositories), and the one layer that is a
//! component. Every blob is compared with the digest that the manifest gives, and the manifest with the one that was asked for, so
//! that a registry cannot hand out something else than it says.

use pi_vers_host::policy::Digest;
use serde::Deserialize;
use url::Url;

use super::fetch::{self, Answer, LARGEST};
use super::source::{Oci, Reference, allowed, is_loopback};
use crate::failure::{Code, Failure};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// What a component is called as a layer; the second is what older tools write.
const COMPONENT: [&str; 2] = [
    "application/wasm",
    "application/vnd.wasm.content.layer.v1+wasm",
];
/// An armoured SSH signature of the component.
const SIGNATURE: &str = "application/vnd.pi-vers.signature.v1";
const LARGEST_MANIFEST: usize = 4 << 20;
const LARGEST_SIGNATURE: usize = 64 << 10;
const LARGEST_TOKEN: usize = 256 << 10;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    #[serde(default)]
    layers: Vec<Layer>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layer {
    media_type: String,
    digest: String,
    size: u64,
}

#[derive(Debug, Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

/// What was pulled.
pub(super) struct Pulled {
    pub(super) component: Vec<u8>,
    pub(super) signature: Option<Vec<u8>>,
}

fn wrong(what: &Oci, why: impl std::fmt::Display) -> Failure {
    let Oci {
        registry,
        repository,
        ..
    } = what;
    Failure::new(
        Code::Platform,
        "registry",
        format!("{registry}/{repository}: {why}"),
    )
}

/// Pulls the component and, if there is one, its signature.
pub(super) async fn pull(what: &Oci) -> Result<Pulled, Failure> {
    let session = Session::open(what).await?;
    let reference = what.reference.to_string();
    let url = session.url("manifests", &reference)?;
    let answer = session.get(&url, Some(MANIFEST), LARGEST_MANIFEST).await?;
    if let Reference::Digest(wanted) = &what.reference {
        same(what, "the manifest", wanted, &answer.body)?;
    }
    let manifest: Manifest = serde_json::from_slice(&answer.body).map_err(|why| {
        wrong(
            what,
            format!("its manifest is none of an OCI artifact: {why}"),
        )
    })?;
    let mut components = manifest
        .layers
        .iter()
        .filter(|layer| COMPONENT.contains(&layer.media_type.as_str()));
    let component = match (components.next(), components.next()) {
        (Some(one), None) => session.blob(one, LARGEST).await?,
        (None, _) => {
            return Err(wrong(
                what,
                "it holds no layer of the type application/wasm: is it a component?",
            ));
        }
        (Some(_), Some(_)) => return Err(wrong(what, "it holds several components")),
    };
    let signature = manifest
        .layers
        .iter()
        .find(|layer| layer.media_type == SIGNATURE);
    let signature = match signature {
        Some(layer) => Some(session.blob(layer, LARGEST_SIGNATURE).await?),
        None => None,
    };
    Ok(Pulled {
        component,
        signature,
    })
}

fn same(what: &Oci, part: &str, wanted: &Digest, bytes: &[u8]) -> Result<(), Failure> {
    let came = Digest::of(bytes);
    if came == *wanted {
        return Ok(());
    }
    Err(Failure::new(
        Code::Extension,
        "digest",
        format!(
            "{}/{}: {part} is {came}, and should be {wanted}: the registry hands out something else",
            what.registry, what.repository
        ),
    ))
}

struct Session<'a> {
    what: &'a Oci,
    base: Url,
    token: Option<String>,
}

impl<'a> Session<'a> {
    /// Finds out whether a token is wanted, and gets one.
    async fn open(what: &'a Oci) -> Result<Self, Failure> {
        let https: Url = format!("https://{}/", what.registry)
            .parse()
            .map_err(|_| wrong(what, "the registry is no host"))?;
        // As everywhere else: this machine is asked without encryption, and nothing else is.
        let base = match is_loopback(&https) {
            true => format!("http://{}/", what.registry)
                .parse()
                .map_err(|_| wrong(what, "the registry is no host"))?,
            false => https,
        };
        let mut session = Self {
            what,
            base,
            token: None,
        };
        let url = session.url("manifests", &what.reference.to_string())?;
        let first = fetch::get(&url, Some(MANIFEST), None, LARGEST_MANIFEST).await?;
        if first.status == 401 {
            session.token = Some(session.login(&first).await?);
        }
        Ok(session)
    }

    fn url(&self, kind: &str, reference: &str) -> Result<Url, Failure> {
        let path = format!("v2/{}/{kind}/{reference}", self.what.repository);
        self.base.join(&path).map_err(|why| wrong(self.what, why))
    }

    async fn login(&self, refused: &Answer) -> Result<String, Failure> {
        let challenge = refused.header("www-authenticate").unwrap_or_default();
        let asked = challenge_of(challenge)
            .ok_or_else(|| wrong(self.what, "it asks for a login that is not known here"))?;
        let mut url: Url = asked
            .realm
            .parse()
            .map_err(|_| wrong(self.what, "it sends us to an invalid URL for a token"))?;
        allowed(&url)
            .and_then(|()| match is_loopback(&url) == is_loopback(&self.base) {
                true => Ok(()),
                false => Err("it leads from elsewhere to this machine, or away from it".into()),
            })
            .map_err(|why| wrong(self.what, format!("where it sends us for a token: {why}")))?;
        {
            let mut query = url.query_pairs_mut();
            if let Some(service) = &asked.service {
                query.append_pair("service", service);
            }
            // Not the scope that it names: to read this repository is all that is wanted.
            query.append_pair(
                "scope",
                &format!("repository:{}:pull", self.what.repository),
            );
        }
        let answer = fetch::get(&url, None, None, LARGEST_TOKEN).await?;
        if answer.status != 200 {
            return Err(wrong(
                self.what,
                format!("it gives nobody a token: HTTP {}", answer.status),
            )
            .next("only what anybody may read can be added"));
        }
        let token: Token = serde_json::from_slice(&answer.body)
            .map_err(|why| wrong(self.what, format!("its token is none: {why}")))?;
        let token = token.token.or(token.access_token);
        token
            .filter(|token| !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()))
            .ok_or_else(|| wrong(self.what, "its token is none"))
    }

    async fn get(&self, url: &Url, accept: Option<&str>, most: usize) -> Result<Answer, Failure> {
        let answer = fetch::get(url, accept, self.token.as_deref(), most).await?;
        match answer.status {
            200 => Ok(answer),
            401 | 403 => Err(wrong(self.what, "it is not for everybody to read")),
            404 => Err(wrong(self.what, "there is no such artifact")),
            status => Err(wrong(self.what, format!("HTTP {status}"))),
        }
    }

    async fn blob(&self, layer: &Layer, most: usize) -> Result<Vec<u8>, Failure> {
        let digest: Digest = layer
            .digest
            .parse()
            .map_err(|_| wrong(self.what, "a layer has no sha256 digest"))?;
        let size = usize::try_from(layer.size).unwrap_or(usize::MAX);
        if size > most {
            return Err(wrong(
                self.what,
                format!("a layer has {size} bytes, more than {most}"),
            ));
        }
        let url = self.url("blobs", &digest.to_string())?;
        let answer = self.get(&url, None, size).await?;
        same(self.what, "a layer", &digest, &answer.body)?;
        Ok(answer.body)
    }
}

/// What a registry wants of us.
#[derive(Debug, PartialEq)]
struct Challenge {
    realm: String,
    service: Option<String>,
}

/// `Bearer realm="…",service="…",scope="…"`.
fn challenge_of(header: &str) -> Option<Challenge> {
    let (scheme, rest) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let (mut realm, mut service) = (None, None);
    let mut rest = rest.trim_start();
    while let Some((name, after)) = rest.split_once('=') {
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => after.split_at(after.find(',').unwrap_or(after.len())),
        };
        match name.trim().to_ascii_lowercase().as_str() {
            "realm" => realm = Some(value.to_owned()),
            "service" => service = Some(value.to_owned()),
            _ => {}
        }
        rest = after
            .trim_start()
            .strip_prefix(',')
            .unwrap_or_default()
            .trim_start();
    }
    Some(Challenge {
        realm: realm?,
        service,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn challenges_are_read() {
        let read = challenge_of(
            "Bearer realm=\"https://a.example/token\",service=\"s, t\",scope=\"x:y:pull\"",
        )
        .unwrap();
        assert_eq!(read.realm, "https://a.example/token");
        assert_eq!(read.service.as_deref(), Some("s, t"));
        assert_eq!(
            challenge_of("bearer realm=x, service=y").unwrap().realm,
            "x"
        );
        for wrong in [
            "",
            "Basic realm=\"x\"",
            "Bearer",
            "Bearer service=\"x\"",
            "Bearer realm=\"x",
        ] {
            assert_eq!(challenge_of(wrong), None, "{wrong}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_challenge_panics(text in "(Bearer |)\\PC{0,60}") {
            let _ = challenge_of(&text);
        }
    }
}
