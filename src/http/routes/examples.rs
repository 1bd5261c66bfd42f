//! Serves the example pages, in `DEBUG` only: they are for development.

use axum::{
    Router,
    extract::{Path, State},
    http::{HeaderValue, header},
    response::{Html, IntoResponse, Response},
    routing::get,
};

use crate::{http::error::ApiError, state::AppState};

/// An example page.
struct Example {
    name: &'static str,
    title: &'static str,
    /// What it shows.
    about: &'static str,
    text: &'static str,
}

const PAGES: [Example; 3] = [
    Example {
        name: "secure_client.html",
        title: "Video call",
        about: "A call with the JavaScript client: log in, choose devices, share the screen, chat.",
        text: include_str!("../../../examples/secure_client.html"),
    },
    Example {
        name: "simple_client.html",
        title: "The protocol, frame by frame",
        about: "A guest in a room, without a library: the page shows each frame that is sent and received.",
        text: include_str!("../../../examples/simple_client.html"),
    },
    Example {
        name: "turn_credentials_example.html",
        title: "TURN diagnosis",
        about: "Tries each STUN and TURN server from this browser, and makes a call through it.",
        text: include_str!("../../../examples/turn_credentials_example.html"),
    },
];

/// Each page is one file with inline script and style. It loads the client library from this server, and connects to
/// any server that the user enters.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; media-src blob:; \
     connect-src http: https: ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

const LIST: &str = include_str!("examples.html");

pub(in crate::http) fn router() -> Router<AppState> {
    Router::new().route("/examples", get(list)).route("/examples/{page}", get(page))
}

/// The list of the example pages, and of what else this server has for a browser.
async fn list(State(app): State<AppState>) -> Response {
    let item = |href: &str, title: &str, about: &str| {
        format!("<li><a href=\"{href}\">{title}</a><br>{about}</li>")
    };
    let examples = PAGES
        .iter()
        .map(|Example { name, title, about, .. }| item(&format!("/examples/{name}"), title, about));
    let others = [
        (app.config.process.api_docs, "/docs", "REST API", "Every route, to read and to try."),
        (
            app.config.auth.admin_token.is_some(),
            "/admin/",
            "Administration",
            "Rooms, members and metrics, for whoever has the <code>ADMIN_TOKEN</code>.",
        ),
        (true, "/health", "Health", "Members, rooms and version, as JSON."),
    ];
    let others = others.into_iter().filter(|(is_served, ..)| *is_served);
    let others = others.map(|(_, path, title, about)| item(path, title, about));
    let page = LIST
        .replace("EXAMPLES", &examples.collect::<String>())
        .replace("OTHERS", &others.collect::<String>());
    serve(page)
}

async fn page(Path(page): Path<String>) -> Result<Response, ApiError> {
    let found = PAGES.iter().find(|example| example.name == page).ok_or(ApiError::NotFound)?;
    Ok(serve(found.text.to_owned()))
}

fn serve(page: String) -> Response {
    ([(header::CONTENT_SECURITY_POLICY, POLICY)], Html(page)).into_response()
}
