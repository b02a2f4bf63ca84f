//! The REST API of the Vers platform, on loopback: same paths, statuses, bodies and content types, as far as they are
//! documented or were observed; what differs is listed in `API.md` beside the crate's manifest.

mod account;
mod auth;
mod commits;
mod error;
mod exec;
mod extract;
mod listener;
pub(crate) mod shell_auth;
mod vms;

pub(crate) use listener::Bounded;

use crate::edge;
use crate::exec::{Execs, MAX_FILE};
use crate::manager::{Fault, Manager};
use crate::status::{Status, VmStatus};
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::routing::{any, delete, get, patch, post, put};
use error::{ApiError, ApiResult};
use jiff::Timestamp;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use tokio_util::sync::CancellationToken;

/// The one organisation there is.
pub(crate) const ORGANISATION: &str = "local";
const MAX_BODY: usize = 2 << 20;
/// A file in base64, and the rest of the request.
const MAX_FILE_BODY: usize = MAX_FILE / 3 * 4 + (64 << 10);

/// Counters for `/health`.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    pub(crate) total: AtomicU64,
    pub(crate) active: AtomicU64,
}

/// What handlers work with.
pub(crate) struct App {
    pub(crate) manager: Arc<Manager>,
    pub(crate) execs: Arc<Execs>,
    pub(crate) api_key: String,
    /// `http://127.0.0.1:<port>`
    pub(crate) origin: String,
    pub(crate) ssh_addr: SocketAddr,
    pub(crate) started_at: Timestamp,
    pub(crate) state: crate::state::StateDir,
    pub(crate) logins_dir: PathBuf,
    pub(crate) logins: shell_auth::Logins,
    pub(crate) auto_verify: bool,
    pub(crate) edge: Arc<edge::Counters>,
    pub(crate) http: Arc<Connections>,
    pub(crate) stop: CancellationToken,
}

impl App {
    pub(crate) async fn status(&self) -> Result<Status, Fault> {
        let capabilities = self.manager.capabilities();
        Ok(Status {
            running: true,
            pid: Some(std::process::id()),
            api_url: Some(format!("{}/api/v1", self.origin)),
            ssh_addr: Some(self.ssh_addr),
            uptime_secs: u64::try_from(Timestamp::now().as_second() - self.started_at.as_second())
                .ok(),
            captured: crate::status::Captured::of(Some(capabilities)),
            capabilities: Some(capabilities.clone()),
            vms: self.manager.vms().iter().map(VmStatus::of).collect(),
            commits: self.manager.commits(false).len(),
            disk_bytes: crate::status::disk_use(self.state.root()).await,
            pending_logins: self.logins.pending(&self.origin),
        })
    }
}

/// Names and descriptions have a bound.
fn check_texts<'a>(
    texts: impl IntoIterator<Item = (&'static str, &'a Option<String>)>,
) -> ApiResult<()> {
    for (what, text) in texts {
        if text.as_ref().is_some_and(|t| t.len() > 8192) {
            return Err(ApiError::new(
                StatusCode::BAD_REQUEST,
                format!("{what} must have at most 8192 bytes"),
            ));
        }
    }
    Ok(())
}

/// All routes.
pub(crate) fn router(app: Arc<App>) -> Router {
    let vm = Router::new()
        .route("/vms", get(vms::list))
        .route("/vm", get(vms::list))
        .route("/vm/new_root", post(vms::new_root))
        .route("/vm/from_commit", post(vms::from_commit))
        .route("/vm/branch/by_vm/{vm_id}", post(vms::branch_by_vm))
        .route(
            "/vm/branch/by_commit/{commit_id}",
            post(vms::branch_by_commit),
        )
        .route("/vm/branch/by_tag/{tag_name}", post(vms::branch_by_tag))
        .route(
            "/vm/branch/by_ref/{repo_name}/{tag_name}",
            post(vms::branch_by_ref),
        )
        .route("/vm/commits/{commit_id}/parents", get(commits::parents))
        .route("/vm/{vm_id}", delete(vms::delete))
        .route("/vm/{vm_id}/status", get(vms::status))
        .route("/vm/{vm_id}/metadata", get(vms::metadata))
        .route("/vm/{vm_id}/ssh_key", get(vms::ssh_key))
        .route("/vm/{vm_id}/state", patch(vms::set_state))
        .route("/vm/{vm_id}/disk", patch(vms::resize_disk))
        .route("/vm/{vm_id}/label", patch(vms::add_labels))
        .route("/vm/{vm_id}/labels", put(vms::replace_labels))
        .route("/vm/{vm_id}/label/{name}", delete(vms::remove_label))
        .route("/vm/{vm_id}/commit", post(vms::commit))
        .route("/vm/{vm_or_commit_id}/branch", post(vms::branch))
        .route("/vm/{vm_id}/exec", post(exec::run))
        .route("/vm/{vm_id}/exec/stream", post(exec::stream))
        .route("/vm/{vm_id}/exec/stream/attach", post(exec::attach))
        .route("/vm/{vm_id}/logs", get(exec::logs))
        .route(
            "/vm/{vm_id}/files",
            get(exec::read_file)
                .merge(put(exec::write_file).layer(DefaultBodyLimit::max(MAX_FILE_BODY))),
        );
    let names = Router::new()
        .route("/commits", get(commits::list))
        .route("/commits/public", get(commits::list_public))
        .route(
            "/commits/{commit_id}",
            patch(commits::update).delete(commits::delete),
        )
        .route("/commit_tags", get(commits::tags).post(commits::create_tag))
        .route(
            "/commit_tags/{tag_name}",
            get(commits::tag)
                .patch(commits::update_tag)
                .delete(commits::delete_tag),
        )
        .route(
            "/repositories",
            get(commits::repositories).post(commits::create_repository),
        )
        .route("/repositories/fork", post(account::no_fork))
        .route(
            "/repositories/{repo_name}",
            get(commits::repository).delete(commits::delete_repository),
        )
        .route(
            "/repositories/{repo_name}/visibility",
            patch(commits::set_visibility),
        )
        .route(
            "/repositories/{repo_name}/tags",
            get(commits::repo_tags).post(commits::create_repo_tag),
        )
        .route(
            "/repositories/{repo_name}/tags/{tag_name}",
            get(commits::repo_tag)
                .patch(commits::update_repo_tag)
                .delete(commits::delete_repo_tag),
        );
    let account = Router::new()
        .route("/env_vars", get(account::env).put(account::set_env))
        .route("/env_vars/{key}", delete(account::delete_env))
        .route("/keys/validate", post(account::validate_key))
        .route("/whoami", get(account::whoami))
        .route("/local/capabilities", get(account::capabilities))
        .route("/local/status", get(account::local_status))
        .route("/local/shutdown", post(account::shutdown))
        .route(
            "/domains",
            get(account::no_domains).post(account::no_domains),
        )
        .route(
            "/domains/{domain_id}",
            get(account::no_domains).delete(account::no_domains),
        )
        .route("/deploy", post(account::no_deploy))
        .route("/images", get(account::no_images))
        .route("/images/create", post(account::no_images))
        .route("/images/upload", post(account::no_images))
        .route("/images/images/{base_image_id}", delete(account::no_images))
        .route("/images/{image_name}/status", get(account::no_images));
    let keyed = vm
        .merge(names)
        .merge(account)
        .fallback(any(account::nowhere))
        .layer(from_fn_with_state(app.clone(), auth::require_key));
    let public = Router::new()
        .route("/system/version", get(account::version))
        .route("/public/repositories", get(commits::public_repositories))
        .route(
            "/public/repositories/{org_name}/{repo_name}",
            get(commits::public_repository),
        )
        .route(
            "/public/repositories/{org_name}/{repo_name}/tags",
            get(commits::public_tags),
        )
        .route(
            "/public/repositories/{org_name}/{repo_name}/tags/{tag_name}",
            get(commits::public_tag),
        );
    let web = Router::new()
        .route("/health", get(account::health))
        .route("/openapi.json", get(account::openapi))
        .route("/local/verify", get(shell_auth::open_link))
        .route("/api/shell-auth", post(shell_auth::initiate))
        .route("/api/shell-auth/verify-key", post(shell_auth::verify_key))
        .route(
            "/api/shell-auth/verify-public-key",
            post(shell_auth::verify_public_key),
        )
        .route("/api/shell-auth/api-keys", post(shell_auth::api_key));
    Router::new()
        .merge(web)
        .nest("/api/v1", public.merge(keyed))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(app)
}
