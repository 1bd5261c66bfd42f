//! Whether a Redis can be used, for `doctor`: does what a server does, on keys of its own, and asks what Redis says of itself.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use redis::{
    AsyncCommands, AsyncConnectionConfig, Cmd, RedisError, RedisResult, Script, Value,
    aio::MultiplexedConnection,
};
use tokio::time::{Instant, timeout};

use super::{
    RedisEndpoint,
    identity::NodeFacts,
    keys::ShardKeys,
    refusal::Refusal,
    scripts::{PROBE_SCRIPT, SCRIPT_COMMANDS},
};

/// How long anything may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How often the round trip is measured.
const ROUND_TRIPS: usize = 21;

/// The commands that a server sends besides calls of scripts, and that no script runs, or that need an entry to read. `@`
/// stands for the probe's own key.
const SERVER_COMMANDS: [&str; 6] = [
    "XADD @inbox MAXLEN ~ 1000 * kind hello",
    "XREAD COUNT 1 BLOCK 1 STREAMS @inbox 0",
    "XREVRANGE @inbox + - COUNT 1",
    "ZCARD @sorted",
    "SSCAN @set 0 COUNT 1",
    "MGET @text",
];

/// What was found of a Redis that answers.
#[derive(Debug, Default)]
pub struct RedisProbe {
    /// What it says of itself, where it says it.
    pub info: Option<RedisInfo>,
    /// What a server has to do and cannot.
    pub refusals: Vec<Refusal>,
    /// The median round trip time, and the difference between its clock and this machine's in either direction.
    pub timing: Option<(Duration, Duration)>,
    /// The servers that use it now.
    pub others: OtherServers,
}

/// The servers that use a Redis, as far as its keys say so.
#[derive(Debug, Default)]
pub struct OtherServers {
    /// Made of the `SECRET_KEY` of their deployment; nothing where there is none.
    pub fingerprint: Option<String>,
    /// Those whose lease lasts.
    pub nodes: Vec<NodeFacts>,
}

/// What a Redis says of itself.
#[derive(Clone, Debug)]
pub struct RedisInfo {
    /// Such as `Redis` or `Valkey`.
    pub product: &'static str,
    /// Such as 7.0.15.
    pub version: String,
    /// `master`, or `slave`.
    pub role: String,
    /// Bytes of memory that it may use; 0 is no limit.
    pub most_memory: u64,
    /// What it evicts when it has used them.
    pub policy: String,
}

impl RedisInfo {
    fn parse(info: &str) -> Self {
        let field = |name: &str| {
            let mut lines = info.lines().filter_map(|line| line.split_once(':'));
            lines.find(|(field, _)| *field == name).map(|(_, value)| value.to_owned())
        };
        let text = |name| field(name).unwrap_or_default();
        let valkey = field("valkey_version");
        Self {
            product: if valkey.is_some() { "Valkey" } else { "Redis" },
            version: valkey.unwrap_or_else(|| text("redis_version")),
            role: text("role"),
            most_memory: text("maxmemory").parse().unwrap_or_default(),
            policy: text("maxmemory_policy"),
        }
    }
}

impl RedisEndpoint {
    /// Does what a server with the rooms of this `shard` does, and looks for the others. Leaves nothing behind.
    ///
    /// # Errors
    ///
    /// That of the way to Redis, and of the login.
    pub async fn probe(&mut self, shard: usize) -> RedisResult<RedisProbe> {
        let client = timeout(TIMEOUT, self.client())
            .await
            .unwrap_or_else(|_| Err((redis::ErrorKind::Io, "no answer within 5 s").into()))?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(TIMEOUT))
            .set_response_timeout(Some(TIMEOUT));
        let connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        let keys = ShardKeys::new(shard);
        let key = keys.key(&format!("doctor:{}:", uuid::Uuid::new_v4().simple()));
        let mut probing = Probing { connection, key, refusals: Vec::new() };
        let info: Option<String> = probing.run("INFO", &redis::cmd("INFO")).await;
        probing.run_commands().await;
        let timing = probing.measure().await;
        let info = info.as_deref().map(RedisInfo::parse);
        let others = probing.find_others(&keys).await;
        Ok(RedisProbe { info, refusals: probing.refusals, timing, others })
    }
}

/// An error as Redis has sent it, the code first.
fn text_of(error: &RedisError) -> String {
    match (error.code(), error.detail()) {
        (Some(code), Some(detail)) => format!("{code} {detail}"),
        _ => error.to_string(),
    }
}

/// The clock of Redis (seconds, microseconds), when the leases of the nodes end by it, and the entries of `processes`.
type ClockAndLeases = ((u64, u64), Vec<(String, f64)>, HashMap<String, String>);

/// A probe under way.
struct Probing {
    connection: MultiplexedConnection,
    /// The beginning of its own keys.
    key: String,
    refusals: Vec<Refusal>,
}

impl Probing {
    /// What Redis answers to a command, or nothing where it refuses it.
    async fn run<T: redis::FromRedisValue>(&mut self, name: &str, command: &Cmd) -> Option<T> {
        let answer: RedisResult<T> = command.query_async(&mut self.connection).await;
        answer.map_err(|error| self.refuse(name, &text_of(&error))).ok()
    }

    fn refuse(&mut self, command: &str, error: &str) {
        self.refusals.push(Refusal::new(command, error));
    }

    /// Every command that a server sends, and every one that its scripts run.
    async fn run_commands(&mut self) {
        let own = |command: &str| command.replace('@', &self.key);
        let (scripted, sent) = (SCRIPT_COMMANDS.map(own), SERVER_COMMANDS.map(own));
        let mut load = redis::cmd("SCRIPT");
        load.arg("LOAD").arg(PROBE_SCRIPT);
        let _: Option<Value> = self.run("SCRIPT|LOAD", &load).await;
        let mut call = redis::cmd("EVALSHA");
        call.arg(Script::new(PROBE_SCRIPT).get_hash()).arg(1).arg(&self.key).arg(&scripted[..]);
        let refused: Vec<String> = match call.query_async(&mut self.connection).await {
            Ok(refused) => refused,
            // It is not there where it could not be loaded, which has been said.
            Err(error) if error.code() == Some("NOSCRIPT") => Vec::new(),
            Err(error) => {
                self.refuse("EVALSHA", &text_of(&error));
                Vec::new()
            }
        };
        for line in refused {
            let (command, error) = line.split_once(' ').unwrap_or((&line, ""));
            self.refuse(command, error);
        }
        for command in sent {
            let mut words = command.split(' ');
            let name = words.next().unwrap_or_default();
            let mut command = redis::cmd(name);
            for word in words {
                command.arg(word);
            }
            let _: Option<Value> = self.run(name, &command).await;
        }
        let mut delete = redis::cmd("DEL");
        delete.arg(format!("{}inbox", self.key));
        let _: RedisResult<u8> = delete.query_async(&mut self.connection).await;
    }

    /// What the servers have written that use this Redis. What cannot be read is not there: the commands were tried before.
    async fn find_others(&mut self, keys: &ShardKeys) -> OtherServers {
        let connection = &mut self.connection;
        let fingerprint = connection.get(keys.key("fingerprint")).await.unwrap_or_default();
        let mut pipe = redis::pipe();
        pipe.cmd("TIME").zrange_withscores(keys.key("nodes"), 0, -1).hgetall(keys.key("processes"));
        let found: RedisResult<ClockAndLeases> = pipe.query_async(connection).await;
        let ((seconds, _), leases, entries) = found.unwrap_or_default();
        let is_live = |(_, deadline): &(String, f64)| *deadline > seconds as f64;
        let live = leases.into_iter().filter(is_live);
        let nodes =
            live.filter_map(|(node, _)| NodeFacts::parse_entry(entries.get(&node)?)).collect();
        OtherServers { fingerprint, nodes }
    }

    /// The median round trip time, and how far the clock is off.
    async fn measure(&mut self) -> Option<(Duration, Duration)> {
        let (mut round_trips, mut clock_off) = (Vec::new(), Duration::ZERO);
        for _ in 0..ROUND_TRIPS {
            let began = Instant::now();
            let (seconds, micros): (u64, u64) =
                redis::cmd("TIME").query_async(&mut self.connection).await.ok()?;
            round_trips.push(began.elapsed());
            let theirs = Duration::from_secs(seconds) + Duration::from_micros(micros);
            clock_off = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().abs_diff(theirs);
        }
        round_trips.sort();
        Some((round_trips.get(ROUND_TRIPS / 2).copied()?, clock_off))
    }
}
