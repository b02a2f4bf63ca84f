//! The account, the platform itself, and what only the cloud has.

use super::error::{ApiError, ApiResult};
use super::extract::InPath;
use super::{App, ORGANISATION};
use crate::platform::End;
use crate::status;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

pub(crate) async fn env(State(app): State<Arc<App>>) -> Json<Value> {
    Json(json!({"vars": app.manager.env()}))
}

#[derive(Debug, Deserialize)]
pub(crate) struct SetEnv {
    vars: BTreeMap<String, String>,
    #[serde(default)]
    replace: bool,
}

pub(crate) async fn set_env(
    State(app): State<Arc<App>>,
    Json(body): Json<SetEnv>,
) -> ApiResult<Json<Value>> {
    Ok(Json(
        json!({"vars": app.manager.set_env(body.vars, body.replace).await?}),
    ))
}

pub(crate) async fn delete_env(
    State(app): State<Arc<App>>,
    InPath(key): InPath<String>,
) -> ApiResult<StatusCode> {
    app.manager.delete_env(key).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) async fn validate_key() -> Json<Value> {
    Json(json!({"valid": true, "message": "API key is valid"}))
}

pub(crate) async fn whoami(State(app): State<Arc<App>>) -> Json<Value> {
    let id = app.manager.owner();
    Json(json!({
        "user": {"id": id, "email": "local@localhost", "user_name": "local"},
        "org": {"id": id, "name": ORGANISATION},
        "api_key": {"id": id, "label": "local platform", "created_at": app.started_at},
    }))
}

pub(crate) async fn version() -> Json<Value> {
    Json(json!({
        "executable_name": "vers-local",
        "workspace_version": env!("CARGO_PKG_VERSION"),
        "git_hash": option_env!("VERS_LOCAL_GIT_HASH").unwrap_or("unknown"),
    }))
}

pub(crate) async fn health(State(app): State<Arc<App>>) -> Json<Value> {
    let n = |c: &std::sync::atomic::AtomicU64| c.load(Ordering::Relaxed);
    Json(json!({
        "status": "ok",
        "ssh": {
            "connections_total": n(&app.edge.total),
            "connections_active": n(&app.edge.active),
            "errors": {"handshake": n(&app.edge.failed_handshakes), "dial": n(&app.edge.failed_dials)},
        },
        "http": {"connections_total": n(&app.http.total), "connections_active": n(&app.http.active)},
        "websocket": {"connections_total": 0, "connections_active": 0},
    }))
}

pub(crate) async fn openapi() -> ([(axum::http::HeaderName, &'static str); 1], &'static str) {
    (
        [(axum::http::header::CONTENT_TYPE, "application/json")],
        include_str!("../../openapi.json"),
    )
}

pub(crate) async fn capabilities(State(app): State<Arc<App>>) -> Json<Value> {
    let capabilities = app.manager.capabilities();
    Json(json!({
        "capabilities": capabilities,
        "commits": status::Captured::of(Some(capabilities)),
        "limits": app.manager.limits(),
    }))
}

pub(crate) async fn local_status(State(app): State<Arc<App>>) -> ApiResult<Json<Value>> {
    let status = app.status().await?;
    serde_json::to_value(status)
        .map(Json)
        .map_err(|e| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))
}

#[derive(Debug, Deserialize)]
pub(crate) struct Shutdown {
    vms: End,
}

/// Stops the platform; answers when the VMs are as wished, and before the listeners close.
pub(crate) async fn shutdown(
    State(app): State<Arc<App>>,
    Json(body): Json<Shutdown>,
) -> ApiResult<Json<Value>> {
    // In a task of its own: a caller that goes away must not leave it half done.
    let ending = app.clone();
    let ended = tokio::spawn(async move {
        let ended = body.vms.apply(&ending.manager).await;
        ending.stop.cancel();
        ended
    });
    let (slept, failed) = ended
        .await
        .map_err(|e| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))?;
    Ok(Json(json!({"vms_put_to_sleep": slept, "failed": failed})))
}

pub(crate) async fn no_domains() -> ApiError {
    ApiError::unsupported("custom domains (a port of a VM is reached as <port>--<vm>.vm.localhost)")
}

pub(crate) async fn no_deploy() -> ApiError {
    ApiError::unsupported("deployments")
}

pub(crate) async fn no_images() -> ApiError {
    ApiError::unsupported(
        "base images (VMs start on this machine's own files; commit one to make a template)",
    )
}

pub(crate) async fn no_fork() -> ApiError {
    ApiError::unsupported("forking of repositories (there is only one organisation)")
}

pub(crate) async fn nowhere() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "not found")
}
