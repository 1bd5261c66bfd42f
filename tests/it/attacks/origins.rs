//! Pages of other sites (group P of the catalogue).

use reqwest::{Method, header::HeaderMap};

use super::{
    attacked_server::AttackedServer,
    raw::{ask, upgrade},
};

const OURS: &str = "https://app.example.com";

async fn read_from(server: &AttackedServer, origin: &str) -> HeaderMap {
    let request = server.request(Method::GET, "/health").header("origin", origin);
    request.send().await.unwrap().headers().clone()
}

/// What a browser asks before it sends a token.
async fn preflight(server: &AttackedServer, origin: &str) -> HeaderMap {
    let request = server
        .request(Method::OPTIONS, "/auth/me")
        .header("origin", origin)
        .header("access-control-request-method", "GET")
        .header("access-control-request-headers", "authorization")
        .header("access-control-request-private-network", "true");
    request.send().await.unwrap().headers().clone()
}

/// P01: with the defaults any page may read, and what it is told makes sense to a browser: credentials
/// never with `*`, and whatever depends on the origin says so to caches.
#[tokio::test]
async fn cors_headers_are_consistent_in_every_setting() {
    for (origins, credentials) in
        [(r#"["*"]"#, "true"), (r#"["*"]"#, "false"), (OURS, "true"), (OURS, "false")]
    {
        let settings = [("CORS_ORIGINS", origins), ("CORS_ALLOW_CREDENTIALS", credentials)];
        let server = AttackedServer::start(&settings).await;

        for origin in [OURS, "https://evil.example", "null"] {
            for headers in [read_from(&server, origin).await, preflight(&server, origin).await] {
                let header = |name: &str| headers.get(name).map(|value| value.to_str().unwrap());
                let granted = header("access-control-allow-origin");

                let any = origins != OURS;
                let expected = match (any, credentials) {
                    (true, "false") => Some("*"),
                    (true, _) => Some(origin),
                    (false, _) => (origin == OURS).then_some(OURS),
                };
                assert_eq!(granted, expected, "{origin} with {settings:?}");
                let with_credentials = header("access-control-allow-credentials") == Some("true");
                assert!(!with_credentials || granted != Some("*"), "{settings:?}");
                assert_eq!(
                    granted.is_some() && with_credentials,
                    granted.is_some() && credentials == "true"
                );
                let varies = headers.get_all("vary").iter();
                let varies = varies
                    .filter_map(|vary| vary.to_str().ok())
                    .any(|vary| vary.to_lowercase().contains("origin"));
                assert!(varies || granted == Some("*"), "{origin} with {settings:?}: {headers:?}");
                assert_eq!(header("access-control-allow-private-network"), None);
                assert_eq!(header("set-cookie"), None, "nothing here hangs on a cookie");
            }
        }
        server.assert_unharmed().await;
    }
}

/// P02, P03: look-alikes of a listed origin are other origins, for reading, for asking and for sockets;
/// the refusal comes before the upgrade.
#[tokio::test]
async fn a_page_of_another_origin_gets_no_cors_headers_and_no_socket() {
    let server = AttackedServer::start(&[("CORS_ORIGINS", r#"["https://app.example.com"]"#)]).await;

    for foreign in [
        "null",
        "https://evil.example",
        "http://app.example.com",
        "https://app.example.com.evil.example",
        "https://evilapp.example.com",
        "https://app.example.com:444",
        "https://app.example.com@evil.example",
        "https://app.example.com.",
        "https://app.example.com/",
        "https://app.example.com https://evil.example",
        "https://evil.example, https://app.example.com",
        "https://app%2eexample.com",
        "https://app-example.com",
        "*",
        "https://*",
    ] {
        for headers in [read_from(&server, foreign).await, preflight(&server, foreign).await] {
            assert!(!headers.contains_key("access-control-allow-origin"), "{foreign}");
        }
        let refused = server.upgrade_status("den", &[("origin", foreign)]).await;
        assert_eq!(refused, 403, "{foreign}");
    }
    // What no browser sends: two, an empty one, one with a byte that is no ASCII.
    for origins in [
        format!("Origin: {OURS}\r\nOrigin: https://evil.example\r\n"),
        format!("Origin: https://evil.example\r\nOrigin: {OURS}\r\n"),
        "Origin: \r\n".to_owned(),
        format!("Origin: {OURS}\u{e9}\r\n"),
    ] {
        let refused = ask(server.address, upgrade("den") + &origins + "\r\n").await.unwrap();
        assert!((400..500).contains(&refused.status), "{origins}: {refused:?}");
        assert!(refused.json()["detail"].is_string());
    }
    server.connect_with("den", &[("origin", OURS)]).await.unwrap().receive().await;
    server.connect("den").await.receive().await; // a native client says no origin
    server.assert_unharmed().await;
}
