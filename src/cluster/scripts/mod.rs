//! The scripts that change what Redis stores, and their calls. `README.md` beside it says what each key and field is.

use redis::{Cmd, RedisResult, Script};

use super::{
    connection::RedisConnection,
    keys::ShardKeys,
    webhooks::{self, WebhookRecord},
};
use crate::{migration::ClusterTimings, rooms::RoomRegistry, webhooks::Webhooks};

/// Entries that may wait in an inbox; a node that is further behind has to resynchronise.
pub const INBOX_MAX_LEN: usize = 100_000;

/// Rooms whose members one call of `reap.lua` removes, so that Redis is never busy for long.
const REAP_BATCH: usize = 32;

/// Rooms that one call of `sweep.lua` looks through, about.
const SWEEP_BATCH: usize = 32;

/// Keys that one call of `sweep.lua` looks at, about, for rooms that no list names. Most are not of this cluster, or no rooms.
const KEYS_BATCH: usize = 256;

/// Moderation rules that go in one call, for the same reason.
const MAX_RULES_PER_CALL: usize = 64;

/// A script that runs the commands in its arguments, and returns those that are refused, each with the error.
pub const PROBE_SCRIPT: &str = include_str!("probe.lua");

/// Every command that the scripts run, with arguments, for [`PROBE_SCRIPT`]. `@` stands for the beginning of a key. The last one
/// removes what the others have written.
pub const SCRIPT_COMMANDS: [&str; 33] = [
    "TIME",
    "SET @text 1",
    "GET @text",
    "INCR @text",
    "DECR @text",
    "EXISTS @text",
    "SCAN 0 MATCH @* COUNT 10",
    "HSET @hash field 1",
    "HGET @hash field",
    "HINCRBY @hash field 1",
    "HEXISTS @hash field",
    "HGETALL @hash",
    "HKEYS @hash",
    "HVALS @hash",
    "HSCAN @hash 0 COUNT 10",
    "HLEN @hash",
    "HDEL @hash other",
    "SADD @set member",
    "SISMEMBER @set member",
    "SMEMBERS @set",
    "SRANDMEMBER @set 1",
    "SREM @set other",
    "ZADD @sorted 1 member",
    "ZSCORE @sorted member",
    "ZRANGE @sorted 0 -1",
    "ZRANGEBYSCORE @sorted -inf 1 LIMIT 0 1",
    "ZREM @sorted other",
    "ZREMRANGEBYSCORE @sorted -inf 0",
    "XADD @stream MAXLEN ~ 1000 * kind hello",
    "XLEN @stream",
    "XRANGE @stream - +",
    "XTRIM @stream MINID 0",
    "DEL @text @hash @set @sorted @stream",
];

/// Every script, with the constants and `lib.lua` in front.
pub struct Scripts {
    pub register: Script,
    pub join: Script,
    pub leave: Script,
    pub resync: Script,
    pub heartbeat: Script,
    pub reap: Script,
    pub claim: Script,
    pub move_member: Script,
    pub stop_accepting: Script,
    pub broadcast: Script,
    pub logout: Script,
    pub report: Script,
    pub missed_leave: Script,
    pub close_room: Script,
    pub rule: Script,
    pub post: Script,
    pub check: Script,
    pub sweep: Script,
}

impl Scripts {
    /// The scripts of a cluster that keeps to `timings`.
    pub fn new(timings: ClusterTimings) -> Self {
        let lease = timings.lease.as_secs_f64();
        let constants = format!(
            "local LEASE, INBOX_MAX_LEN, REAP_BATCH, SWEEP_BATCH, KEYS_BATCH = {lease}, {INBOX_MAX_LEN}, {REAP_BATCH}, {SWEEP_BATCH}, {KEYS_BATCH}\n"
        );
        let script =
            |body: &str| Script::new(&[&constants, include_str!("lib.lua"), body].concat());
        Self {
            register: script(include_str!("register.lua")),
            join: script(include_str!("join.lua")),
            leave: script(include_str!("leave.lua")),
            resync: script(include_str!("resync.lua")),
            heartbeat: script(include_str!("heartbeat.lua")),
            reap: script(include_str!("reap.lua")),
            claim: script(include_str!("claim.lua")),
            move_member: script(include_str!("move.lua")),
            stop_accepting: script(include_str!("stop_accepting.lua")),
            broadcast: script(include_str!("broadcast.lua")),
            logout: script(include_str!("logout.lua")),
            report: script(include_str!("report.lua")),
            missed_leave: script(include_str!("missed_leave.lua")),
            close_room: script(include_str!("close_room.lua")),
            rule: script(include_str!("rule.lua")),
            post: script(include_str!("post.lua")),
            check: script(include_str!("check.lua")),
            sweep: script(include_str!("sweep.lua")),
        }
    }

    /// Makes a Redis know all of them.
    ///
    /// # Errors
    ///
    /// Those of the connection.
    pub async fn load(&self, connection: &mut RedisConnection) -> RedisResult<()> {
        let Self { register, join, leave, resync, heartbeat, reap, claim, .. } = self;
        let Self { move_member, stop_accepting, broadcast, logout, report, .. } = self;
        let Self { missed_leave, close_room, rule, post, check, sweep, .. } = self;
        for script in [
            register,
            join,
            leave,
            resync,
            heartbeat,
            reap,
            claim,
            move_member,
            stop_accepting,
            broadcast,
            logout,
            report,
            missed_leave,
            close_room,
            rule,
            post,
            check,
            sweep,
        ] {
            script.prepare_invoke().load_async(connection).await?;
        }
        Ok(())
    }

    /// Sends moderation rules to every node, each as JSON; how many other nodes get the last one. They confirm that to the node
    /// of the `receipt`, where it has a number.
    ///
    /// # Errors
    ///
    /// Those of the connection.
    pub async fn publish_rules(
        &self,
        keys: &ShardKeys,
        connection: &mut RedisConnection,
        rules: &[String],
        (node, number): (&str, Option<u64>),
    ) -> RedisResult<usize> {
        let mut others = 0;
        for some in rules.chunks(MAX_RULES_PER_CALL) {
            let mut rule = call(keys, &self.rule);
            rule.arg(node).arg(number.map_or_else(String::new, |number| number.to_string()));
            for line in some {
                rule.arg(line);
            }
            others = rule.query_async(connection).await?;
        }
        Ok(others)
    }

    /// Removes the members of a node that is gone, a few rooms at a time; `at_once` also where its lease is not over. Sends
    /// the events of that to `webhooks`.
    ///
    /// # Errors
    ///
    /// Those of the connection.
    pub async fn reap(
        &self,
        keys: &ShardKeys,
        mut connection: RedisConnection,
        node: &str,
        at_once: bool,
        rooms: &RoomRegistry,
        webhooks: &Webhooks,
    ) -> RedisResult<()> {
        loop {
            let mut reap = call_with_webhooks(keys, &self.reap, webhooks);
            reap.arg(node).arg(if at_once { "gone" } else { "" });
            let (more, records): (u8, Vec<u8>) = reap.query_async(&mut connection).await?;
            webhooks::emit(webhooks, rooms, WebhookRecord::parse_all(&records));
            if more == 0 {
                return Ok(());
            }
        }
    }
}

/// A call of a script that Redis knows; its arguments follow.
pub fn call(keys: &ShardKeys, script: &Script) -> Cmd {
    let mut call = redis::cmd("EVALSHA");
    call.arg(script.get_hash()).arg(1).arg(keys.prefix());
    call
}

/// The same for a script that changes memberships: where there are `webhooks`, it numbers their events.
pub fn call_with_webhooks(keys: &ShardKeys, script: &Script, webhooks: &Webhooks) -> Cmd {
    if !webhooks.is_enabled() {
        return call(keys, script);
    }
    let mut call = redis::cmd("EVALSHA");
    call.arg(script.get_hash()).arg(2).arg(keys.prefix()).arg(keys.key("told"));
    call
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs};

    use super::*;

    /// The commands that `text` runs.
    fn commands_in(text: &str) -> BTreeSet<String> {
        let calls = text.split("redis.call('").skip(1);
        calls.filter_map(|call| call.split('\'').next()).map(str::to_owned).collect()
    }

    #[test]
    fn doctor_tries_every_command_that_a_script_runs() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/cluster/scripts");
        let scripts = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let scripts = scripts.filter(|path| path.extension().is_some_and(|it| it == "lua"));
        let run: BTreeSet<_> =
            scripts.flat_map(|path| commands_in(&fs::read_to_string(path).unwrap())).collect();
        let first_word = |line: &str| line.split(' ').next().unwrap().to_owned();
        let tried: BTreeSet<_> = SCRIPT_COMMANDS.map(first_word).into();

        assert!(run.len() > 20, "{run:?}");
        assert_eq!(run, tried);
    }
}
