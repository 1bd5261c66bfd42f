//! Errors of REST requests, as the client gets them.

use std::{any::Any, net::IpAddr, time::Duration};

use axum::{
    Json,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::{
    moderation::RuleLimitReached,
    rooms::ClusterUnavailable,
    session::AuthError,
    state::{LoginError, ModerationError, NotPersisted},
};

/// The error of a REST handler.
///
/// The `Display` text is the `detail` of the response, which existing clients read.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// 400.
    #[error("{0}")]
    BadRequest(&'static str),
    /// 401. The bearer token is missing.
    #[error("Not authenticated")]
    NotAuthenticated,
    /// 401. The bearer token is forged, expired, or its account is gone.
    #[error("Could not validate credentials")]
    InvalidToken,
    /// 401. The username or the password is wrong; the client is not told which.
    #[error("Incorrect username or password")]
    WrongPassword,
    /// 403. The permissions of the token lack the room.
    #[error("The permissions of this token lack that room")]
    RoomNotPermitted,
    /// 403. `PASSWORD_LOGIN` is `false`.
    #[error("This server has no password login")]
    NoPasswordLogin,
    /// 403. A token that this server did not issue cannot be refreshed here.
    #[error("This token is no login; the service that has issued it also renews it")]
    ForeignToken,
    /// 403. `REQUIRE_HTTPS`.
    #[error("HTTPS required{}", missing_scheme(*silent_proxy))]
    HttpsRequired {
        /// The trusted proxy that did not say whether the client used TLS.
        silent_proxy: Option<SilentProxy>,
    },
    /// 403. The `Origin` of a WebSocket is not one of `CORS_ORIGINS`; the text of it, if there is just one.
    #[error("Origin not allowed: {}", refused_origin(origin.as_deref()))]
    OriginNotAllowed {
        /// The refused origin; none where the request has several.
        origin: Option<String>,
    },
    /// 404.
    #[error("Not Found")]
    NotFound,
    /// 404.
    #[error("Room not found")]
    RoomNotFound,
    /// 404. A command of an administrator is about a member that is not in the room.
    #[error("No such member is in this room")]
    MemberNotFound,
    /// 404. An administrator removes a rule that is not active.
    #[error("No such rule is active")]
    RuleNotFound,
    /// 409.
    #[error(transparent)]
    RuleLimitReached(#[from] RuleLimitReached),
    /// 503, with `Retry-After`. A command of an administrator applies, but could not be written to disk.
    #[error(
        "The command applies now, but could not be written to disk: a restart would undo it. Free the disk and repeat it"
    )]
    NotPersisted,
    /// 405, with `Allow`.
    #[error("Method Not Allowed")]
    MethodNotAllowed,
    /// 408. The body did not arrive in time.
    #[error("The request body did not arrive in time")]
    BodyTooSlow,
    /// 413.
    #[error("Request body too large")]
    BodyTooLarge,
    /// 415.
    #[error("Unsupported content type; accepted: {0}")]
    UnsupportedType(&'static str),
    /// 415.
    #[error("Unsupported content encoding; send the body uncompressed")]
    UnsupportedEncoding,
    /// 422. Fields that are missing or of the wrong type.
    #[error("Unprocessable Entity")]
    Invalid(Vec<FieldError>),
    /// 400. The request cannot become a WebSocket.
    #[error("This URL is a WebSocket, and the request is no handshake (RFC 6455)")]
    NotAHandshake,
    /// 431.
    #[error("The request head is larger than 32 KiB")]
    HeadTooLarge,
    /// 429, with `Retry-After`. Failed logins.
    #[error("Too many failed login attempts. Please try again later.")]
    LockedOut(Duration),
    /// 429, with `Retry-After`.
    #[error("Rate limit exceeded. Please try again later.")]
    TooManyRequests(Duration),
    /// 503.
    #[error("TURN server not configured")]
    TurnNotConfigured,
    /// 503.
    #[error("TURN server URLs not configured")]
    NoTurnUrls,
    /// 503, with `Retry-After`. The limit of unauthenticated connections is reached.
    #[error("Too many connections are waiting to authenticate. Please try again later.")]
    TooManyUnauthenticated,
    /// 503, with `Retry-After`. The memory budget is used up.
    #[error("The server holds as much as it may. Please try again later.")]
    Overloaded,
    /// 503, with `Retry-After`. The server is stopping.
    #[error("The server is restarting")]
    Draining,
    /// 503, with `Retry-After`. Redis cannot be reached, so the state of the other nodes is unknown.
    #[error("Redis, which the nodes of this cluster share, cannot be reached")]
    ClusterUnavailable,
    /// 503, with `Retry-After`. As many complete lists of rooms are being sent as may be at a time.
    #[error(
        "Too many complete lists of rooms are being sent. Please try again later, or ask for a page with \"limit\"."
    )]
    TooManyLists,
    /// 503, with `Retry-After`. More logins wait than can be checked within seconds.
    #[error("Too many logins are waiting. Please try again later.")]
    TooManyLogins,
    /// 500. The cause is logged, and never sent to the client.
    #[error("Internal server error")]
    Internal(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A trusted proxy that did not say whether its client used TLS.
#[derive(Clone, Copy, Debug)]
pub enum SilentProxy {
    /// It sent no `X-Forwarded-Proto`.
    Http(IpAddr),
    /// Its PROXY header has no TLS information.
    Tcp(IpAddr),
}

fn missing_scheme(silent_proxy: Option<SilentProxy>) -> String {
    match silent_proxy {
        None => String::new(),
        Some(SilentProxy::Http(proxy)) => {
            format!(": the proxy at {proxy} sent no header X-Forwarded-Proto: https")
        }
        Some(SilentProxy::Tcp(proxy)) => {
            format!(": the PROXY header of {proxy} does not say that the client used TLS")
        }
    }
}

fn refused_origin(origin: Option<&str>) -> String {
    origin.map_or_else(
        || "the request has more than one header Origin".to_owned(),
        |origin| {
            format!(
                "\"{origin}\" is not one of CORS_ORIGINS; a client that is no web page need not send an Origin"
            )
        },
    )
}

/// One error in a request body, in the format of FastAPI. It never repeats the wrong value.
#[derive(Debug, Serialize, ToSchema)]
pub struct FieldError {
    /// The kind of error: `missing`, `string_type`, `json_invalid`, …
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The place: `["body", "password"]`, or the position in invalid JSON.
    #[schema(value_type = Vec<PathStep>)]
    pub loc: Vec<Value>,
    /// The error as a sentence.
    pub msg: String,
}

/// A step of the path to a field.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only described, in the OpenAPI document")]
enum PathStep {
    Name(String),
    Position(u64),
}

/// The body of every error but 422.
#[derive(Serialize, ToSchema)]
pub struct ErrorBody {
    /// What went wrong, as a sentence.
    #[schema(example = "Could not validate credentials")]
    pub detail: String,
}

/// The body of 422.
#[derive(Serialize, ToSchema)]
pub struct InvalidBody {
    /// One entry for each error.
    pub detail: Vec<FieldError>,
}

/// The body of a failed `/auth/token` (RFC 6749 section 5.2, beside the `detail` that clients read).
#[derive(Serialize, ToSchema)]
pub struct GrantErrorBody {
    /// What went wrong, as a sentence.
    pub detail: String,
    /// Always `invalid_grant`.
    #[schema(example = "invalid_grant")]
    pub error: String,
}

impl FieldError {
    /// A required field is missing.
    pub fn missing(field: &str) -> Self {
        Self {
            kind: "missing",
            loc: vec![json!("body"), json!(field)],
            msg: "Field required".into(),
        }
    }
}

impl ApiError {
    fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::NotAuthenticated | Self::InvalidToken | Self::WrongPassword => {
                StatusCode::UNAUTHORIZED
            }
            Self::RoomNotPermitted
            | Self::NoPasswordLogin
            | Self::ForeignToken
            | Self::HttpsRequired { .. }
            | Self::OriginNotAllowed { .. } => StatusCode::FORBIDDEN,
            Self::NotFound | Self::RoomNotFound | Self::MemberNotFound | Self::RuleNotFound => {
                StatusCode::NOT_FOUND
            }
            Self::RuleLimitReached(_) => StatusCode::CONFLICT,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::BodyTooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedType(_) | Self::UnsupportedEncoding => {
                StatusCode::UNSUPPORTED_MEDIA_TYPE
            }
            Self::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::NotAHandshake => StatusCode::BAD_REQUEST,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::LockedOut(_) | Self::TooManyRequests(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::TurnNotConfigured
            | Self::NoTurnUrls
            | Self::TooManyUnauthenticated
            | Self::Overloaded
            | Self::Draining
            | Self::ClusterUnavailable
            | Self::NotPersisted
            | Self::TooManyLists
            | Self::TooManyLogins => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::LockedOut(wait) | Self::TooManyRequests(wait) => Some(*wait),
            Self::TooManyUnauthenticated
            | Self::TooManyLogins
            | Self::Overloaded
            | Self::Draining
            | Self::NotPersisted
            | Self::TooManyLists
            | Self::ClusterUnavailable => Some(Duration::from_secs(5)),
            // An operator has to change the settings first.
            Self::TurnNotConfigured | Self::NoTurnUrls => Some(Duration::from_secs(300)),
            Self::BadRequest(_)
            | Self::NotAuthenticated
            | Self::InvalidToken
            | Self::WrongPassword
            | Self::RoomNotPermitted
            | Self::NoPasswordLogin
            | Self::ForeignToken
            | Self::HttpsRequired { .. }
            | Self::OriginNotAllowed { .. }
            | Self::NotFound
            | Self::RoomNotFound
            | Self::MemberNotFound
            | Self::RuleNotFound
            | Self::RuleLimitReached(_)
            | Self::MethodNotAllowed
            | Self::BodyTooSlow
            | Self::BodyTooLarge
            | Self::UnsupportedType(_)
            | Self::UnsupportedEncoding
            | Self::HeadTooLarge
            | Self::Invalid(_)
            | Self::NotAHandshake
            | Self::Internal(_) => None,
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        if let Self::Internal(cause) = &self {
            tracing::error!(%cause, "request failed: internal error");
        }
        let (status, text) = (self.status(), self.to_string());
        let mut headers = HeaderMap::new();
        if let Some(wait) = self.retry_after() {
            headers.insert(header::RETRY_AFTER, whole_seconds(wait).into());
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        let detail = if let Self::Invalid(faults) = self { json!(faults) } else { json!(text) };
        (status, headers, Json(json!({ "detail": detail }))).into_response()
    }
}

/// Seconds for a header, rounded up, so that a client that waits so long has waited long enough.
pub fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

impl From<AuthError> for ApiError {
    fn from(why: AuthError) -> Self {
        match why {
            AuthError::BadToken
            | AuthError::Blocked
            | AuthError::NoSuchUser
            | AuthError::TooManyConnections
            | AuthError::Removed => Self::InvalidToken,
        }
    }
}

impl From<ClusterUnavailable> for ApiError {
    fn from(ClusterUnavailable: ClusterUnavailable) -> Self {
        Self::ClusterUnavailable
    }
}

impl From<NotPersisted> for ApiError {
    fn from(NotPersisted: NotPersisted) -> Self {
        Self::NotPersisted
    }
}

impl From<ModerationError> for ApiError {
    fn from(why: ModerationError) -> Self {
        match why {
            ModerationError::RuleLimitReached(reached) => reached.into(),
            ModerationError::NotPersisted(NotPersisted) => Self::NotPersisted,
        }
    }
}

impl From<LoginError> for ApiError {
    fn from(why: LoginError) -> Self {
        match why {
            LoginError::Wrong => Self::WrongPassword,
            LoginError::Locked(wait) => Self::LockedOut(wait),
            LoginError::Busy => Self::TooManyLogins,
            LoginError::SwitchedOff => Self::NoPasswordLogin,
            LoginError::Internal(cause) => Self::Internal(cause.into()),
        }
    }
}

impl From<jsonwebtoken::errors::Error> for ApiError {
    fn from(cause: jsonwebtoken::errors::Error) -> Self {
        Self::Internal(cause.into())
    }
}

/// The response of a handler that panicked. The panic message may contain secrets and is not sent.
pub fn after_panic(_panic: Box<dyn Any + Send>) -> Response {
    ApiError::Internal("a handler panicked".into()).into_response()
}
