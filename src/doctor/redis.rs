//! Redis, through which several servers share rooms.

use std::{collections::BTreeSet, time::Duration};

use redis::{ErrorKind, RedisError};
use secrecy::SecretString;

use super::{CLOCK_TOLERANCE, Diagnostic, Verdict};
use crate::{
    cluster::{self, NodeFacts, OtherServers, RedisInfo, RedisProbe, Refusal, RefusalReason},
    config::ClusterSettings,
};

/// The first version with `XADD NOMKSTREAM` and `XTRIM MINID`, which the cluster uses.
const MIN_VERSION: (u32, u32) = (6, 2);

/// A longer latency is a warning: a message to another server waits for Redis once, a join twice.
const MAX_LATENCY: Duration = Duration::from_millis(5);

/// Where the access rules are named that a server needs.
const ACL_PAGE: &str = "docs/run/scaling.md#redis";

/// The commands by which a server finds the Redis that it uses, as Redis names them in a refusal, and the access rule for each:
/// those of a Redis Cluster (6.2 names the command alone), and those behind sentinels, of which one suffices.
const FINDING_COMMANDS: [(&str, &str); 4] = [
    ("cluster|slots", "+cluster|slots"),
    ("cluster", "+cluster|slots"),
    ("role", "+info"),
    ("info", "+info"),
];

/// Does with each Redis of `REDIS_URL` what a server does, whose deployment has this `SECRET_KEY`, and whose rooms hold so many
/// members.
pub(super) async fn check(
    settings: &ClusterSettings,
    secret_key: &SecretString,
    room_capacity: usize,
) -> Vec<Diagnostic> {
    let mut diagnostics = Vec::new();
    let own = OwnServer {
        fingerprint: cluster::deployment_fingerprint(secret_key),
        has_fixed_name: settings.node_id.is_some(),
        facts: NodeFacts::new(
            settings.node_id.as_deref().unwrap_or_default(),
            Default::default(),
            settings.redis_urls.len(),
            room_capacity,
        ),
    };
    let endpoints =
        cluster::parse_endpoints(&settings.redis_urls, settings.redis_authority.as_deref());
    for (number, mut endpoint) in endpoints.into_iter().flatten().enumerate() {
        let subject = format!("Redis {}", number + 1);
        match endpoint.probe(number).await {
            Ok(probe) => {
                diagnostics.extend(judge(&subject, &probe, endpoint.user()));
                diagnostics.extend(judge_others(&subject, &probe.others, &own));
            }
            Err(error) => diagnostics.push(judge_error(&subject, &error, endpoint.user())),
        }
    }
    if diagnostics.is_empty() {
        diagnostics.push(Diagnostic::ok("Redis", "REDIS_URL is not set: this is a single node"));
    }
    diagnostics
}

/// There is no connection that commands could be sent on.
fn judge_error(subject: &str, error: &RedisError, user: &str) -> Diagnostic {
    if let Some(rule) = denied_way(error) {
        return judge_lacking(subject, user, rule);
    }
    let (kind, is_io) = (error.kind(), error.is_io_error());
    let (problem, fix) = if kind == ErrorKind::AuthenticationFailed {
        (
            "answers, and refuses user or password",
            "check user and password in REDIS_URL; special characters are percent-encoded",
        )
    } else if error.code() == Some("NOAUTH") {
        (
            "answers, and asks for a password",
            "name it in REDIS_URL: redis://:password@host; special characters are percent-encoded",
        )
    } else if kind == ErrorKind::MasterNameNotFoundBySentinel {
        (
            "its sentinels answer, and know no usable primary of that name",
            "check the service at the end of REDIS_URL (`sentinel monitor <service> …`), and whether the primary runs",
        )
    } else if kind == ErrorKind::ClusterConnectionNotFound {
        (
            "a Redis Cluster that does not serve the slot of these rooms now",
            "look with `redis-cli --cluster check` for slots that are not covered",
        )
    } else if is_io && is_tls_error(error) {
        (
            "answers, and TLS fails",
            "set REDIS_CA_FILE to the authority that signed its certificate, name it in REDIS_URL as the certificate does, \
             and have Redis ask for no client certificate (`tls-auth-clients no`)",
        )
    } else if is_io && is_closed(error) {
        (
            "closes the connection",
            "name a TLS port with `rediss://` and another one with `redis://`; check `protected-mode` and `maxclients` of Redis",
        )
    } else if is_io {
        (
            "cannot be reached",
            "check REDIS_URL (address, port, `rediss://` for TLS), `bind` of Redis, and firewalls on the way",
        )
    } else {
        ("answers, and refuses the connection", "check REDIS_URL: user, database number")
    };
    Diagnostic::fault(subject, format!("{problem}: {error}"), fix)
}

/// The access rule that the user lacks for finding its Redis.
fn denied_way(error: &RedisError) -> Option<&'static str> {
    let text = (error.code() == Some("NOPERM")).then(|| error.to_string())?;
    let denied = |(name, _): &(&str, &str)| text.contains(&format!("'{name}'"));
    FINDING_COMMANDS.into_iter().find(denied).map(|(_, rule)| rule)
}

/// The access rules that a user lacks.
fn judge_lacking(subject: &str, user: &str, rules: &str) -> Diagnostic {
    Diagnostic::fault(
        subject,
        format!("the user {user} lacks {rules}"),
        format!("ACL SETUSER {user} {rules} ({ACL_PAGE} has a line for all that a server needs)"),
    )
}

/// Errors of TLS come as errors of input and output that no system call makes.
fn is_tls_error(error: &RedisError) -> bool {
    let text = error.to_string();
    ["certificate", "Certificate", "TLS", "tls", "fatal alert", "UnsupportedCert", "InvalidMessage"]
        .iter()
        .any(|sign| text.contains(sign))
}

fn is_closed(error: &RedisError) -> bool {
    error.is_connection_dropped() && !error.is_connection_refusal() && {
        let text = error.to_string();
        !text.contains("sentinel") && !text.contains("lookup") && !text.contains("no answer")
    }
}

fn judge(subject: &str, probe: &RedisProbe, user: &str) -> Vec<Diagnostic> {
    let mut diagnostics = Vec::new();
    if let Some(info) = &probe.info {
        diagnostics.extend(judge_info(subject, info));
    }
    let is_replica = probe.info.as_ref().is_some_and(|info| info.role != "master");
    let refusals = judge_refusals(subject, probe, user, is_replica);
    if refusals.is_empty() && !is_replica {
        let message = "runs scripts, and writes, reads and trims a stream";
        diagnostics.push(Diagnostic::ok(subject, message));
    }
    diagnostics.extend(refusals);
    if let Some((latency, clock_off)) = probe.timing {
        diagnostics.extend(judge_timing(subject, latency, clock_off));
    }
    diagnostics
}

fn judge_info(subject: &str, info: &RedisInfo) -> [Diagnostic; 3] {
    let mut numbers = info.version.split('.').map_while(|number| number.parse().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let policy = match info.policy.as_str() {
        _ if info.most_memory == 0 => Verdict::Ok,
        "noeviction" => Verdict::Ok,
        // No key of a room expires, so none is evicted.
        policy if policy.starts_with("volatile-") => Verdict::Warning,
        _ => Verdict::Fault,
    };
    [
        diagnostic(
            subject,
            if version >= MIN_VERSION { Verdict::Ok } else { Verdict::Fault },
            format!("{} {}", info.product, info.version),
            "install Redis 6.2 or later, or Valkey",
        ),
        diagnostic(
            subject,
            if info.role == "master" { Verdict::Ok } else { Verdict::Fault },
            format!("role {}", info.role),
            "name the primary in REDIS_URL, or its sentinels: a replica accepts no writes",
        ),
        diagnostic(
            subject,
            policy,
            format!("maxmemory-policy {}, maxmemory {}", info.policy, info.most_memory),
            "set `maxmemory-policy noeviction` (deploy/redis.conf): an evicted key is a lost room",
        ),
    ]
}

/// The server that would run with these settings on this machine.
struct OwnServer {
    fingerprint: String,
    /// Whether it has a name that another one may have, too.
    has_fixed_name: bool,
    facts: NodeFacts,
}

/// What the servers say of themselves that use this Redis now, where it concerns this one.
fn judge_others(subject: &str, others: &OtherServers, own: &OwnServer) -> Vec<Diagnostic> {
    let mut diagnostics = Vec::new();
    if others.fingerprint.as_ref().is_some_and(|theirs| *theirs != own.fingerprint) {
        diagnostics.push(Diagnostic::fault(
            subject,
            "servers with another SECRET_KEY use this database, so this one is refused".to_owned(),
            "give each deployment a database of its own, such as redis://host:6379/1; the servers of one deployment need \
             the same SECRET_KEY",
        ));
    }
    let has_own_name = |other: &&NodeFacts| own.has_fixed_name && other.node == own.facts.node;
    if let Some(NodeFacts { node, host, pid, .. }) = others.nodes.iter().find(has_own_name) {
        let holder = format!("process {pid} on {host:?}");
        diagnostics.push(if *host == own.facts.host {
            Diagnostic::ok(subject, format!("NODE_ID {node}: {holder}, this machine, runs under it"))
        } else {
            Diagnostic::fault(
                subject,
                format!("NODE_ID {node}: a running server, {holder}, has that name, so this one is refused"),
                "give each server a NODE_ID of its own, or none; a server that was moved here has to end there first",
            )
        });
    }
    for other in &others.nodes {
        let settings = own.facts.differences(other).join(", ");
        if !settings.is_empty() {
            let message = format!("the server {} has another {settings}", other.node);
            let fix = "give all servers of a cluster the same version and settings";
            diagnostics.push(Diagnostic::new(subject, Verdict::Warning, message, fix));
        }
    }
    diagnostics
}

/// One diagnostic for each reason, which names all commands that are refused for it.
fn judge_refusals(
    subject: &str,
    probe: &RedisProbe,
    user: &str,
    is_replica: bool,
) -> Vec<Diagnostic> {
    let commands = |is_reason: fn(&RefusalReason) -> bool| -> Vec<&str> {
        let refused = probe.refusals.iter().filter(|refusal| is_reason(&refusal.reason));
        refused
            .map(|refusal| refusal.command.as_str())
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect()
    };
    let mut diagnostics = Vec::new();
    let denied = commands(|it| *it == RefusalReason::Permission);
    let has_foreign_keys = !commands(|it| *it == RefusalReason::KeyPermission).is_empty();
    if !denied.is_empty() || has_foreign_keys {
        let mut lacks: Vec<_> = denied.iter().map(|command| format!("+{command}")).collect();
        lacks.extend(has_foreign_keys.then(|| "~{sig2_*}:*".to_owned()));
        diagnostics.push(judge_lacking(subject, user, &lacks.join(" ")));
    }
    let mut fault =
        |message: String, fix: String| diagnostics.push(Diagnostic::fault(subject, message, fix));
    let unknown = commands(|it| *it == RefusalReason::Unknown);
    if !unknown.is_empty() {
        fault(
            format!("does not know {}", unknown.join(", ")),
            "remove `rename-command` for these, or use a Redis or Valkey whose provider allows them".to_owned(),
        );
    }
    if !commands(|it| *it == RefusalReason::Memory).is_empty() {
        fault(
            "is full: it refuses writes because `maxmemory` is reached".to_owned(),
            "raise `maxmemory`, or find what fills it (`redis-cli --bigkeys`); give the servers a Redis of their own".to_owned(),
        );
    }
    if !commands(|it| *it == RefusalReason::Replicas).is_empty() {
        fault(
            "refuses writes because fewer replicas are connected than `min-replicas-to-write` asks for".to_owned(),
            "start or reconnect the replica, or lower `min-replicas-to-write`".to_owned(),
        );
    }
    if !is_replica && !commands(|it| *it == RefusalReason::ReadOnly).is_empty() {
        fault(
            "refuses writes: it is a replica".to_owned(),
            "name the primary in REDIS_URL, or its sentinels".to_owned(),
        );
    }
    if !commands(|it| *it == RefusalReason::Slot).is_empty() {
        fault(
            "a Redis Cluster that does not serve the slot of these rooms now".to_owned(),
            "wait until the slot has moved, or look with `redis-cli --cluster check` for slots that are open or not covered".to_owned(),
        );
    }
    if !commands(|it| *it == RefusalReason::Disk).is_empty() {
        fault(
            "refuses writes because it cannot save to its disk".to_owned(),
            "set `save \"\"` (deploy/redis.conf): nothing in it is worth saving".to_owned(),
        );
    }
    if !commands(|it| *it == RefusalReason::Loading).is_empty() {
        fault("still loads its data".to_owned(), "try again".to_owned());
    }
    for Refusal { command, reason } in &probe.refusals {
        if let RefusalReason::Other(text) = reason {
            fault(format!("refuses {command}: {text}"), "see its log".to_owned());
        }
    }
    diagnostics
}

fn judge_timing(subject: &str, latency: Duration, clock_off: Duration) -> [Diagnostic; 2] {
    let warn_unless = |is_ok| if is_ok { Verdict::Ok } else { Verdict::Warning };
    [
        diagnostic(
            subject,
            warn_unless(latency <= MAX_LATENCY),
            format!("answers within {:.1} ms", latency.as_secs_f64() * 1e3),
            "run it near the servers: messages between servers, and joins, wait for it",
        ),
        diagnostic(
            subject,
            warn_unless(clock_off <= CLOCK_TOLERANCE),
            format!("clock {:.1} s off", clock_off.as_secs_f64()),
            "synchronise both clocks with NTP",
        ),
    ]
}

fn diagnostic(subject: &str, verdict: Verdict, message: String, fix: &str) -> Diagnostic {
    match verdict {
        Verdict::Ok => Diagnostic::ok(subject, message),
        Verdict::Warning | Verdict::Fault | Verdict::NotChecked => {
            Diagnostic::new(subject, verdict, message, fix)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(change: impl FnOnce(&mut RedisProbe)) -> Vec<Diagnostic> {
        let info = RedisInfo {
            product: "Redis",
            version: "6.2.0".into(),
            role: "master".into(),
            most_memory: 0,
            policy: "allkeys-lru".into(),
        };
        let mut probe = RedisProbe {
            info: Some(info),
            refusals: Vec::new(),
            timing: Some((Duration::from_micros(200), Duration::from_millis(3))),
            others: OtherServers::default(),
        };
        change(&mut probe);
        judge("Redis 1", &probe, "signaling")
    }

    fn verdicts(change: impl FnOnce(&mut RedisInfo)) -> Vec<Verdict> {
        let judged = judged(|probe| change(probe.info.as_mut().unwrap()));
        judged.iter().map(|diagnostic| diagnostic.verdict).collect()
    }

    #[test]
    fn each_unsuitable_property_of_redis_has_its_own_diagnostic() {
        use Verdict::{Fault, Ok, Warning};
        assert_eq!(verdicts(|_| {}), [Ok; 6]);
        assert_eq!(verdicts(|it| it.version = "6.0.16".into()), [Fault, Ok, Ok, Ok, Ok, Ok]);
        assert_eq!(verdicts(|it| it.version = "10.1".into()), [Ok; 6]);
        assert_eq!(verdicts(|it| it.role = "slave".into()), [Ok, Fault, Ok, Ok, Ok]);
        assert_eq!(verdicts(|it| it.most_memory = 1), [Ok, Ok, Fault, Ok, Ok, Ok]);
        let volatile = |it: &mut RedisInfo| {
            (it.most_memory, it.policy) = (1, "volatile-lru".into());
        };
        assert_eq!(verdicts(volatile), [Ok, Ok, Warning, Ok, Ok, Ok]);
        let slow = judged(|probe| probe.timing = Some((MAX_LATENCY * 2, CLOCK_TOLERANCE * 2)));
        assert_eq!(slow.iter().filter(|it| it.verdict == Warning).count(), 2);
    }

    #[test]
    fn what_a_user_lacks_is_one_line_that_can_be_pasted() {
        let refused = |command, error| Refusal::new(command, error);
        let found = judged(|probe| {
            probe.refusals = vec![
                refused(
                    "SCRIPT|LOAD",
                    "NOPERM: User signaling has no permissions to run the 'script|load' command",
                ),
                refused(
                    "XTRIM",
                    "The user executing the script can't run this command or subcommand",
                ),
                refused("XADD", "NOPERM: No permissions to access a key"),
                refused(
                    "XADD",
                    "The user executing the script can't access at least one of the keys mentioned",
                ),
            ];
        });

        let faults: Vec<_> = found.iter().filter(|it| it.verdict == Verdict::Fault).collect();

        assert_eq!(faults.len(), 1, "{faults:?}");
        assert!(
            faults[0].fix.starts_with("ACL SETUSER signaling +script|load +xtrim ~{sig2_*}:* ")
        );
    }

    #[test]
    fn a_name_that_another_machine_has_and_another_deployment_are_faults() {
        let own = own_server();
        let holder = |host: &str| NodeFacts { host: host.to_owned(), ..own.facts.clone() };
        let verdicts = |fingerprint: Option<&str>, nodes: &[NodeFacts]| {
            let fingerprint = fingerprint.map(str::to_owned);
            let others = OtherServers { fingerprint, nodes: nodes.to_vec() };
            let judged = judge_others("Redis 1", &others, &own);
            judged.iter().map(|it| it.verdict).collect::<Vec<_>>()
        };

        assert_eq!(verdicts(None, &[]), []);
        assert_eq!(verdicts(Some("ours"), &[holder(&own.facts.host)]), [Verdict::Ok]);
        assert_eq!(verdicts(Some("ours"), &[holder("there")]), [Verdict::Fault]);
        assert_eq!(verdicts(Some("theirs"), &[holder("there")]), [Verdict::Fault; 2]);
    }

    #[test]
    fn servers_with_other_settings_are_warnings() {
        let own = own_server();
        let other =
            NodeFacts { node: "n1".into(), room_capacity: 12, shards: 2, ..own.facts.clone() };
        let same = NodeFacts { node: "n2".into(), ..own.facts.clone() };
        let others = OtherServers { fingerprint: None, nodes: vec![other, same] };

        let judged = judge_others("Redis 1", &others, &own);

        assert_eq!(judged.len(), 1);
        assert_eq!(judged[0].verdict, Verdict::Warning);
        assert_eq!(
            judged[0].message,
            "the server n1 has another REDIS_URL, MAX_CONNECTIONS_PER_ROOM"
        );
    }

    fn own_server() -> OwnServer {
        let facts = NodeFacts::new("n0", Default::default(), 1, 10);
        OwnServer { fingerprint: "ours".into(), has_fixed_name: true, facts }
    }

    #[test]
    fn each_reason_of_a_refusal_has_its_own_words() {
        for (error, word) in [
            ("ERR unknown command 'XTRIM', with args beginning with:", "does not know xtrim"),
            ("ERR Unknown Redis command called from script", "does not know xtrim"),
            ("OOM command not allowed when used memory > 'maxmemory'.", "maxmemory"),
            ("NOREPLICAS Not enough good replicas to write.", "min-replicas-to-write"),
            ("READONLY You can't write against a read only replica.", "replica"),
            ("MOVED 12596 127.0.0.1:7002", "slot"),
            ("CLUSTERDOWN Hash slot not served", "slot"),
            ("MISCONF Redis is configured to save RDB snapshots", "disk"),
            ("LOADING Redis is loading the dataset in memory", "loads"),
            ("ERR something else", "refuses xtrim: ERR something else"),
        ] {
            let found = judged(|probe| probe.refusals = vec![Refusal::new("XTRIM", error)]);

            let faults: Vec<_> = found.iter().filter(|it| it.verdict == Verdict::Fault).collect();
            assert_eq!(faults.len(), 1, "{error}: {faults:?}");
            assert!(faults[0].message.contains(word), "{error}: {faults:?}");
        }
    }
}
