//! How long the server waits where no setting says it. Tests shorten these, so that none has to wait them out.

use std::time::Duration;

use crate::migration::ClusterTimings;

/// The variable by which a test shortens intervals, in milliseconds: `lease=2000 file_poll=20`. No setting: only a build
/// with debug assertions reads it, and a release is no such build.
pub const TEST_VARIABLE: &str = "SIGNALING_TEST_INTERVALS";

/// Intervals and time-outs that are the same in every installation.
#[derive(Clone, Copy, Debug)]
pub struct Intervals {
    /// How often the users file is polled. A change counts at the second poll that finds it, which is within two seconds.
    pub file_poll: Duration,
    /// The same for the certificate.
    pub certificate_poll: Duration,
    /// How often the server looks whether the wall clock was set.
    pub clock_poll: Duration,
    /// How long after its token a session may still present a new one, where sessions end with their tokens.
    pub token_refresh_grace: Duration,
    /// Time-outs of HTTP connections.
    pub http: HttpTimeouts,
    /// For a request's head on `METRICS_LISTEN`, and between two requests: a monitor sends its request at once.
    pub metrics_head: Duration,
    /// How often the keys of an issuer are fetched.
    pub issuer: IssuerIntervals,
    /// What the nodes of a cluster wait for each other.
    pub cluster: ClusterTimings,
}

/// How often the keys of an issuer are fetched.
#[derive(Clone, Copy, Debug)]
pub struct IssuerIntervals {
    /// After a success.
    pub refresh: Duration,
    /// After the first failure; twice as long after each further one, up to `refresh`.
    pub retry: Duration,
    /// Between two fetches that tokens with unknown keys cause, in the long run; three times as long for those of one address.
    pub unknown_key: Duration,
}

/// How long an HTTP connection may take, for what a client does at its own pace.
#[derive(Clone, Copy, Debug)]
pub struct HttpTimeouts {
    /// For a PROXY header, for a TLS handshake, for a request's head, and between two requests of a client.
    pub head: Duration,
    /// Between two requests of a trusted proxy. Longer than proxies keep idle connections (an nginx 60 s, Google's load
    /// balancer 600 s): where the server closes first, a request that is on its way gets a 502 from the proxy. It holds for
    /// later heads, too, which a proxy sends whole.
    pub proxy_idle: Duration,
    /// For a request's body to arrive.
    pub body: Duration,
    /// For the client to take any byte of a response.
    pub write_stall: Duration,
}

impl Default for Intervals {
    fn default() -> Self {
        Self {
            file_poll: Duration::from_millis(500),
            certificate_poll: Duration::from_secs(1),
            clock_poll: Duration::from_secs(10),
            token_refresh_grace: Duration::from_secs(60),
            http: HttpTimeouts::default(),
            metrics_head: Duration::from_secs(2),
            issuer: IssuerIntervals::default(),
            cluster: ClusterTimings::default(),
        }
    }
}

impl Default for IssuerIntervals {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { refresh: seconds(600), retry: seconds(5), unknown_key: seconds(20) }
    }
}

impl Default for HttpTimeouts {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            head: seconds(10),
            proxy_idle: seconds(620),
            body: seconds(10),
            write_stall: seconds(30),
        }
    }
}

impl Intervals {
    /// The intervals of every installation; in a build with debug assertions those that [`TEST_VARIABLE`] names are others.
    pub fn from_environment(variable: impl Fn(&str) -> Option<String>) -> Self {
        let mut intervals = Self::default();
        if cfg!(debug_assertions)
            && let Some(text) = variable(TEST_VARIABLE)
        {
            text.split_whitespace().for_each(|word| intervals.set(word));
        }
        intervals
    }

    /// Takes `name=milliseconds`; another word is printed, so that a typing error in a test is noticed.
    fn set(&mut self, word: &str) {
        let parsed = word.split_once('=').and_then(|(name, milliseconds)| {
            Some((name, Duration::from_millis(milliseconds.parse().ok()?)))
        });
        match parsed {
            Some(("file_poll", interval)) => self.file_poll = interval,
            Some(("certificate_poll", interval)) => self.certificate_poll = interval,
            Some(("clock_poll", interval)) => self.clock_poll = interval,
            Some(("token_refresh_grace", grace)) => self.token_refresh_grace = grace,
            Some(("head", timeout)) => self.http.head = timeout,
            Some(("proxy_idle", timeout)) => self.http.proxy_idle = timeout,
            Some(("metrics_head", timeout)) => self.metrics_head = timeout,
            Some(("body", timeout)) => self.http.body = timeout,
            Some(("write_stall", timeout)) => self.http.write_stall = timeout,
            Some(("issuer_refresh", interval)) => self.issuer.refresh = interval,
            Some(("issuer_retry", interval)) => self.issuer.retry = interval,
            Some(("issuer_unknown_key", interval)) => self.issuer.unknown_key = interval,
            Some(("lease", lease)) => self.cluster.lease = lease,
            _ => eprintln!("{TEST_VARIABLE}: {word} is not an interval"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_shortens_the_intervals_that_it_names() {
        let variable = |name: &str| {
            (name == TEST_VARIABLE).then(|| "lease=2000 file_poll=20 nonsense".to_owned())
        };

        let intervals = Intervals::from_environment(variable);

        assert_eq!(intervals.cluster.lease, Duration::from_secs(2));
        assert_eq!(intervals.file_poll, Duration::from_millis(20));
        assert_eq!(intervals.http.head, Duration::from_secs(10));
    }
}
