//! Looks whether what the settings name is as it should be, and says of each thing that is not how to mend it.

use std::{fmt, time::Duration};

use serde::Serialize;

use crate::{cluster, config::Config};

/// From this version on Redis has all that is used of it: `XADD NOMKSTREAM`, `XTRIM MINID`.
const OLDEST_REDIS: (u32, u32) = (6, 2);

/// Redis and the servers belong into one place: a message to another server waits for it once, a join twice.
const SLOWEST_REDIS: Duration = Duration::from_millis(5);

/// Clocks may differ by so much: a logout is forgotten when its token ends, by whichever is ahead.
const CLOCK_OFF: Duration = Duration::from_secs(5);

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It serves, and could be better.
    Warning,
    /// It does not serve.
    Fault,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
pub struct Finding {
    /// What.
    pub subject: String,
    /// How it is.
    pub verdict: Verdict,
    /// What was seen.
    pub says: String,
    /// What to do; empty where it is as it should be.
    pub mend: String,
}

impl Finding {
    fn new(subject: &str, verdict: Verdict, says: String, mend: &str) -> Self {
        let mend = if verdict == Verdict::Ok { "" } else { mend };
        Self { subject: subject.to_owned(), verdict, says, mend: mend.to_owned() }
    }

    /// A setting or an account that is not as it should be, in a sentence that says how to mend it.
    pub fn fault(says: String) -> Self {
        Self::new("settings", Verdict::Fault, says, "")
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { subject, says, mend, verdict } = self;
        let word = match verdict {
            Verdict::Ok => "ok",
            Verdict::Warning => "warning",
            Verdict::Fault => "FAULT",
        };
        write!(f, "{word:<8}{subject}: {says}")?;
        if mend.is_empty() { Ok(()) } else { write!(f, "\n        {mend}") }
    }
}

/// Looks at everything that the settings name outside this process.
pub async fn look(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    let ways = cluster::ways(&config.redis_urls, config.redis_authority.as_deref());
    for (number, mut way) in ways.into_iter().flatten().enumerate() {
        let subject = format!("Redis {}", number + 1);
        match way.about().await {
            Ok(about) => findings.extend(about_redis(&subject, &about)),
            Err(error) => findings.push(Finding::new(
                &subject,
                Verdict::Fault,
                format!("cannot be reached: {error}"),
                "look at REDIS_URL (address, password, TLS), at `bind` and `requirepass` of Redis, and at the firewall between",
            )),
        }
    }
    if findings.is_empty() {
        let says = "none named in REDIS_URL: this server is alone".to_owned();
        findings.push(Finding::new("Redis", Verdict::Ok, says, ""));
    }
    findings
}

fn about_redis(subject: &str, about: &cluster::About) -> [Finding; 5] {
    let finding = |is_well: bool, otherwise, says, mend| {
        Finding::new(subject, if is_well { Verdict::Ok } else { otherwise }, says, mend)
    };
    let mut numbers = about.version.split('.').map_while(|number| number.parse().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let keeps_all = about.most_memory == 0 || about.policy == "noeviction";
    [
        finding(
            version >= OLDEST_REDIS,
            Verdict::Fault,
            format!("version {}", about.version),
            "install Redis 6.2 or later, or Valkey",
        ),
        finding(
            about.role == "master",
            Verdict::Fault,
            format!("role {}", about.role),
            "name the first one in REDIS_URL, or its sentinels: a replica takes nothing",
        ),
        finding(
            keeps_all,
            Verdict::Fault,
            format!("maxmemory-policy {}, maxmemory {}", about.policy, about.most_memory),
            "set `maxmemory-policy noeviction` (deploy/redis.conf): to drop a key is to lose a room",
        ),
        finding(
            about.latency <= SLOWEST_REDIS,
            Verdict::Warning,
            format!("answers within {:.1} ms", about.latency.as_secs_f64() * 1e3),
            "have it where the servers are: messages between servers, and joins, wait for it",
        ),
        finding(
            about.clock_off <= CLOCK_OFF,
            Verdict::Warning,
            format!("clock {:.1} s off", about.clock_off.as_secs_f64()),
            "have both clocks set by NTP",
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::About;

    fn verdicts(change: impl FnOnce(&mut About)) -> Vec<Verdict> {
        let mut about = About {
            version: "6.2.0".into(),
            role: "master".into(),
            most_memory: 0,
            policy: "allkeys-lru".into(),
            latency: Duration::from_micros(200),
            clock_off: Duration::from_millis(3),
        };
        change(&mut about);
        about_redis("Redis 1", &about).iter().map(|finding| finding.verdict).collect()
    }

    #[test]
    fn each_thing_that_is_not_as_it_should_be_is_found() {
        use Verdict::{Fault, Ok, Warning};
        assert_eq!(verdicts(|_| {}), [Ok; 5]);
        assert_eq!(verdicts(|it| it.version = "6.0.16".into()), [Fault, Ok, Ok, Ok, Ok]);
        assert_eq!(verdicts(|it| it.version = "10.1".into()), [Ok; 5]);
        assert_eq!(verdicts(|it| it.role = "slave".into()), [Ok, Fault, Ok, Ok, Ok]);
        assert_eq!(verdicts(|it| it.most_memory = 1), [Ok, Ok, Fault, Ok, Ok]);
        assert_eq!(verdicts(|it| it.latency *= 100), [Ok, Ok, Ok, Warning, Ok]);
        assert_eq!(verdicts(|it| it.clock_off *= 10_000), [Ok, Ok, Ok, Ok, Warning]);
    }
}
