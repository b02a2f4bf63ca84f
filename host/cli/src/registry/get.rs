//! Getting an extension from its source: fetched, compared, its signature checked, looked at; only then kept.

use pi_vers_host::policy::{Digest, Policy};
use pi_vers_host::{Extension, visible};
use url::Url;

use super::fetch;
use super::list::{List, Locked, Wanted};
use super::sign::{self, Signed};
use super::source::Source;
use super::{oci, store};
use crate::failure::{Code, Failure};
use crate::shipped::SHIPPED;
use crate::{inspect, setup};

/// What was got.
pub(super) struct Got {
    pub(super) locked: Locked,
    pub(super) extension: Extension,
    pub(super) signed: Option<Signed>,
    bytes: Vec<u8>,
}

impl Got {
    /// Keeps the bytes for sessions.
    pub(super) fn install(&self) -> Result<(), Failure> {
        store::put(&self.bytes).map(drop)
    }
}

/// Gets an extension. With `expected` it has to be these bytes.
pub(super) async fn get(
    list: &List,
    wanted: &Wanted,
    expected: Option<&Digest>,
) -> Result<Got, Failure> {
    let source = wanted.source.clone().from(&list.scope.base()?);
    let shown = visible(&wanted.source.to_string());
    let (bytes, signature) = fetched(&source).await?;
    let digest = Digest::of(&bytes);
    if let Some(expected) = expected
        && *expected != digest
    {
        return Err(Failure::new(
            Code::Denied,
            "digest",
            format!("{shown} is {digest}, and should be {expected}: nothing was installed"),
        )
        .next("`pi-vers update` shows what is new in it, if it was changed on purpose"));
    }
    let signed = match signature {
        Some(signature) => Some(sign::verify(&shown, &bytes, &signature, &list.signers)?),
        None => None,
    };
    if let Some(key) = &wanted.signed_by {
        sign::demand(&shown, key, signed.as_ref())?;
    }
    let host = setup::host(Policy::empty(), setup::settings()?).await?;
    let extension = super::load(&host, &shown, bytes.clone()).await?;
    let name = extension.name().to_owned();
    super::list::named(&name).map_err(|why| Failure::new(Code::Extension, "description", why))?;
    if SHIPPED.iter().any(|shipped| shipped.name == name) {
        return Err(Failure::new(
            Code::Usage,
            "name",
            format!("{shown} calls itself {name}, as an extension inside pi-vers does"),
        )
        .next("`--extension FILE` takes the place of one, for a run"));
    }
    let info = extension.info();
    let mut asks: Vec<String> = inspect::keys(&extension)
        .into_iter()
        .map(str::to_owned)
        .collect();
    asks.sort();
    asks.dedup();
    let mut imports: Vec<String> = extension
        .anatomy()
        .imports
        .iter()
        .filter(|import| !import.starts_with("wasi:"))
        .cloned()
        .collect();
    imports.sort();
    let mut tools: Vec<String> = info.tools.iter().map(|tool| tool.name.clone()).collect();
    tools.sort();
    let locked = Locked {
        name,
        version: info.version.clone(),
        source: wanted.source.to_string(),
        digest: digest.to_string(),
        bound: (extension.digest() != digest).then(|| extension.digest().to_string()),
        size: bytes.len() as u64,
        signed_by: signed.as_ref().map(|signed| signed.key.text()),
        imports,
        asks,
        tools,
    };
    Ok(Got {
        locked,
        extension,
        signed,
        bytes,
    })
}

async fn fetched(source: &Source) -> Result<(Vec<u8>, Option<Vec<u8>>), Failure> {
    match source {
        Source::File(path) => {
            let bytes = fetch::file(path)?;
            let mut beside = path.clone().into_os_string();
            beside.push(".sig");
            let beside = std::path::PathBuf::from(beside);
            let signature = match std::fs::symlink_metadata(&beside) {
                Ok(_) => Some(fetch::file(&beside)?),
                Err(why) if why.kind() == std::io::ErrorKind::NotFound => None,
                // There may be one: not to know is no reason to go without.
                Err(why) => {
                    return Err(Failure::usage(format!("{}: {why}", beside.display())));
                }
            };
            Ok((bytes, signature))
        }
        Source::Url(url) => {
            let bytes = fetch::body(url, fetch::LARGEST).await?;
            Ok((bytes, beside(url).await?))
        }
        Source::Oci(what) => {
            let pulled = oci::pull(what).await?;
            Ok((pulled.component, pulled.signature))
        }
    }
}

/// The signature beside a URL: its path with `.sig`.
async fn beside(url: &Url) -> Result<Option<Vec<u8>>, Failure> {
    let mut beside = url.clone();
    beside.set_path(&format!("{}.sig", url.path()));
    let answer = fetch::get(&beside, None, None, sign::LARGEST).await?;
    match answer.status {
        200 => {
            // Many servers answer everything with a page: what has not the first words of a signature is none.
            let is_one = answer
                .body
                .trim_ascii_start()
                .starts_with(b"-----BEGIN SSH SIGNATURE-----");
            Ok(is_one.then_some(answer.body))
        }
        404 | 403 | 410 => Ok(None),
        status => Err(fetch::failed(&beside, &format!("HTTP {status}"))),
    }
}
