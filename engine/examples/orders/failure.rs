//! What a request that fails is answered.

use annals::ErrorKind;
use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

/// An answer that says why not: `{"error": "…", "code": 3001}`, with the store's code where the store refused.
#[derive(Debug)]
pub struct Failure {
    status: StatusCode,
    error: String,
    code: Option<u32>,
}

impl Failure {
    pub fn new(status: StatusCode, error: impl Into<String>) -> Failure {
        Failure { status, error: error.into(), code: None }
    }

    pub fn invalid(error: &str) -> Failure {
        Failure::new(StatusCode::BAD_REQUEST, error)
    }
}

impl From<annals::Error> for Failure {
    fn from(error: annals::Error) -> Failure {
        let status = match error.kind() {
            ErrorKind::Invalid => StatusCode::BAD_REQUEST,
            ErrorKind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            ErrorKind::NotFound => StatusCode::NOT_FOUND,
            ErrorKind::Conflict | ErrorKind::Duplicate => StatusCode::CONFLICT,
            ErrorKind::Full => StatusCode::INSUFFICIENT_STORAGE,
            // Nothing was written: another time, or another process, will do better.
            ErrorKind::Busy
            | ErrorKind::Contended
            | ErrorKind::Stopped
            | ErrorKind::NotWritten
            | ErrorKind::Closed => StatusCode::SERVICE_UNAVAILABLE,
            // Among them `OutcomeUnknown`: whoever sent an idempotency key just sends it again.
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Failure { status, error: error.to_string(), code: Some(error.code()) }
    }
}

impl From<JsonRejection> for Failure {
    fn from(rejection: JsonRejection) -> Failure {
        let status = match rejection {
            JsonRejection::JsonDataError(_) => StatusCode::BAD_REQUEST,
            _ => rejection.status(),
        };
        Failure::new(status, rejection.body_text())
    }
}

impl From<PathRejection> for Failure {
    fn from(rejection: PathRejection) -> Failure {
        Failure::new(rejection.status(), rejection.body_text())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let Failure { status, error, code } = self;
        let body = match code {
            Some(code) => serde_json::json!({ "error": error, "code": code }),
            None => serde_json::json!({ "error": error }),
        };
        let mut response = (status, Json(body)).into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, 1.into());
        }
        response
    }
}
