//! Redis: what several servers share.

use std::time::Duration;

use super::{CLOCK_OFF, Finding, Verdict};
use crate::{cluster, config::Config};

/// From this version on Redis has all that is used of it: `XADD NOMKSTREAM`, `XTRIM MINID`.
const OLDEST: (u32, u32) = (6, 2);

/// Redis and the servers belong into one place: a message to another server waits for it once, a join twice.
const SLOWEST: Duration = Duration::from_millis(5);

pub(super) async fn look(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    let ways = cluster::parse_endpoints(&config.redis_urls, config.redis_authority.as_deref());
    for (number, mut way) in ways.into_iter().flatten().enumerate() {
        let subject = format!("Redis {}", number + 1);
        match way.info().await {
            Ok(about) => findings.extend(judge(&subject, &about)),
            Err(error) => findings.push(Finding::fault(
                subject,
                format!("cannot be reached: {error}"),
                "look at REDIS_URL (address, password, TLS), at `bind` and `requirepass` of Redis, and at the firewall between",
            )),
        }
    }
    if findings.is_empty() {
        findings.push(Finding::ok("Redis", "none named in REDIS_URL: this server is alone"));
    }
    findings
}

fn judge(subject: &str, about: &cluster::RedisInfo) -> [Finding; 5] {
    let finding = |is_well: bool, otherwise, says: String, mend: &str| {
        let subject = subject.to_owned();
        if is_well {
            Finding::ok(subject, says)
        } else {
            Finding::new(subject, otherwise, says, mend)
        }
    };
    let mut numbers = about.version.split('.').map_while(|number| number.parse().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let keeps_all = about.most_memory == 0 || about.policy == "noeviction";
    [
        finding(
            version >= OLDEST,
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
            about.latency <= SLOWEST,
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
    use crate::cluster::RedisInfo;

    fn verdicts(change: impl FnOnce(&mut RedisInfo)) -> Vec<Verdict> {
        let mut about = RedisInfo {
            version: "6.2.0".into(),
            role: "master".into(),
            most_memory: 0,
            policy: "allkeys-lru".into(),
            latency: Duration::from_micros(200),
            clock_off: Duration::from_millis(3),
        };
        change(&mut about);
        judge("Redis 1", &about).iter().map(|finding| finding.verdict).collect()
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
