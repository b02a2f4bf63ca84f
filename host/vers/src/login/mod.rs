//! An API key for somebody who has none: a mail is sent, its link confirms the person, and the key is made.
//!
//! The SSH public key that goes along is an identifier for the account; nothing is signed with it. Talking to the
//! person is the caller's part ([`Prompt`]). The new key goes to `~/.vers/keys.json` and `~/.vers/config.json`, where
//! the other Vers tools look; what else those files hold is kept.

mod identity;
mod store;

use std::time::Duration;

use reqwest::Method;
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;

use crate::api::http::{Call, Http};
use crate::config::Settings;
use crate::error::{Error, Kind, Result, shown};
use crate::secret::Secret;

/// What the person is asked and told.
pub trait Prompt {
    /// The mail address of the account; an unknown one makes a new account.
    fn email(&self) -> impl Future<Output = Result<String>> + Send;
    /// Which of several organisations the key shall be for: its place in the list.
    fn choose(&self, organizations: &[Membership]) -> impl Future<Output = Result<usize>> + Send;
    /// A mail is on its way; its link has to be opened within ten minutes.
    fn mail_sent(&self, email: &str);
}

/// An organisation that the person belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Membership {
    /// Its id.
    #[serde(default)]
    pub org_id: String,
    /// Its name.
    pub name: String,
    /// What the person is there.
    #[serde(default)]
    pub role: String,
}

/// How to log in.
#[derive(Debug, Clone)]
pub struct LoginOptions {
    /// The mail address; asked for unless given.
    pub email: Option<String>,
    /// The organisation's name; asked for unless given, where there are several.
    pub organization: Option<String>,
    /// What the key is called in the account's list: at least five characters.
    pub label: String,
    /// Shown in the mail.
    pub note: String,
    /// How often to ask whether the link was opened.
    pub poll: Duration,
    /// How long to wait for that.
    pub patience: Duration,
}

impl Default for LoginOptions {
    /// Label `pi-vers`, every 3 seconds, for the 10 minutes that the link is valid.
    fn default() -> Self {
        Self {
            email: None,
            organization: None,
            label: "pi-vers".into(),
            note: "pi-vers login".into(),
            poll: Duration::from_secs(3),
            patience: Duration::from_secs(600),
        }
    }
}

/// What a login came to.
#[derive(Debug, Clone)]
pub struct LoggedIn {
    /// The new key.
    pub api_key: Secret,
    /// The account's mail address.
    pub email: String,
    /// The organisation that the key is for.
    pub organization: String,
    /// Whether requests use the new key from now on. Otherwise `VERS_API_KEY` or another file comes first.
    pub in_effect: bool,
}

#[derive(Deserialize)]
struct Initiated {
    #[serde(default)]
    already_verified: bool,
}

#[derive(Deserialize)]
struct Verified {
    #[serde(default)]
    verified: bool,
    #[serde(default)]
    orgs: Vec<Membership>,
    #[serde(default)]
    reason: Option<String>,
}

#[derive(Deserialize)]
struct NewKey {
    api_key: String,
    #[serde(default)]
    org_name: Option<String>,
}

/// Logs in and keeps the key. Dropping the future cancels: nothing is kept then, and the mail's link does no harm.
///
/// # Errors
/// [`Kind::Denied`]: the platform rejects the address or the SSH key. [`Kind::Conflict`]: the SSH key belongs to
/// another account. [`Kind::TimedOut`]: nobody opened the link.
pub async fn login<P: Prompt + Sync>(
    settings: &Settings,
    options: &LoginOptions,
    prompt: &P,
) -> Result<LoggedIn> {
    let homeless =
        || Error::invalid("log in: there is no home directory to keep the key in; set HOME");
    let directory = settings.dot_vers().ok_or_else(homeless)?;
    // The key is shown once: make sure that it can be kept before it is made.
    store::check(&directory).await?;
    let public_key = identity::public_key(&settings.dot_ssh().ok_or_else(homeless)?).await?;
    let email = match &options.email {
        Some(email) => email.clone(),
        None => prompt.email().await?,
    };
    let email = checked_email(&email)?;

    let site = Site {
        http: Http::new(settings.clone())?,
        base: settings.site_url(),
    };
    let who = json!({ "email": email, "ssh_public_key": public_key });
    let mut first = who.clone();
    if let Some(object) = first.as_object_mut() {
        object.insert("body".into(), options.note.clone().into());
    }
    let initiated: Initiated = site.post("log in", &["api", "shell-auth"], first).await.map_err(|error| match error.kind() {
        Kind::Conflict => Error::new(
            Kind::Conflict,
            format!("{error}; the SSH key in ~/.ssh belongs to another Vers account: log in with that account's mail address, or use another key"),
        ),
        _ => error,
    })?;
    if !initiated.already_verified {
        prompt.mail_sent(&email);
    }
    let memberships = wait_for_link(&site, &who, options).await?;
    let organization = choose(memberships, options.organization.as_deref(), prompt).await?;

    let mut request = who;
    if let Some(object) = request.as_object_mut() {
        object.insert("label".into(), options.label.clone().into());
        if let Some(name) = &organization {
            object.insert("org_name".into(), name.clone().into());
        }
    }
    let made: NewKey = site
        .post(
            "make an API key",
            &["api", "shell-auth", "api-keys"],
            request,
        )
        .await?;
    let api_key = Secret::new(made.api_key);
    store::keep(&directory, &api_key).await?;
    let in_effect = settings.api_key().await.is_ok_and(|key| key == api_key);
    Ok(LoggedIn {
        api_key,
        email,
        organization: made.org_name.or(organization).unwrap_or_default(),
        in_effect,
    })
}

struct Site {
    http: Http,
    base: url::Url,
}

impl Site {
    async fn post<T: serde::de::DeserializeOwned>(
        &self,
        what: &str,
        path: &[&str],
        body: serde_json::Value,
    ) -> Result<T> {
        self.http
            .json(
                Call::new(what, Method::POST, &self.base, path)
                    .json(body)
                    .public(),
            )
            .await
    }
}

async fn wait_for_link(
    site: &Site,
    who: &serde_json::Value,
    options: &LoginOptions,
) -> Result<Vec<Membership>> {
    let deadline = Instant::now() + options.patience;
    let mut poll = tokio::time::interval(options.poll.max(Duration::from_millis(10)));
    poll.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        if tokio::time::timeout_at(deadline, poll.tick())
            .await
            .is_err()
        {
            return Err(Error::timed_out(
                "log in: the link in the mail was not opened in time; log in again",
            ));
        }
        match site
            .post::<Verified>("log in", &["api", "shell-auth", "verify-key"], who.clone())
            .await
        {
            Ok(answer) if answer.verified => return Ok(answer.orgs),
            // Said without a status: final only if it gives a reason.
            Ok(Verified {
                reason: Some(reason),
                ..
            }) => {
                return Err(Error::new(
                    Kind::Denied,
                    format!("log in: the platform rejects it: {}", shown(&reason)),
                ));
            }
            Ok(_) => {}
            // Not yet.
            Err(error) if error.status() == Some(401) => {}
            Err(error)
                if matches!(
                    error.kind(),
                    Kind::Unavailable | Kind::TimedOut | Kind::Limit
                ) =>
            {
                tracing::debug!(%error, "asking again");
            }
            Err(error) => return Err(error),
        }
    }
}

async fn choose<P: Prompt + Sync>(
    memberships: Vec<Membership>,
    wanted: Option<&str>,
    prompt: &P,
) -> Result<Option<String>> {
    if let Some(wanted) = wanted {
        if !memberships.is_empty() && !memberships.iter().any(|one| one.name == wanted) {
            let names: Vec<String> = memberships.iter().map(|one| shown(&one.name)).collect();
            return Err(Error::new(
                Kind::NotFound,
                format!(
                    "log in: there is no organisation {:?}; yours are: {}",
                    shown(wanted),
                    names.join(", ")
                ),
            ));
        }
        return Ok(Some(wanted.to_owned()));
    }
    match memberships.as_slice() {
        [] => Ok(None),
        [only] => Ok(Some(only.name.clone())),
        several => {
            let place = prompt.choose(several).await?;
            let chosen = several
                .get(place)
                .ok_or_else(|| Error::invalid("log in: no organisation was chosen"))?;
            Ok(Some(chosen.name.clone()))
        }
    }
}

fn checked_email(text: &str) -> Result<String> {
    let email = text.trim();
    match email.split_once('@') {
        Some((name, host))
            if !name.is_empty()
                && host.contains('.')
                && !email.chars().any(|c| c.is_whitespace() || c.is_control()) =>
        {
            Ok(email.to_owned())
        }
        _ => Err(Error::invalid(format!(
            "log in: {:?} is not a mail address",
            shown(text)
        ))),
    }
}
