//! The clock, which tokens and TURN credentials stand on.

use std::{process::Stdio, time::Duration};

use axum::http::Uri;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    process::Command,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::{CLOCK_OFF, Finding, Verdict};
use crate::{clock::unix_now, tls::verify};

const SUBJECT: &str = "clock";

/// For an answer, whoever gives it.
const PATIENCE: Duration = Duration::from_secs(5);

/// More than the head of any answer has, in bytes.
const LONGEST_HEAD: u64 = 32 * 1024;

const MEND: &str = "`timedatectl set-ntp true`, or install chrony";

/// What the kernel says, and what the server at `date` does. Nobody else is asked.
pub(super) async fn look(date: Option<&str>) -> Vec<Finding> {
    let mut findings = Vec::new();
    match is_kept().await {
        Some(true) => findings.push(Finding::ok(SUBJECT, "the kernel says that NTP keeps it")),
        Some(false) => findings.push(Finding::warning(
            SUBJECT,
            "the kernel says that no NTP keeps it: tokens and TURN credentials end by it",
            MEND,
        )),
        None if date.is_none() => findings.push(Finding::new(
            SUBJECT,
            Verdict::NotChecked,
            "`timedatectl` does not say whether NTP keeps it",
            "compare it with a server's: `signaling-server doctor --date https://<a server that you trust>`",
        )),
        None => {}
    }
    if let Some(url) = date {
        findings.push(compare(url).await);
    }
    findings
}

/// Whether the kernel's clock is synchronised (adjtimex(2)), as `timedatectl` reads it: there is no safe way of our own.
async fn is_kept() -> Option<bool> {
    let mut command = Command::new("timedatectl");
    command.args(["show", "--property=NTPSynchronized", "--value"]);
    let answer = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let answer = timeout(PATIENCE, answer).await.ok()?.ok()?;
    match answer.stdout.trim_ascii() {
        b"yes" if answer.status.success() => Some(true),
        b"no" if answer.status.success() => Some(false),
        _ => None,
    }
}

async fn compare(url: &str) -> Finding {
    let theirs = match timeout(PATIENCE, date_of(url)).await {
        Ok(Ok(theirs)) => theirs,
        Ok(Err(fault)) => return not_compared(url, &fault),
        Err(_) => return not_compared(url, "it does not answer in time"),
    };
    let off = unix_now().abs_diff(theirs);
    // It says whole seconds, and took a while to say them.
    if off <= CLOCK_OFF.as_secs() {
        Finding::ok(SUBJECT, format!("as that of {url}, within {} s", CLOCK_OFF.as_secs()))
    } else {
        Finding::warning(SUBJECT, format!("{off} s off that of {url}"), MEND)
    }
}

fn not_compared(url: &str, fault: &str) -> Finding {
    let says = format!("{url} does not say what time it is: {fault}");
    Finding::new(
        SUBJECT,
        Verdict::NotChecked,
        says,
        "give http:// or https:// and a server that you trust",
    )
}

/// What a server gives for the time (RFC 9110 section 6.6.1), in whole seconds since the Unix epoch.
async fn date_of(url: &str) -> Result<u64, String> {
    let uri: Uri = url.parse().map_err(|_| "this is no URL".to_owned())?;
    let is_secure = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        Some(_) | None => return Err("this is no URL of HTTP".to_owned()),
    };
    let host = uri.host().ok_or("this URL has no host")?;
    let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = uri.port_u16().unwrap_or(if is_secure { 443 } else { 80 });
    let connected = TcpStream::connect((bare.as_str(), port)).await;
    let stream = connected.map_err(|error| error.to_string())?;
    let path = uri.path();
    let request = format!("HEAD {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let head = if is_secure {
        let name = ServerName::try_from(bare).map_err(|error| error.to_string())?;
        let tls = TlsConnector::from(verify::client_config(false).await);
        let stream = tls.connect(name, stream).await.map_err(|error| error.to_string())?;
        head(stream, &request).await
    } else {
        head(stream, &request).await
    };
    let head = head.map_err(|error| error.to_string())?;
    let mut fields =
        head.lines().take_while(|line| !line.is_empty()).filter_map(|line| line.split_once(':'));
    let date = fields.find(|(name, _)| name.eq_ignore_ascii_case("date"));
    let (_, date) = date.ok_or("its answer has no Date")?;
    let date = httpdate::parse_http_date(date.trim()).map_err(|_| "its Date is none".to_owned())?;
    let since = date.duration_since(std::time::UNIX_EPOCH);
    Ok(since.map_or(0, |since| since.as_secs()))
}

async fn head(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    request: &str,
) -> std::io::Result<String> {
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let mut head = Vec::new();
    // Many close without the goodbye of TLS: what was read until then counts.
    let _ = stream.take(LONGEST_HEAD).read_to_end(&mut head).await;
    Ok(String::from_utf8_lossy(&head).into_owned())
}
