//! The scripts that change what is shared, by name.

use std::{
    collections::HashSet,
    sync::{Arc, LazyLock},
};

use redis::{AsyncCommands, Cmd, RedisResult, Script, aio::MultiplexedConnection};

use super::{
    PREFIX,
    webhooks::{self, WebhookRecord},
};
use crate::{rooms::RoomRegistry, webhooks::Webhooks};

/// One of the scripts, with what all of them share in front of it.
macro_rules! script {
    ($name:literal) => {
        LazyLock::new(|| Script::new(concat!(include_str!("lib.lua"), include_str!($name))))
    };
}

pub static ENTER: LazyLock<Script> = script!("register.lua");
pub static JOIN: LazyLock<Script> = script!("join.lua");
pub static LEAVE: LazyLock<Script> = script!("leave.lua");
pub static SYNC: LazyLock<Script> = script!("resync.lua");
pub static BEAT: LazyLock<Script> = script!("heartbeat.lua");
pub static REAP: LazyLock<Script> = script!("reap.lua");
pub static WANT: LazyLock<Script> = script!("claim.lua");
pub static MOVE: LazyLock<Script> = script!("move.lua");
pub static CLOSE: LazyLock<Script> = script!("stop_accepting.lua");
pub static TELL: LazyLock<Script> = script!("broadcast.lua");
pub static LOGOUT: LazyLock<Script> = script!("logout.lua");
pub static REPORT: LazyLock<Script> = script!("report.lua");
pub static GONE: LazyLock<Script> = script!("missed_leave.lua");
pub static ORDER: LazyLock<Script> = script!("rule.lua");

/// Makes an engine know all of them.
///
/// # Errors
///
/// Those of the connection.
pub async fn load(connection: &mut MultiplexedConnection) -> RedisResult<()> {
    for script in [
        &ENTER, &JOIN, &LEAVE, &SYNC, &BEAT, &REAP, &WANT, &MOVE, &CLOSE, &TELL, &LOGOUT, &ORDER,
        &REPORT, &GONE,
    ] {
        script.prepare_invoke().load_async(connection).await?;
    }
    Ok(())
}

/// A call of a script that the engine knows; its arguments follow.
pub fn call(script: &Script) -> Cmd {
    let mut call = redis::cmd("EVALSHA");
    call.arg(script.get_hash()).arg(1).arg(PREFIX);
    call
}

/// The same for a script that changes who is in: where `webhooks` are wanted, it says what they are to be told.
pub fn call_with_webhooks(script: &Script, webhooks: &Webhooks) -> Cmd {
    if !webhooks.are_wanted() {
        return call(script);
    }
    let mut call = redis::cmd("EVALSHA");
    call.arg(script.get_hash()).arg(2).arg(PREFIX).arg(format!("{PREFIX}told"));
    call
}

/// Orders that go in one call, so that the engine is never busy for long.
const MAX_RULES_PER_CALL: usize = 64;

/// Tells every node of orders, each as JSON.
///
/// # Errors
///
/// Those of the connection.
pub async fn publish_rules(
    connection: &mut MultiplexedConnection,
    lines: &[String],
) -> RedisResult<()> {
    for some in lines.chunks(MAX_RULES_PER_CALL) {
        let mut order = call(&ORDER);
        some.iter().for_each(|line| {
            order.arg(line);
        });
        let _: u8 = order.query_async(connection).await?;
    }
    Ok(())
}

/// Whoever has beaten twice as recently as it must: more than half of a lease (`lib.lua`) is left.
const MIN_REMAINING_LEASE: u64 = 4;

/// The nodes that are certainly alive, and stay.
///
/// # Errors
///
/// Those of the connection.
pub async fn live_nodes(connection: &mut MultiplexedConnection) -> RedisResult<Vec<Arc<str>>> {
    let (now, _): (u64, u64) = redis::cmd("TIME").query_async(connection).await?;
    let nodes: Vec<String> = connection
        .zrangebyscore(format!("{PREFIX}nodes"), now + MIN_REMAINING_LEASE, "+inf")
        .await?;
    let closing: HashSet<String> = connection.smembers(format!("{PREFIX}closing")).await?;
    Ok(nodes.into_iter().filter(|node| !closing.contains(node)).map(Arc::from).collect())
}

/// Lets the members of a node leave that is gone, a few rooms at a time; `at_once` also where its lease is not over. Tells
/// `webhooks` what happens by that.
///
/// # Errors
///
/// Those of the connection.
pub async fn reap(
    mut connection: MultiplexedConnection,
    node: &str,
    at_once: bool,
    rooms: &RoomRegistry,
    webhooks: &Webhooks,
) -> RedisResult<()> {
    loop {
        let mut reap = call_with_webhooks(&REAP, webhooks);
        reap.arg(node).arg(if at_once { "gone" } else { "" });
        let (more, told): (u8, Vec<WebhookRecord>) = reap.query_async(&mut connection).await?;
        webhooks::emit(webhooks, rooms, &told);
        if more == 0 {
            return Ok(());
        }
    }
}
