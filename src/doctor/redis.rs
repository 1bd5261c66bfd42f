//! Redis, through which several servers share rooms.

use std::time::Duration;

use super::{CLOCK_TOLERANCE, Diagnostic, Verdict};
use crate::{cluster, config::Config};

/// The first version with `XADD NOMKSTREAM` and `XTRIM MINID`, which the cluster uses.
const MIN_VERSION: (u32, u32) = (6, 2);

/// A longer latency is a warning: a message to another server waits for Redis once, a join twice.
const MAX_LATENCY: Duration = Duration::from_millis(5);

/// Asks each Redis of `REDIS_URL` about itself.
pub(super) async fn check(config: &Config) -> Vec<Diagnostic> {
    let mut diagnostics = Vec::new();
    let endpoints = cluster::parse_endpoints(&config.redis_urls, config.redis_authority.as_deref());
    for (number, mut endpoint) in endpoints.into_iter().flatten().enumerate() {
        let subject = format!("Redis {}", number + 1);
        match endpoint.info().await {
            Ok(info) => diagnostics.extend(judge(&subject, &info)),
            Err(error) => diagnostics.push(Diagnostic::fault(
                subject,
                format!("cannot be reached: {error}"),
                "check REDIS_URL (address, password, TLS), `bind` and `requirepass` of Redis, and firewalls on the way",
            )),
        }
    }
    if diagnostics.is_empty() {
        diagnostics.push(Diagnostic::ok("Redis", "REDIS_URL is not set: this is a single node"));
    }
    diagnostics
}

fn judge(subject: &str, info: &cluster::RedisInfo) -> [Diagnostic; 5] {
    let diagnostic = |is_ok: bool, otherwise, message: String, fix: &str| {
        if is_ok {
            Diagnostic::ok(subject, message)
        } else {
            Diagnostic::new(subject, otherwise, message, fix)
        }
    };
    let mut numbers = info.version.split('.').map_while(|number| number.parse().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let evicts_nothing = info.most_memory == 0 || info.policy == "noeviction";
    [
        diagnostic(
            version >= MIN_VERSION,
            Verdict::Fault,
            format!("version {}", info.version),
            "install Redis 6.2 or later, or Valkey",
        ),
        diagnostic(
            info.role == "master",
            Verdict::Fault,
            format!("role {}", info.role),
            "name the primary in REDIS_URL, or its sentinels: a replica accepts no writes",
        ),
        diagnostic(
            evicts_nothing,
            Verdict::Fault,
            format!("maxmemory-policy {}, maxmemory {}", info.policy, info.most_memory),
            "set `maxmemory-policy noeviction` (deploy/redis.conf): an evicted key is a lost room",
        ),
        diagnostic(
            info.latency <= MAX_LATENCY,
            Verdict::Warning,
            format!("answers within {:.1} ms", info.latency.as_secs_f64() * 1e3),
            "run it near the servers: messages between servers, and joins, wait for it",
        ),
        diagnostic(
            info.clock_off <= CLOCK_TOLERANCE,
            Verdict::Warning,
            format!("clock {:.1} s off", info.clock_off.as_secs_f64()),
            "synchronise both clocks with NTP",
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::RedisInfo;

    fn verdicts(change: impl FnOnce(&mut RedisInfo)) -> Vec<Verdict> {
        let mut info = RedisInfo {
            version: "6.2.0".into(),
            role: "master".into(),
            most_memory: 0,
            policy: "allkeys-lru".into(),
            latency: Duration::from_micros(200),
            clock_off: Duration::from_millis(3),
        };
        change(&mut info);
        judge("Redis 1", &info).iter().map(|diagnostic| diagnostic.verdict).collect()
    }

    #[test]
    fn each_unsuitable_property_of_redis_has_its_own_diagnostic() {
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
