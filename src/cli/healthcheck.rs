//! `signaling-server healthcheck`: whether the server that these settings name takes new connections, for whoever has
//! no `curl`, as in a container.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    time::timeout,
};

/// For the whole of it. Docker's own patience is longer, and it would say less.
const PATIENCE: Duration = Duration::from_secs(3);

/// More than any status line has.
const LONGEST_LINE: u64 = 256;

/// More than an answer of ours has to say how it is.
const LONGEST_ANSWER: u64 = 4096;

/// Asks `/health/ready` of the server that listens on `host` and `port`; one that listens on all addresses is asked on
/// loopback.
///
/// In the clear, also where the server has TLS: `/health` stays open to that, and no certificate is made out to
/// loopback.
///
/// # Errors
///
/// A sentence for the operator: nobody is there, or it is not ready, or it is too slow.
pub async fn ask(host: &str, port: u16) -> Result<(), String> {
    let host = reachable(host);
    match timeout(PATIENCE, status_line(&host, port)).await {
        Ok(Ok(line)) if line.split(' ').nth(1) == Some("200") => Ok(()),
        Ok(Ok(line)) => Err(format!("{host} port {port} is not ready: it answers {line:?}")),
        Ok(Err(error)) => Err(format!("{host} port {port} cannot be asked: {error}")),
        Err(_) => Err(format!("{host} port {port} has not answered for {} s", PATIENCE.as_secs())),
    }
}

/// Whether what listens on `host` and `port` is a server of this kind, also one that is not ready: whether it answers
/// one of these at this path.
pub async fn is_ours(host: &str, port: u16, (path, answers): (&str, &[&str])) -> bool {
    let host = reachable(host);
    let asked = async {
        let stream = asked(&host, port, path).await?;
        let mut answer = Vec::new();
        stream.take(LONGEST_ANSWER).read_to_end(&mut answer).await?;
        io::Result::Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    let answer = timeout(PATIENCE, asked).await;
    matches!(answer, Ok(Ok(answer)) if answers.iter().any(|ours| answer.contains(ours)))
}

/// Where `host` can be asked, which may be an address to listen on only.
pub fn reachable(host: &str) -> String {
    match host.parse() {
        Ok(IpAddr::V4(Ipv4Addr::UNSPECIFIED)) => Ipv4Addr::LOCALHOST.to_string(),
        Ok(IpAddr::V6(Ipv6Addr::UNSPECIFIED)) => Ipv6Addr::LOCALHOST.to_string(),
        Ok(_) | Err(_) => host.to_owned(),
    }
}

async fn status_line(host: &str, port: u16) -> io::Result<String> {
    let stream = asked(host, port, "/health/ready").await?;
    let mut line = String::new();
    BufReader::new(stream.take(LONGEST_LINE)).read_line(&mut line).await?;
    Ok(line.trim_end().to_owned())
}

async fn asked(host: &str, port: u16, path: &str) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect((host, port)).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_listens_everywhere_is_asked_on_loopback() {
        let asked = ["0.0.0.0", "::", "10.0.0.5", "localhost"].map(reachable);

        assert_eq!(asked, ["127.0.0.1", "::1", "10.0.0.5", "localhost"]);
    }
}
