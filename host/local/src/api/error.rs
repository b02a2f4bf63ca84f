//! The three shapes of failure that clients of the platform meet, kept as they are.

use crate::manager::Fault;
use axum::body::Body;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// A failure as the platform answers it.
#[derive(Debug)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) error: String,
}

pub(crate) type ApiResult<T> = Result<T, ApiError>;

impl ApiError {
    pub(crate) fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self {
            status,
            error: error.into(),
        }
    }

    /// `{"error": …, "success": false}` for what only the cloud has.
    pub(crate) fn unsupported(feature: &str) -> Self {
        Self::new(
            StatusCode::NOT_IMPLEMENTED,
            format!("the local platform has no {feature}; use the cloud for it"),
        )
    }

    /// The platform's answer to the deletion of a VM that is not there.
    pub(crate) fn forbidden() -> Self {
        Self::new(StatusCode::FORBIDDEN, "Forbidden")
    }

    /// The branch calls answer `{"vms":[],"error":…}` instead.
    pub(crate) fn into_hybrid(self) -> Response {
        (
            self.status,
            axum::Json(json!({"vms": [], "error": self.error})),
        )
            .into_response()
    }
}

impl From<Fault> for ApiError {
    fn from(fault: Fault) -> Self {
        let status = match &fault {
            Fault::NotFound(_) => StatusCode::NOT_FOUND,
            Fault::Invalid(_) | Fault::WrongState(_) | Fault::Limit(_) => StatusCode::BAD_REQUEST,
            Fault::Conflict(_) => StatusCode::CONFLICT,
            Fault::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Fault::Closing => StatusCode::SERVICE_UNAVAILABLE,
            Fault::Internal(_) => {
                tracing::error!("{fault}");
                StatusCode::INTERNAL_SERVER_ERROR
            }
        };
        Self::new(status, fault.to_string())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (
            self.status,
            axum::Json(json!({"error": self.error, "success": false})),
        )
            .into_response()
    }
}

/// Plain text without a Content-Type, as the platform's gateway answers.
pub(crate) fn untyped(status: StatusCode, text: impl Into<String>) -> Response {
    let mut response = Response::new(Body::from(text.into()));
    *response.status_mut() = status;
    response
}

/// 200 without body and without Content-Type.
pub(crate) fn done() -> Response {
    Response::new(Body::empty())
}
