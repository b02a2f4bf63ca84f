//! One request to Reef: where it goes, how long it may take, how much of the answer is read, and what a failure means.

use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Method, StatusCode};
use serde_json::Value;
use url::Url;

use crate::VmId;
use crate::api::http::{bounded, innermost};
use crate::config::{Environment, Settings, is_loopback};
use crate::error::{Error, Kind, Result, shown};
use crate::secret::Secret;
use crate::tls;

/// The longest answer that is read.
const MAX_BODY: usize = 8 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const PORT: u16 = 3000;

/// Where Reef is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// The environment names it.
    Named(Url),
    /// Nothing does: it may run on this machine.
    Guessed(Url),
}

/// Where the environment says that Reef is.
pub(super) fn place(settings: &Settings) -> Result<Place> {
    let environment = settings.environment();
    for name in ["VERS_INFRA_URL", "VERS_VM_REGISTRY_URL"] {
        if let Some(text) = environment.get(name) {
            return base(name, &text).map(Place::Named);
        }
    }
    let port = match environment.get("PORT") {
        None => PORT,
        Some(text) => text.parse().map_err(|_| {
            Error::invalid(format!(
                "PORT={:?} is no port that Reef could listen on; name Reef's address in VERS_INFRA_URL",
                shown(&text)
            ))
        })?,
    };
    match own_vm(environment) {
        Some(vm) => {
            let text = format!("https://{}:{port}", settings.vm_host(vm));
            base("VERS_VM_ID", &text).map(Place::Named)
        }
        None => base("PORT", &format!("http://127.0.0.1:{port}")).map(Place::Guessed),
    }
}

/// The VM that this runs on.
fn own_vm(environment: &Environment) -> Option<VmId> {
    environment.get("VERS_VM_ID")?.parse().ok()
}

/// The URL without what it cannot have, never with a slash at its end.
fn base(name: &str, text: &str) -> Result<Url> {
    // The text may hold a password: it is not repeated.
    let bad = |why: &str| {
        Error::invalid(format!(
            "the address of Reef in {name} {why}; write it like https://reef.example:3000"
        ))
    };
    let mut url = Url::parse(text.trim()).map_err(|_| bad("is not a URL"))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(bad("is neither https nor http"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(bad(
            "holds a user name or a password; the credential is VERS_AUTH_TOKEN",
        ));
    }
    url.set_query(None);
    url.set_fragment(None);
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&path);
    Ok(url)
}

/// The HTTP client. Redirects are not followed: one could carry the token elsewhere.
#[derive(Debug, Clone)]
pub(super) struct Reef {
    remote: reqwest::Client,
    here: reqwest::Client,
    environment: Environment,
    vm_domain: String,
    look_up: Duration,
    build: Duration,
}

impl Reef {
    pub(super) fn new(settings: &Settings, look_up: Duration, build: Duration) -> Result<Self> {
        let client = || -> Result<reqwest::ClientBuilder> {
            Ok(reqwest::Client::builder()
                .tls_backend_preconfigured(tls::client_config(settings.tls())?)
                .user_agent(concat!("pi-vers/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(CONNECT_TIMEOUT.min(look_up))
                .redirect(reqwest::redirect::Policy::none()))
        };
        let built = |builder: reqwest::ClientBuilder| {
            builder
                .build()
                .map_err(|e| Error::other(format!("the HTTP client cannot be set up: {e}")))
        };
        Ok(Self {
            remote: built(client()?)?,
            here: built(client()?.no_proxy())?,
            environment: settings.environment().clone(),
            vm_domain: settings.vm_domain().to_owned(),
            look_up,
            build,
        })
    }

    pub(super) fn environment(&self) -> &Environment {
        &self.environment
    }

    pub(super) fn vm_domain(&self) -> &str {
        &self.vm_domain
    }

    /// The VM that this runs on: the parent of what it makes.
    pub(super) fn own_vm(&self) -> Option<VmId> {
        own_vm(&self.environment)
    }

    /// The JSON object of the answer.
    pub(super) async fn ask(
        &self,
        base: &Url,
        what: &str,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Value> {
        self.within(self.look_up, base, what, method, path, body)
            .await
    }

    /// The same for what takes minutes.
    pub(super) async fn build(&self, base: &Url, what: &str, path: &str) -> Result<Value> {
        let body = Some(Value::Object(serde_json::Map::new()));
        self.within(self.build, base, what, Method::POST, path, body)
            .await
    }

    async fn within(
        &self,
        deadline: Duration,
        base: &Url,
        what: &str,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Value> {
        let asked = self.attempt(base, method, path, body);
        tokio::time::timeout(deadline, asked)
            .await
            .unwrap_or_else(|_| {
                let seconds = deadline.as_secs_f64();
                Err(Error::timed_out(format!(
                    "{} gave no answer within {seconds} s; it may still have done it",
                    reef_at(base)
                )))
            })
            .map_err(|why| why.during(what))
    }

    async fn attempt(
        &self,
        base: &Url,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Value> {
        let at = reef_at(base);
        let token = self.environment.get("VERS_AUTH_TOKEN").map(Secret::new);
        let url = Url::parse(&format!("{}{path}", base.as_str().trim_end_matches('/')))
            .map_err(|_| Error::invalid(format!("{at} has no place {path}")))?;
        let client = if is_loopback(base) {
            &self.here
        } else {
            &self.remote
        };
        let mut request = client.request(method, url);
        if let Some(token) = &token {
            if base.scheme() == "http" && !is_loopback(base) {
                return Err(Error::invalid(format!(
                    "{at} is asked without encryption, and VERS_AUTH_TOKEN would cross the network for everyone to read; write its address with https"
                )));
            }
            let bearer = zeroize::Zeroizing::new(format!("Bearer {}", token.expose()));
            let mut value = HeaderValue::from_str(&bearer)
                .map_err(|_| Error::invalid("VERS_AUTH_TOKEN cannot be sent in a header"))?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        if let Some(body) = body {
            request = request
                .header(CONTENT_TYPE, "application/json")
                .body(body.to_string());
        }
        let lost = |why: &reqwest::Error| {
            if tls::is_certificate_error(why) {
                return Error::new(
                    Kind::Denied,
                    format!(
                        "the certificate of {at} is not trusted ({}); name the file of its authority in VERS_TLS_CA",
                        innermost(why)
                    ),
                );
            }
            Error::unavailable(format!("{at} cannot be reached: {}", innermost(why)))
        };
        let response = request.send().await.map_err(|why| lost(&why))?;
        let status = response.status();
        let bytes = bounded(response, MAX_BODY).await.map_err(|why| match why {
            Some(why) => lost(&why),
            None => Error::new(
                Kind::Limit,
                format!("the answer of {at} exceeds {} MiB", MAX_BODY >> 20),
            ),
        })?;
        if !status.is_success() {
            return Err(refusal(&at, status, &bytes, token.as_ref()));
        }
        match serde_json::from_slice(&bytes) {
            Ok(answer @ Value::Object(_)) => Ok(answer),
            // The text is not said: it can hold anything.
            _ => Err(Error::other(format!(
                "{at} gave an answer of {} bytes that is not understood; is it Reef?",
                bytes.len()
            ))),
        }
    }
}

fn reef_at(base: &Url) -> String {
    let host = base.host_str().unwrap_or_default();
    match base.port() {
        Some(port) => format!("Reef at {host}:{port}"),
        None => format!("Reef at {host}"),
    }
}

fn refusal(at: &str, status: StatusCode, body: &[u8], token: Option<&Secret>) -> Error {
    let (kind, advice) = match status.as_u16() {
        401 | 403 if token.is_none() => (
            Kind::Unauthorized,
            "it wants to know who asks: set VERS_AUTH_TOKEN",
        ),
        401 | 403 => (Kind::Unauthorized, "it does not accept VERS_AUTH_TOKEN"),
        404 => (Kind::NotFound, ""),
        409 => (Kind::Conflict, ""),
        400 | 405 | 415 | 422 => (Kind::Invalid, "it does not accept this request"),
        408 | 504 => (Kind::TimedOut, "try again later"),
        413 | 429 => (Kind::Limit, "try again later"),
        500..=599 => (Kind::Unavailable, "it has trouble; try again later"),
        300..=399 => (
            Kind::Other,
            "redirects are not followed; check VERS_INFRA_URL",
        ),
        _ => (Kind::Other, ""),
    };
    let mut line = format!("{at} answers HTTP {status}");
    let said = serde_json::from_slice::<Value>(body).ok();
    let said = said.as_ref().and_then(|json| json.get("error")?.as_str());
    if let Some(said) = said.filter(|said| !said.is_empty()) {
        // Who is asked could send back what it was given.
        let hide = |token: &Secret| said.replace(token.expose(), "…");
        let said = token.map_or_else(|| said.to_owned(), hide);
        line = format!("{line}: {}", shown(&said));
    }
    if !advice.is_empty() {
        line = format!("{line}; {advice}");
    }
    Error::new(kind, line).with_status(status.as_u16())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::config::Overrides;

    const VM: &str = "0a0b0c0d-0000-4000-8000-000000000001";

    fn at(variables: &[(&str, &str)]) -> Result<Place> {
        let environment = Environment::of(variables.iter().copied());
        place(&Settings::discover(environment, Overrides::default()).unwrap())
    }

    fn named(url: &str) -> Place {
        Place::Named(Url::parse(url).unwrap())
    }

    #[test]
    fn one_address_is_used_whichever_variable_names_it() {
        let own = format!("https://{VM}.vm.vers.sh");
        let infra = ("VERS_INFRA_URL", "https://reef.example/");
        let registry = ("VERS_VM_REGISTRY_URL", "https://old.example:3000/x//");
        let here = ("VERS_VM_ID", VM);
        assert_eq!(
            at(&[infra, registry, here]).unwrap(),
            named("https://reef.example")
        );
        assert_eq!(
            at(&[registry, here]).unwrap(),
            named("https://old.example:3000/x")
        );
        assert_eq!(at(&[here]).unwrap(), named(&format!("{own}:3000")));
        assert_eq!(
            at(&[here, ("PORT", "8080")]).unwrap(),
            named(&format!("{own}:8080"))
        );
        let guess = |port| Place::Guessed(Url::parse(&format!("http://127.0.0.1:{port}")).unwrap());
        assert_eq!(at(&[]).unwrap(), guess(3000));
        assert_eq!(at(&[("PORT", "81")]).unwrap(), guess(81));
        // What is no id makes no name.
        assert_eq!(at(&[("VERS_VM_ID", "evil.example/")]).unwrap(), guess(3000));
    }

    #[test]
    fn an_address_that_cannot_be_is_named_and_no_password_of_it() {
        for text in [
            "reef.example",
            "ftp://x",
            "https://me:hunter2@x",
            "https://",
        ] {
            let why = at(&[("VERS_INFRA_URL", text)]).unwrap_err();
            assert_eq!(why.kind(), Kind::Invalid, "{text}");
            let line = why.to_string();
            assert!(
                line.contains("VERS_INFRA_URL") && !line.contains("hunter2"),
                "{line}"
            );
        }
        assert_eq!(at(&[("PORT", "x")]).unwrap_err().kind(), Kind::Invalid);
    }

    proptest! {
        #[test]
        fn any_address_is_refused_or_a_base(text in "(https?://)?[a-z0-9.:\\[\\]/?#@-]{0,40}") {
            if let Ok(url) = base("X", &text) {
                prop_assert!(url.query().is_none() && url.fragment().is_none());
                prop_assert_eq!(base("X", url.as_str()).unwrap(), url);
            }
        }

        #[test]
        fn any_refusal_is_one_line_without_the_token(status in 300_u16..600, said in "\\PC{0,40}", bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let token = Secret::new("tok3n-tok3n");
            let status = StatusCode::from_u16(status).unwrap();
            let json = serde_json::json!({ "error": format!("{said}\n tok3n-tok3n") }).to_string();
            for body in [json.as_bytes(), &bytes] {
                let line = refusal("Reef", status, body, Some(&token)).to_string();
                prop_assert!(!line.contains("tok3n-tok3n") && !line.chars().any(char::is_control), "{line}");
            }
        }
    }
}
