//! Commits, and the two kinds of names for them.

use super::error::{ApiError, ApiResult};
use super::extract::{InPath, lenient, present};
use super::{App, ORGANISATION, check_texts};
use crate::manager::{CommitChange, Fault, TagChange};
use crate::state::record::{CommitRecord, RepositoryRecord, TagRecord};
use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use uuid::Uuid;

fn commit_json(c: &CommitRecord) -> Value {
    json!({
        "commit_id": c.id,
        "owner_id": c.owner_id,
        "name": c.name,
        "description": c.description,
        "created_at": c.created_at,
        "is_public": c.is_public,
        "parent_vm_id": c.vm,
        "grandparent_commit_id": c.parent,
        // Never more on this platform, and said with every commit.
        "contents": c.contents,
    })
}

#[derive(Debug, Deserialize)]
pub(crate) struct Page {
    #[serde(default, deserialize_with = "lenient")]
    limit: Option<i64>,
    #[serde(default, deserialize_with = "lenient")]
    offset: Option<i64>,
}

fn page(all: Vec<CommitRecord>, page: &Page) -> Json<Value> {
    let limit = page.limit.unwrap_or(50).clamp(0, 100);
    let offset = page.offset.unwrap_or(0).max(0);
    let (skip, take) = (
        usize::try_from(offset).unwrap_or(usize::MAX),
        usize::try_from(limit).unwrap_or(0),
    );
    let commits: Vec<_> = all.iter().skip(skip).take(take).map(commit_json).collect();
    Json(json!({"commits": commits, "total": all.len(), "limit": limit, "offset": offset}))
}

pub(crate) async fn list(State(app): State<Arc<App>>, Query(query): Query<Page>) -> Json<Value> {
    page(app.manager.commits(false), &query)
}

pub(crate) async fn list_public(
    State(app): State<Arc<App>>,
    Query(query): Query<Page>,
) -> Json<Value> {
    page(app.manager.commits(true), &query)
}

pub(crate) async fn parents(
    State(app): State<Arc<App>>,
    InPath(id): InPath<Uuid>,
) -> ApiResult<Json<Value>> {
    let chain = app.manager.parents(id)?;
    let entity = |c: &CommitRecord| {
        let mut entity = commit_json(c);
        if let Some(entity) = entity.as_object_mut()
            && let Some(id) = entity.remove("commit_id")
        {
            entity.insert("id".into(), id);
        }
        entity
    };
    Ok(Json(chain.iter().map(entity).collect()))
}

#[derive(Debug, Deserialize)]
pub(crate) struct Update {
    is_public: bool,
    name: Option<String>,
    description: Option<String>,
}

pub(crate) async fn update(
    State(app): State<Arc<App>>,
    InPath(id): InPath<Uuid>,
    Json(body): Json<Update>,
) -> ApiResult<Json<Value>> {
    check_texts([("name", &body.name), ("description", &body.description)])?;
    let change = CommitChange {
        is_public: body.is_public,
        name: body.name,
        description: body.description,
    };
    Ok(Json(commit_json(
        &app.manager.update_commit(id, change).await?,
    )))
}

pub(crate) async fn delete(
    State(app): State<Arc<App>>,
    InPath(id): InPath<Uuid>,
) -> ApiResult<StatusCode> {
    app.manager.delete_commit(id).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Debug, Deserialize)]
pub(crate) struct NewTag {
    tag_name: String,
    commit_id: Uuid,
    description: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct UpdateTag {
    commit_id: Option<Uuid>,
    #[serde(default, deserialize_with = "present")]
    description: Option<Option<String>>,
}

impl UpdateTag {
    fn change(self) -> ApiResult<TagChange> {
        check_texts([("description", self.description.as_ref().unwrap_or(&None))])?;
        Ok(TagChange {
            commit_id: self.commit_id,
            description: self.description,
        })
    }
}

fn tag_json(t: &TagRecord, repository: Option<&str>) -> Value {
    let mut tag = json!({
        "tag_id": t.tag_id,
        "tag_name": t.tag_name,
        "commit_id": t.commit_id,
        "description": t.description,
        "created_at": t.created_at,
        "updated_at": t.updated_at,
    });
    if let (Some(repository), Some(tag)) = (repository, tag.as_object_mut()) {
        tag.insert(
            "reference".into(),
            format!("{repository}:{}", t.tag_name).into(),
        );
    }
    tag
}

pub(crate) async fn tags(State(app): State<Arc<App>>) -> Json<Value> {
    let tags: Vec<_> = app
        .manager
        .tags()
        .iter()
        .map(|t| tag_json(t, None))
        .collect();
    Json(json!({"tags": tags}))
}

pub(crate) async fn create_tag(
    State(app): State<Arc<App>>,
    Json(body): Json<NewTag>,
) -> ApiResult<(StatusCode, Json<Value>)> {
    check_texts([("description", &body.description)])?;
    let t = app
        .manager
        .create_tag(body.tag_name, body.commit_id, body.description)
        .await?;
    Ok((
        StatusCode::CREATED,
        Json(json!({"tag_id": t.tag_id, "tag_name": t.tag_name, "commit_id": t.commit_id})),
    ))
}

pub(crate) async fn tag(
    State(app): State<Arc<App>>,
    InPath(name): InPath<String>,
) -> ApiResult<Json<Value>> {
    Ok(Json(tag_json(&app.manager.tag(&name)?, None)))
}

pub(crate) async fn update_tag(
    State(app): State<Arc<App>>,
    InPath(name): InPath<String>,
    Json(body): Json<UpdateTag>,
) -> ApiResult<StatusCode> {
    app.manager.update_tag(name, body.change()?).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) async fn delete_tag(
    State(app): State<Arc<App>>,
    InPath(name): InPath<String>,
) -> ApiResult<StatusCode> {
    app.manager.delete_tag(name).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn repository_json(r: &RepositoryRecord) -> Value {
    json!({
        "repo_id": r.repo_id,
        "name": r.name,
        "description": r.description,
        "is_public": r.is_public,
        "created_at": r.created_at,
    })
}

pub(crate) async fn repositories(State(app): State<Arc<App>>) -> Json<Value> {
    let all: Vec<_> = app
        .manager
        .repositories()
        .iter()
        .map(repository_json)
        .collect();
    Json(json!({"repositories": all}))
}

#[derive(Debug, Deserialize)]
pub(crate) struct NewRepository {
    name: String,
    description: Option<String>,
}

pub(crate) async fn create_repository(
    State(app): State<Arc<App>>,
    Json(body): Json<NewRepository>,
) -> ApiResult<(StatusCode, Json<Value>)> {
    check_texts([("description", &body.description)])?;
    let r = app
        .manager
        .create_repository(body.name, body.description)
        .await?;
    Ok((
        StatusCode::CREATED,
        Json(json!({"repo_id": r.repo_id, "name": r.name})),
    ))
}

pub(crate) async fn repository(
    State(app): State<Arc<App>>,
    InPath(name): InPath<String>,
) -> ApiResult<Json<Value>> {
    Ok(Json(repository_json(&app.manager.repository(&name)?)))
}

pub(crate) async fn delete_repository(
    State(app): State<Arc<App>>,
    InPath(name): InPath<String>,
) -> ApiResult<StatusCode> {
    app.manager.delete_repository(name).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Debug, Deserialize)]
pub(crate) struct Visibility {
    is_public: bool,
}

pub(crate) async fn set_visibility(
    State(app): State<Arc<App>>,
    InPath(name): InPath<String>,
    Json(body): Json<Visibility>,
) -> ApiResult<StatusCode> {
    app.manager.set_visibility(name, body.is_public).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn repo_tags_json(r: &RepositoryRecord) -> Value {
    let tags: Vec<_> = r
        .tags
        .values()
        .map(|t| tag_json(t, Some(&r.name)))
        .collect();
    json!({"repository": r.name, "tags": tags})
}

pub(crate) async fn repo_tags(
    State(app): State<Arc<App>>,
    InPath(name): InPath<String>,
) -> ApiResult<Json<Value>> {
    Ok(Json(repo_tags_json(&app.manager.repository(&name)?)))
}

pub(crate) async fn create_repo_tag(
    State(app): State<Arc<App>>,
    InPath(name): InPath<String>,
    Json(body): Json<NewTag>,
) -> ApiResult<(StatusCode, Json<Value>)> {
    check_texts([("description", &body.description)])?;
    let reference = format!("{name}:{}", body.tag_name);
    let t = app
        .manager
        .create_repo_tag(name, body.tag_name, body.commit_id, body.description)
        .await?;
    Ok((
        StatusCode::CREATED,
        Json(json!({"tag_id": t.tag_id, "commit_id": t.commit_id, "reference": reference})),
    ))
}

pub(crate) async fn repo_tag(
    State(app): State<Arc<App>>,
    InPath((name, tag)): InPath<(String, String)>,
) -> ApiResult<Json<Value>> {
    Ok(Json(tag_json(
        &app.manager.repo_tag(&name, &tag)?,
        Some(&name),
    )))
}

pub(crate) async fn update_repo_tag(
    State(app): State<Arc<App>>,
    InPath((name, tag)): InPath<(String, String)>,
    Json(body): Json<UpdateTag>,
) -> ApiResult<StatusCode> {
    app.manager
        .update_repo_tag(name, tag, body.change()?)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) async fn delete_repo_tag(
    State(app): State<Arc<App>>,
    InPath((name, tag)): InPath<(String, String)>,
) -> ApiResult<StatusCode> {
    app.manager.delete_repo_tag(name, tag).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn public_json(r: &RepositoryRecord) -> Value {
    json!({
        "repo_id": r.repo_id,
        "org_name": ORGANISATION,
        "name": r.name,
        "full_name": format!("{ORGANISATION}/{}", r.name),
        "description": r.description,
        "created_at": r.created_at,
    })
}

fn published(app: &App, organisation: &str, name: &str) -> ApiResult<RepositoryRecord> {
    match app.manager.repository(name) {
        Ok(r) if r.is_public && organisation == ORGANISATION => Ok(r),
        _ => Err(Fault::REPOSITORY_NOT_FOUND.into()),
    }
}

pub(crate) async fn public_repositories(State(app): State<Arc<App>>) -> Json<Value> {
    let all: Vec<_> = app
        .manager
        .repositories()
        .iter()
        .filter(|r| r.is_public)
        .map(public_json)
        .collect();
    Json(json!({"repositories": all}))
}

pub(crate) async fn public_repository(
    State(app): State<Arc<App>>,
    InPath((organisation, name)): InPath<(String, String)>,
) -> ApiResult<Json<Value>> {
    Ok(Json(public_json(&published(&app, &organisation, &name)?)))
}

pub(crate) async fn public_tags(
    State(app): State<Arc<App>>,
    InPath((organisation, name)): InPath<(String, String)>,
) -> ApiResult<Json<Value>> {
    Ok(Json(repo_tags_json(&published(
        &app,
        &organisation,
        &name,
    )?)))
}

pub(crate) async fn public_tag(
    State(app): State<Arc<App>>,
    InPath((organisation, name, tag)): InPath<(String, String, String)>,
) -> ApiResult<Json<Value>> {
    let repository = published(&app, &organisation, &name)?;
    match repository.tags.get(&tag) {
        Some(tag) => Ok(Json(tag_json(tag, Some(&name)))),
        None => Err(ApiError::from(Fault::TAG_NOT_FOUND)),
    }
}
