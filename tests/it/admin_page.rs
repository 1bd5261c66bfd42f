//! The administrator's page, as a browser is given it, and the figures that it shows.

use reqwest::Method;
use tokio::time::timeout;

use crate::harness::{TEST_TIMEOUT, TestServer};

const ADMIN_TOKEN: &str = "a-token-of-an-administrator-with-32-bytes";
const METRICS_TOKEN: &str = "a-token-for-figures";

async fn get(server: &TestServer, path: &str, token: Option<&str>) -> (u16, String) {
    let request = server.request(Method::GET, path);
    let request = token.into_iter().fold(request, |request, token| request.bearer_auth(token));
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

#[tokio::test]
async fn the_admin_page_does_not_exist_without_an_admin_token() {
    let server = TestServer::start(&[("METRICS_TOKEN", METRICS_TOKEN)]).await;

    for path in ["/admin", "/admin/", "/admin/page.mjs", "/admin/api/metrics", "/admin/api/closed"]
    {
        assert_eq!(get(&server, path, None).await.0, 404, "{path}");
    }
}

#[tokio::test]
async fn the_admin_page_loads_only_from_the_server_and_contains_no_secret() {
    let server = TestServer::start(&[("ADMIN_TOKEN", ADMIN_TOKEN)]).await;

    for (path, folder) in [("/admin", "admin/"), ("/admin/", "")] {
        let (_, page) = get(&server, path, None).await;
        let links = page.split(" href=\"").chain(page.split(" src=\"")).skip(1);
        let links = links.filter_map(|rest| rest.split('"').next());
        let files: Vec<_> = links.filter(|link| link.contains('.')).collect();
        let (style, script) = (format!("{folder}style.css"), format!("{folder}page.mjs"));
        assert_eq!(files, [&style, &script], "relative, for a proxy that serves it below a path");
    }
    for path in ["/admin", "/admin/", "/admin/style.css", "/admin/page.mjs", "/admin/room.mjs"] {
        let answer = server.request(Method::GET, path).send().await.unwrap();

        let (headers, status) = (answer.headers().clone(), answer.status());
        let text = answer.text().await.unwrap();
        let header = |name| headers[name].to_str().unwrap().to_owned();
        assert_eq!(status, 200, "{path}");
        assert!(!text.contains(ADMIN_TOKEN) && !text.contains("style=\""), "{path}");
        assert_eq!(header("cache-control"), "no-store", "{path}");
        assert_eq!(header("x-frame-options"), "DENY", "{path}");
        let policy = header("content-security-policy");
        assert!(policy.contains("default-src 'none'; script-src 'self';"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
    }
}

#[tokio::test]
async fn each_token_opens_the_metrics_at_its_own_path_only() {
    let server =
        TestServer::start(&[("ADMIN_TOKEN", ADMIN_TOKEN), ("METRICS_TOKEN", METRICS_TOKEN)]).await;
    let of_each = [("/metrics", METRICS_TOKEN), ("/admin/api/metrics", ADMIN_TOKEN)];

    for (path, known) in of_each {
        let (status, text) = get(&server, path, Some(known)).await;
        assert!(status == 200 && text.ends_with("# EOF\n"), "{status}: {text}");
        for token in [ADMIN_TOKEN, METRICS_TOKEN, "another"] {
            let expected = if token == known { 200 } else { 401 };
            assert_eq!(get(&server, path, Some(token)).await.0, expected, "{path}");
        }
        assert_eq!(get(&server, path, None).await.0, 401);
    }
}

#[tokio::test]
async fn a_closed_room_is_found_with_its_timeline() {
    let server = TestServer::start(&[("ADMIN_TOKEN", ADMIN_TOKEN)]).await;
    let alice = server.join("den", "alice").await;
    let past = async || get(&server, "/admin/api/closed", Some(ADMIN_TOKEN)).await.1;
    assert_eq!(past().await, "[]");

    alice.leave().await;

    let found = async {
        loop {
            let found = past().await;
            if found != "[]" {
                return found;
            }
        }
    };
    let found = timeout(TEST_TIMEOUT, found).await.unwrap();
    assert!(found.starts_with("[{\"room_id\":\"den\",\"closed_for_seconds\":"), "{found}");
    let (_, story) = get(&server, "/admin/api/rooms/den/timeline", Some(ADMIN_TOKEN)).await;
    assert!(story.contains("\"is_open\":false"), "{story}");
}
