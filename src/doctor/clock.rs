//! This machine's clock: access tokens and TURN credentials expire by it.

use std::{
    process::Stdio,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use reqwest::{Url, header::DATE};
use tokio::{process::Command, time::timeout};

use super::{CLOCK_TOLERANCE, Diagnostic, Verdict};
use crate::{
    clock::unix_now,
    http_client::{direct, root_cause},
    tls::verify,
};

const SUBJECT: &str = "clock";

/// For an answer, from `timedatectl` or from a server.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

const FIX: &str = "`timedatectl set-ntp true`, or install chrony";

/// Whether NTP keeps the clock, and how far it is from that of the server at `date`. No other server is asked.
pub(super) async fn check(date: Option<&str>) -> Vec<Diagnostic> {
    let mut diagnostics = Vec::new();
    match ntp_synchronized().await {
        Some(true) => diagnostics.push(Diagnostic::ok(SUBJECT, "NTP keeps it, says the kernel")),
        Some(false) => diagnostics.push(Diagnostic::warning(
            SUBJECT,
            "no NTP keeps it, says the kernel: tokens and TURN credentials expire by it",
            FIX,
        )),
        None if date.is_none() => diagnostics.push(Diagnostic::new(
            SUBJECT,
            Verdict::NotChecked,
            "`timedatectl` does not say whether NTP keeps it",
            "compare it with a server's: `signaling-server doctor --date https://<a server that you trust>`",
        )),
        None => {}
    }
    if let Some(url) = date {
        diagnostics.push(compare(url).await);
    }
    diagnostics
}

/// Whether the kernel's clock is synchronised (adjtimex(2)), if `timedatectl` says so: there is no safe call for it.
async fn ntp_synchronized() -> Option<bool> {
    let mut command = Command::new("timedatectl");
    command.args(["show", "--property=NTPSynchronized", "--value"]);
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = timeout(ANSWER_TIMEOUT, output).await.ok()?.ok()?;
    match output.stdout.trim_ascii() {
        b"yes" if output.status.success() => Some(true),
        b"no" if output.status.success() => Some(false),
        _ => None,
    }
}

/// Compares this clock with that of the server at `url`.
async fn compare(url: &str) -> Diagnostic {
    let theirs = match timeout(ANSWER_TIMEOUT, fetch_date(url)).await {
        Ok(Ok(theirs)) => theirs,
        Ok(Err(fault)) => return not_compared(url, &fault),
        Err(_elapsed) => {
            let fault = format!("no answer within {} s", ANSWER_TIMEOUT.as_secs());
            return not_compared(url, &fault);
        }
    };
    let off = unix_now().abs_diff(theirs);
    // `Date` has whole seconds, and the answer took a while.
    if off <= CLOCK_TOLERANCE.as_secs() {
        let tolerance = CLOCK_TOLERANCE.as_secs();
        Diagnostic::ok(SUBJECT, format!("within {tolerance} s of that of {url}"))
    } else {
        Diagnostic::warning(SUBJECT, format!("{off} s off that of {url}"), FIX)
    }
}

fn not_compared(url: &str, fault: &str) -> Diagnostic {
    Diagnostic::new(
        SUBJECT,
        Verdict::NotChecked,
        format!("cannot be compared with that of {url}: {fault}"),
        "give the http:// or https:// URL of a server that you trust",
    )
}

/// The `Date` of the server at `url` (RFC 9110 section 6.6.1), in whole seconds since the Unix epoch.
async fn fetch_date(url: &str) -> Result<u64, String> {
    let url: Url = url.parse().map_err(|_| "not a URL")?;
    let client = match url.scheme() {
        // Verified as a client of this machine would.
        "https" => direct()
            .tls_backend_preconfigured(Arc::unwrap_or_clone(verify::client_config(false).await)),
        "http" => direct().tls_certs_only([]), // loads none
        _ => return Err("not an HTTP URL".to_owned()),
    };
    let client = client.build().map_err(|error| root_cause(&error))?;
    let answer = client.head(url).send().await.map_err(|error| {
        let cause = root_cause(&error);
        if error.is_connect() { cause } else { format!("no Date: {cause}") }
    })?;
    let date = answer.headers().get(DATE).ok_or("no Date in its answer")?;
    let date = date.to_str().ok().and_then(|date| httpdate::parse_http_date(date.trim()).ok());
    let date = date.ok_or("its Date is not an HTTP date")?;
    Ok(date.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
}
