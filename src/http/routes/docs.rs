//! The interactive API pages (`/docs`, `/redoc`) and `/openapi.json`. Swagger UI is part of the binary.

use std::{borrow::Cow, sync::Arc};

use axum::{
    Router,
    body::Bytes,
    extract::Path,
    http::{HeaderValue, header},
    response::{Html, IntoResponse, Response},
    routing::get,
};
use utoipa::ToSchema;
use utoipa::openapi::{
    Components, ContactBuilder, Content, InfoBuilder, OpenApi, OpenApiBuilder, Ref,
    ResponseBuilder,
    security::{Flow, Http, HttpAuthScheme, OAuth2, Password, Scopes, SecurityScheme},
};

use crate::{
    http::error::{ApiError, ErrorBody, InvalidBody},
    state::AppState,
};

/// Swagger UI sets styles on its own elements and draws its icons from `data:`.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
     connect-src 'self'; frame-ancestors 'none'",
);

const TRY: &str = include_str!("docs.html");

/// Our own files below `/docs/`; the others are Swagger UI's.
const OWN: [(&str, &str); 3] =
    [("theme.js", THEME), ("try.js", start(true)), ("read.js", start(false))];

/// Swagger UI has a dark theme, and leaves it to the page to follow the system.
const THEME: &str = "const dark = matchMedia('(prefers-color-scheme: dark)'); \
    const follow = () => document.documentElement.classList.toggle('dark-mode', dark.matches); \
    dark.addEventListener('change', follow); follow();";

const fn start(trying: bool) -> &'static str {
    if trying {
        "SwaggerUIBundle({ url: '/openapi.json', dom_id: '#docs', deepLinking: true });"
    } else {
        "SwaggerUIBundle({ url: '/openapi.json', dom_id: '#docs', deepLinking: true, \
         docExpansion: 'full', supportedSubmitMethods: [] });"
    }
}

/// The OpenAPI document before its routes: title, version, security schemes.
pub(in crate::http) fn introduction() -> OpenApi {
    let password = Flow::Password(Password::new("/auth/token", Scopes::new()));
    let contact = ContactBuilder::new().name(Some("The operator of this server")).build();
    let mut document = OpenApiBuilder::new()
        .info(
            InfoBuilder::new()
                .title("WebRTC Signaling Server")
                .version(env!("CARGO_PKG_VERSION"))
                .description(Some("REST beside the WebSocket `/ws/{room_id}`, whose messages are in docs/build/protocol.md."))
                .contact(Some(contact))
                .build(),
        )
        .build();
    let components = document.components.get_or_insert_default();
    // Responses that routes share bring no schemas of their own.
    add_schema::<ErrorBody>(components);
    add_schema::<InvalidBody>(components);
    components.add_security_scheme("token", SecurityScheme::OAuth2(OAuth2::new([password])));
    components
        .add_security_scheme("admin", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
    document
}

fn add_schema<T: ToSchema>(components: &mut Components) {
    let mut schemas = vec![(T::name().into_owned(), T::schema())];
    T::schemas(&mut schemas);
    components.schemas.extend(schemas);
}

/// Adds the response of a layer to the routes that it limits: too many requests (see `rate_limit::limit_requests`). Summaries
/// come from comments, and lose their Markdown.
fn complete(mut document: OpenApi) -> OpenApi {
    let rejected = ResponseBuilder::new()
        .description(
            "Too many requests, or too many failures: `Retry-After` says how many seconds to wait",
        )
        .content("application/json", Content::new(Some(Ref::from_schema_name(ErrorBody::name()))))
        .build();
    for (path, item) in &mut document.paths.paths {
        for operation in [&mut item.get, &mut item.post].into_iter().flatten() {
            // Descriptions are Markdown, summaries are plain text (OpenAPI 3.1, Operation Object).
            operation.summary = operation.summary.take().map(|summary| summary.replace('`', ""));
            if !matches!(path.as_str(), "/health" | "/health/ready" | "/metrics") {
                operation.responses.responses.insert("429".to_owned(), rejected.clone().into());
            }
        }
    }
    document
}

pub(in crate::http) fn router(spec: OpenApi) -> Router<AppState> {
    let spec = complete(spec).to_json().map(Bytes::from).unwrap_or_default();
    let json = [(header::CONTENT_TYPE, "application/json")];
    Router::new()
        .route("/openapi.json", get(async move || (json, spec.clone())))
        .route("/docs", get(async || page("try.js")))
        .route("/redoc", get(async || page("read.js")))
        .route("/docs/{file}", get(asset))
}

fn page(start: &str) -> Response {
    ([(header::CONTENT_SECURITY_POLICY, POLICY)], Html(TRY.replace("START", start))).into_response()
}

async fn asset(Path(file): Path<String>) -> Result<Response, ApiError> {
    if let Some((_, script)) = OWN.iter().find(|(name, _)| *name == file) {
        return Ok(([(header::CONTENT_TYPE, "text/javascript")], *script).into_response());
    }
    let config = Arc::new(utoipa_swagger_ui::Config::default());
    match utoipa_swagger_ui::serve(&file, config) {
        Ok(Some(found)) => {
            let bytes = match found.bytes {
                Cow::Borrowed(bytes) => Bytes::from_static(bytes),
                Cow::Owned(bytes) => bytes.into(),
            };
            Ok(([(header::CONTENT_TYPE, found.content_type)], bytes).into_response())
        }
        Ok(None) => Err(ApiError::NotFound),
        Err(error) => Err(ApiError::Internal(error.to_string().into())),
    }
}
