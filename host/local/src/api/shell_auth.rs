//! Login from a shell, so that it can be tried without an account: `/api/shell-auth*`, as the cloud's web host answers.
//!
//! The cloud sends a mail with a link. Here the link is put into a private file of the state directory
//! (`logins/<id>.txt`), and shown by `status`: only who may read the platform's files may open it, so that a login gives
//! no other user of the machine a key. `Options::auto_verify` skips the link, for tests.

use super::App;
use axum::Json;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use russh::keys::PublicKey;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use uuid::Uuid;

const LINK_LIFE_SECS: i64 = 600;
const MAX_LOGINS: usize = 64;

/// One e-mail address with one SSH key.
#[derive(Debug, Clone)]
struct Login {
    id: Uuid,
    email: String,
    key: String,
    secret: String,
    asked_at: Timestamp,
    verified: bool,
}

impl Login {
    fn expired(&self) -> bool {
        !self.verified && Timestamp::now().as_second() - self.asked_at.as_second() > LINK_LIFE_SECS
    }
}

/// A login that waits for its link to be opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingLogin {
    /// The address it was asked for.
    pub email: String,
    /// The link to open.
    pub link: String,
}

/// All logins since the server started.
#[derive(Debug, Default)]
pub(crate) struct Logins(Mutex<Vec<Login>>);

impl Logins {
    fn all(&self) -> MutexGuard<'_, Vec<Login>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn pending(&self, origin: &str) -> Vec<PendingLogin> {
        let link = |l: &Login| PendingLogin {
            email: l.email.clone(),
            link: link(origin, &l.secret),
        };
        self.all()
            .iter()
            .filter(|l| !l.verified && !l.expired())
            .map(link)
            .collect()
    }
}

fn link(origin: &str, secret: &str) -> String {
    format!("{origin}/local/verify?nonce={secret}")
}

fn refuse(status: StatusCode, error: &str) -> Response {
    (status, Json(json!({"error": error}))).into_response()
}

/// Status and reason.
struct Refusal(StatusCode, &'static str);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        refuse(self.0, self.1)
    }
}

/// The algorithm and the data, without the comment.
fn normal(key: &str) -> Option<String> {
    let mut key = PublicKey::from_openssh(key.trim()).ok()?;
    key.set_comment("");
    key.to_openssh().ok()
}

#[derive(Debug, Deserialize)]
pub(crate) struct Pair {
    email: String,
    ssh_public_key: String,
}

impl Pair {
    fn check(&self) -> Result<String, Refusal> {
        let shaped = self
            .email
            .split_once('@')
            .is_some_and(|(a, b)| !a.is_empty() && !b.is_empty());
        if !shaped || self.email.len() > 320 || self.email.contains(char::is_control) {
            return Err(Refusal(
                StatusCode::BAD_REQUEST,
                "email must be an e-mail address",
            ));
        }
        normal(&self.ssh_public_key).ok_or(Refusal(
            StatusCode::BAD_REQUEST,
            "ssh_public_key must be a public key in OpenSSH format",
        ))
    }
}

pub(crate) async fn initiate(State(app): State<Arc<App>>, Json(pair): Json<Pair>) -> Response {
    let key = match pair.check() {
        Ok(key) => key,
        Err(refusal) => return refusal.into_response(),
    };
    let secret: [u8; 24] = rand::random();
    let secret: String = secret.iter().map(|b| format!("{b:02x}")).collect();
    let (login, is_new, already) = {
        let mut all = app.logins.all();
        all.retain(|l| !l.expired());
        if all
            .iter()
            .any(|l| l.key == key && l.email != pair.email && l.verified)
        {
            return refuse(
                StatusCode::CONFLICT,
                "this SSH key belongs to another account",
            );
        }
        let is_new = !all.iter().any(|l| l.email == pair.email);
        let full = all.len() >= MAX_LOGINS;
        match all
            .iter_mut()
            .find(|l| l.key == key && l.email == pair.email)
        {
            Some(login) if login.verified => (login.clone(), is_new, true),
            Some(login) => {
                login.secret = secret;
                login.asked_at = Timestamp::now();
                (login.clone(), is_new, false)
            }
            None if full => {
                return refuse(
                    StatusCode::TOO_MANY_REQUESTS,
                    "too many logins are waiting for their links; try again in ten minutes",
                );
            }
            None => {
                let login = Login {
                    id: Uuid::new_v4(),
                    email: pair.email.clone(),
                    key: key.clone(),
                    secret,
                    asked_at: Timestamp::now(),
                    verified: app.auto_verify,
                };
                all.push(login.clone());
                (login, is_new, false)
            }
        }
    };
    if !login.verified {
        let path = app.logins_dir.join(format!("{}.txt", login.id));
        let text = format!(
            "To let {} log in to the local platform, open\n{}\n",
            login.email,
            link(&app.origin, &login.secret)
        );
        let written =
            tokio::task::spawn_blocking(move || crate::state::write(&path, text.as_bytes())).await;
        match written {
            Ok(Ok(())) => {}
            Ok(Err(e)) => return refuse(StatusCode::INTERNAL_SERVER_ERROR, &e.to_string()),
            Err(e) => return refuse(StatusCode::INTERNAL_SERVER_ERROR, &e.to_string()),
        }
    }
    Json(json!({
        "success": true,
        "user_id": app.manager.owner(),
        "email": login.email,
        "is_new_user": is_new,
        // Names this request. It opens nothing: the link has a secret of its own.
        "nonce": login.id,
        "ssh_public_key": pair.ssh_public_key,
        "already_verified": already,
    }))
    .into_response()
}

fn find(app: &App, email: &str, key: &str) -> Result<Login, Refusal> {
    let found = app
        .logins
        .all()
        .iter()
        .find(|l| l.email == email && l.key == key)
        .cloned();
    match found {
        None => Err(Refusal(
            StatusCode::FORBIDDEN,
            "no login was begun with this address and key",
        )),
        Some(login) if login.verified => Ok(login),
        Some(login) if login.expired() => Err(Refusal(
            StatusCode::FORBIDDEN,
            "the link has expired; begin again",
        )),
        Some(_) => Err(Refusal(
            StatusCode::UNAUTHORIZED,
            "not verified yet: open the link that the local platform's status shows",
        )),
    }
}

fn organisations(app: &App) -> Value {
    json!([{"org_id": app.manager.owner(), "name": super::ORGANISATION, "role": "owner"}])
}

pub(crate) async fn verify_key(State(app): State<Arc<App>>, Json(pair): Json<Pair>) -> Response {
    let key = match pair.check() {
        Ok(key) => key,
        Err(refusal) => return refusal.into_response(),
    };
    match find(&app, &pair.email, &key) {
        Ok(login) => Json(json!({
            "verified": true,
            "is_active": true,
            "user_id": app.manager.owner(),
            "key_id": login.id,
            "orgs": organisations(&app),
        }))
        .into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct OneKey {
    ssh_public_key: String,
}

pub(crate) async fn verify_public_key(
    State(app): State<Arc<App>>,
    Json(body): Json<OneKey>,
) -> Response {
    let Some(key) = normal(&body.ssh_public_key) else {
        return refuse(
            StatusCode::BAD_REQUEST,
            "ssh_public_key must be a public key in OpenSSH format",
        );
    };
    let matches: Vec<_> = app
        .logins
        .all()
        .iter()
        .filter(|l| l.key == key)
        .map(|l| json!({"email": l.email, "is_active": true, "public_key_verified": l.verified}))
        .collect();
    let verified = matches.iter().any(|m| m["public_key_verified"] == true);
    Json(json!({"verified": verified, "count": matches.len(), "matches": matches})).into_response()
}

#[derive(Debug, Deserialize)]
pub(crate) struct NewKey {
    #[serde(flatten)]
    pair: Pair,
    label: String,
    org_name: Option<String>,
}

pub(crate) async fn api_key(State(app): State<Arc<App>>, Json(body): Json<NewKey>) -> Response {
    let key = match body.pair.check() {
        Ok(key) => key,
        Err(refusal) => return refusal.into_response(),
    };
    if !(5..=256).contains(&body.label.chars().count()) {
        return refuse(
            StatusCode::BAD_REQUEST,
            "label must have 5 to 256 characters",
        );
    }
    if body
        .org_name
        .is_some_and(|name| name != super::ORGANISATION)
    {
        return refuse(StatusCode::NOT_FOUND, "organization not found");
    }
    if let Err(refusal) = find(&app, &body.pair.email, &key) {
        return refusal.into_response();
    }
    Json(json!({
        "success": true,
        "api_key": app.api_key,
        "api_key_id": app.manager.owner(),
        "org_id": app.manager.owner(),
        "org_name": super::ORGANISATION,
    }))
    .into_response()
}

#[derive(Debug, Deserialize)]
pub(crate) struct Link {
    nonce: String,
}

/// Opened by a person, in a browser.
pub(crate) async fn open_link(State(app): State<Arc<App>>, Query(link): Query<Link>) -> Response {
    let opened = {
        let mut all = app.logins.all();
        let login = all
            .iter_mut()
            .find(|l| !l.verified && !l.expired() && l.secret == link.nonce);
        login.map(|l| {
            l.verified = true;
            l.id
        })
    };
    let page = |status, text: &str| {
        let html = format!(
            "<!doctype html><meta charset=utf-8><title>Local platform</title><p>{text}</p>\n"
        );
        (
            status,
            [(header::CONTENT_TYPE, "text/html; charset=utf-8")],
            html,
        )
            .into_response()
    };
    match opened {
        Some(id) => {
            let path = app.logins_dir.join(format!("{id}.txt"));
            let _ = tokio::task::spawn_blocking(move || crate::state::remove(&path)).await;
            page(
                StatusCode::OK,
                "Your SSH key is verified. You can go back to your terminal.",
            )
        }
        None => page(
            StatusCode::NOT_FOUND,
            "This link is unknown, used, or older than ten minutes. Begin the login again.",
        ),
    }
}
