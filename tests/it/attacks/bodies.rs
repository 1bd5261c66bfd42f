//! Request bodies that are huge, broken or packed (group E of the catalogue).

use serde_json::json;

use super::{
    attacked_server::AttackedServer,
    raw::{Answer, ask},
};
use crate::harness::PASSWORD;

const TOO_MUCH: usize = 16 << 20;

/// A request with a body, written by hand.
fn posting(path: &str, headers: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let length = body.len();
    let head =
        format!("POST {path} HTTP/1.1\r\nHost: a\r\n{headers}Content-Length: {length}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

/// What every refusal looks like.
fn is_labelled_json(answer: &Answer) -> bool {
    answer.header("x-content-type-options") == Some("nosniff")
        && answer.header("content-type") == Some("application/json")
        && answer.header("x-request-id").is_some()
        && !answer.json()["detail"].is_null()
}

/// E01, E02, E05 beyond what `rest` asks: bodies made to break a parser.
#[tokio::test]
async fn a_body_made_to_break_a_parser_is_rejected_in_json() {
    const JSON: &str = "Content-Type: application/json\r\n";
    const FORM: &str = "Content-Type: application/x-www-form-urlencoded\r\n";
    const PARTS: &str = "Content-Type: multipart/form-data; boundary=b\r\n";
    let server = AttackedServer::start(&[]).await;
    let deep = format!(r#"{{"username":{}{}}}"#, "[".repeat(32_000), "]".repeat(32_000));
    let many: Vec<_> = (0..4000).map(|number| format!(r#""k{number}":0"#)).collect();
    let many = format!("{{{}}}", many.join(","));
    let parts = "--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nx\r\n".repeat(1200);
    let long_name = "x".repeat(60_000);
    let odd_name = format!(
        "--b\r\nContent-Disposition: form-data; name=\"{long_name}\"\r\n\r\nx\r\n--b--\r\n"
    );

    for (path, headers, body, status) in [
        ("/auth/login", JSON, deep.as_bytes(), 422),
        ("/auth/login", JSON, many.as_bytes(), 422),
        ("/auth/login", JSON, b"{\"username\":\"\xff\xfe\",\"password\":\"x\"}", 422),
        ("/auth/login", JSON, br#"{"username":"\ud800","password":"x"}"#, 422),
        // A byte order mark is read over, as the replaced server does (RFC 8259 section 8.1 allows it).
        ("/auth/login", JSON, b"\xef\xbb\xbf{\"username\":\"a\",\"password\":\"x\"}", 401),
        (
            "/auth/login",
            JSON,
            b"\xef\xbb\xbf\xef\xbb\xbf{\"username\":\"a\",\"password\":\"x\"}",
            422,
        ),
        ("/auth/login", JSON, br#"{"username":1e999,"password":-0}"#, 422),
        ("/auth/login", JSON, br#"{"username":"a","password":"x"}{}"#, 422),
        ("/auth/login", JSON, b"\0", 422),
        ("/auth/login", FORM, b"username=alice&password=x", 415),
        ("/auth/login", "Content-Type: \u{ff}\r\n", b"{}", 415),
        ("/auth/token", FORM, &[b'&'; 65_536], 422),
        ("/auth/token", FORM, &[b'%'; 65_536], 422),
        ("/auth/token", FORM, b"username[]=alice&password[$ne]=x", 422),
        ("/auth/token", JSON, br#"{"username":"a","password":"x"}"#, 415),
        ("/auth/token", PARTS, parts.as_bytes(), 400),
        ("/auth/token", PARTS, odd_name.as_bytes(), 422),
        ("/auth/token", PARTS, b"--b", 400),
        ("/auth/token", PARTS, b"", 400),
        ("/auth/token", "Content-Type: multipart/form-data\r\n", b"--b--\r\n", 400),
        ("/auth/token", "Content-Type: multipart/form-data; boundary=\r\n", b"----\r\n", 422),
    ] {
        let shown = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        let answer = ask(server.address, posting(path, headers, body)).await.expect(&shown);

        assert_eq!(answer.status, status, "{path} {headers}{shown}: {answer:?}");
        assert!(is_labelled_json(&answer), "{shown}: {answer:?}");
        assert!(answer.body.len() < 1000, "{shown}: what was sent is not sent back");
    }
    server.assert_unharmed().await;
}

/// E03, E06: the body is never held, whatever it is for. Eight at a time, 16 MiB each.
#[tokio::test]
async fn a_huge_body_is_rejected_or_cut_off_and_never_buffered() {
    let server = AttackedServer::start(&[]).await;
    let chunk = [b"10000\r\n", [b'x'; 65_536].as_slice(), b"\r\n"].concat();
    let chunked: Vec<u8> = chunk.repeat(TOO_MUCH / 65_536);
    let plain = vec![b'x'; TOO_MUCH];
    let target = |at: usize| {
        [
            "POST /auth/login HTTP/1.1\r\nContent-Type: application/json\r\n",
            "POST /auth/token HTTP/1.1\r\nContent-Type: application/x-www-form-urlencoded\r\n",
            "POST /auth/logout HTTP/1.1\r\n",
            "GET /health HTTP/1.1\r\n",
        ][at % 4]
    };
    server.reset_peak();
    let before = server.peak();

    let asking = (0..8).map(async |at| {
        let (how, body) = match at < 4 {
            true => (format!("Content-Length: {TOO_MUCH}"), &plain),
            false => ("Transfer-Encoding: chunked".to_owned(), &chunked),
        };
        let mut connection = server.raw().await;
        connection.write(format!("{}Host: a\r\n{how}\r\n\r\n", target(at))).await;
        let _ = connection.try_write(body).await;
        let answer = connection.answer().await;
        assert!(answer.is_none_or(|answer| answer.status == 413), "{}", target(at));
        assert_eq!(connection.answer().await.map(|answer| answer.status), None, "it is the last");
    });
    futures_util::future::join_all(asking).await;

    let held = server.peak().saturating_sub(before);
    assert!(held < TOO_MUCH as u64, "{held} bytes were held at once");
    server.assert_unharmed().await;
}

/// E03, E06: somebody who sends no more than a mebibyte is told why, also where nobody asked for a body.
#[tokio::test]
async fn a_body_or_a_field_that_is_too_large_is_answered_with_413() {
    let server = AttackedServer::start(&[]).await;
    let mebibyte = "x".repeat((1 << 20) - 1000);
    let login = json!({"username":mebibyte,"password":PASSWORD}).to_string();
    let form = format!("username=alice&password={mebibyte}");
    let multipart = format!(
        "--b\r\nContent-Disposition: form-data; name=\"password\"\r\n\r\n{mebibyte}\r\n--b--\r\n"
    );

    for (path, headers, body) in [
        ("/auth/login", "Content-Type: application/json\r\n", &login),
        ("/auth/token", "Content-Type: application/x-www-form-urlencoded\r\n", &form),
        ("/auth/token", "Content-Type: multipart/form-data; boundary=b\r\n", &multipart),
        ("/auth/refresh", "", &mebibyte),
        ("/auth/logout", "", &mebibyte),
        ("/api/rooms/den/info", "", &mebibyte),
        ("/nowhere", "", &mebibyte),
    ] {
        let chunk = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
        let head =
            format!("POST {path} HTTP/1.1\r\nHost: a\r\n{headers}Transfer-Encoding: chunked");

        let declared = ask(server.address, posting(path, headers, body)).await.expect(path);
        let chunked = ask(server.address, format!("{head}\r\n\r\n{chunk}")).await.expect(path);

        for (answer, how) in [(declared, "declared"), (chunked, "chunked")] {
            assert_eq!(answer.status, 413, "{path}, {how}: {answer:?}");
            assert!(is_labelled_json(&answer));
        }
    }
    server.assert_unharmed().await;
}

/// A compressed body could be a thousand times its size: none is taken.
#[tokio::test]
async fn a_compressed_body_is_rejected() {
    let server = AttackedServer::start(&[]).await;
    let body = json!({"username":"alice","password":PASSWORD}).to_string();

    for encoding in ["gzip", "deflate", "br", "zstd", "gzip, gzip", "x-gzip", "identity, gzip"] {
        let headers = format!("Content-Type: application/json\r\nContent-Encoding: {encoding}\r\n");
        let answer = ask(server.address, posting("/auth/login", &headers, &body)).await.unwrap();

        assert_eq!(answer.status, 415, "{encoding}");
        assert!(is_labelled_json(&answer));
    }
    server.assert_unharmed().await;
}

/// What stands around the bytes of a chunked body is bounded as well: extensions, trailers, a size that
/// does not fit, chunks of one byte.
#[tokio::test]
async fn extensions_and_trailers_of_a_chunked_body_are_bounded() {
    let server = AttackedServer::start(&[]).await;
    let much = "x".repeat(1 << 20);
    let trailers: String = (0..20_000).map(|number| format!("X-T{number}: {number}\r\n")).collect();

    for (case, body) in [
        ("an extension without end", format!("2;{much}\r\n{{}}\r\n0\r\n\r\n")),
        ("many extensions", format!("{}0\r\n\r\n", "1;a=b;c=d\r\n \r\n".repeat(60_000))),
        ("trailers", format!("2\r\n{{}}\r\n0\r\n{trailers}\r\n")),
        ("a trailer without end", format!("2\r\n{{}}\r\n0\r\nX-T: {much}")),
        ("a size without end", "0".repeat(1 << 20)),
        ("a size that does not fit", format!("{}\r\n{{}}\r\n", "f".repeat(17))),
        ("a negative size", "-2\r\n{}\r\n0\r\n\r\n".to_owned()),
    ] {
        let mut connection = server.raw().await;
        let head = "POST /auth/login HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        let _ = connection.try_write(format!("{head}{body}")).await;
        let answer = connection.answer().await;

        let status = answer.map_or(400, |answer| answer.status);
        assert!([400, 408, 413, 422].contains(&status), "{case}: {status}");
    }
    let login = json!({"username":"alice","password":PASSWORD}).to_string();
    let by_ones: String = login.bytes().map(|byte| format!("1\r\n{}\r\n", byte as char)).collect();
    let head = "POST /auth/login HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let answer = ask(server.address, format!("{head}{by_ones}0\r\n\r\n")).await.unwrap();
    assert_eq!(answer.status, 200);
    server.assert_unharmed().await;
}

/// What a login does not have is read over, however it is made.
#[tokio::test]
async fn fields_that_a_login_does_not_have_are_ignored() {
    let server = AttackedServer::start(&[]).await;
    let deep = format!("{}{}", "[".repeat(30_000), "]".repeat(30_000));
    let fields = format!(r#""username":"alice","password":"{PASSWORD}""#);
    let many: String = (0..7_000).map(|number| format!("{number}=x&")).collect();
    let form = format!("{many}username=alice&password={}", PASSWORD.replace(' ', "+"));
    let json = "Content-Type: application/json\r\n";

    for (path, headers, body, status) in [
        ("/auth/login", json, format!(r#"{{"a":{deep},{fields},"b":{{}}}}"#), 200),
        ("/auth/login", json, format!(r#"{{{fields},"a":[}}"#), 422),
        ("/auth/login", json, format!(r#"{{{fields}}}{{}}"#), 422),
        ("/auth/login", json, format!(r#"{{"username":{deep},"password":"x"}}"#), 422),
        ("/auth/token", "Content-Type: application/x-www-form-urlencoded\r\n", form, 200),
    ] {
        let answer = ask(server.address, posting(path, headers, &body)).await.expect(path);

        assert_eq!(answer.status, status, "{body}: {answer:?}");
    }
    server.assert_unharmed().await;
}

#[tokio::test]
async fn a_body_has_at_most_64_kibibytes() {
    const ADMIN_TOKEN: &str = "admin-token-of-the-target-0123456789abcdef";
    const MESSAGE: &str = "/admin/api/rooms/empty/message";
    const MOST: usize = 64 << 10;
    let server = AttackedServer::start(&[("ADMIN_TOKEN", ADMIN_TOKEN)]).await;
    let filled = |before: &str, after: &str, size: usize| {
        format!("{before}{}{after}", "x".repeat(size - before.len() - after.len()))
    };
    let login = |size| filled(r#"{"username":"alice","password":""#, r#""}"#, size);
    let form = |size| filled("username=alice&password=", "", size);
    let part = "--b\r\nContent-Disposition: form-data; name=";
    let parts = format!("{part}\"username\"\r\n\r\nalice\r\n{part}\"password\"\r\n\r\n");
    let multipart = |size| filled(&parts, "\r\n--b--\r\n", size);
    let message = |size| filled(r#"{"data":""#, r#""}"#, size);
    let json = "Content-Type: application/json\r\n".to_owned();
    let of_form = "Content-Type: application/x-www-form-urlencoded\r\n".to_owned();
    let of_multipart = "Content-Type: multipart/form-data; boundary=b\r\n".to_owned();
    let as_admin = format!("{json}Authorization: Bearer {ADMIN_TOKEN}\r\n");

    for (path, headers, body, status) in [
        ("/auth/login", json.clone(), login(MOST), 401),
        ("/auth/login", json, login(MOST + 1), 413),
        ("/auth/token", of_form.clone(), form(MOST), 401),
        ("/auth/token", of_form, form(MOST + 1), 413),
        ("/auth/token", of_multipart.clone(), multipart(MOST), 401),
        ("/auth/token", of_multipart, multipart(MOST + 1), 413),
        ("/auth/refresh", String::new(), "x".repeat(MOST), 401),
        ("/auth/refresh", String::new(), "x".repeat(MOST + 1), 413),
        ("/auth/logout", String::new(), "x".repeat(MOST), 200),
        ("/auth/logout", String::new(), "x".repeat(MOST + 1), 413),
        ("/nowhere", String::new(), "x".repeat(MOST + 1), 413),
        (MESSAGE, as_admin.clone(), message(MOST), 404),
        (MESSAGE, as_admin, message(MOST + 1), 413),
    ] {
        let size = body.len();
        let answer = ask(server.address, posting(path, &headers, body)).await.expect(path);

        assert_eq!(answer.status, status, "{path} {headers}{size} bytes: {answer:?}");
    }
    server.assert_unharmed().await;
}
