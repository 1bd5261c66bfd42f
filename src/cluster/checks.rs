//! Compares what this node knows of its members with what Redis stores, and states again what is missing there.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    convert::Infallible,
    sync::Arc,
};

use redis::{AsyncCommands, RedisError, RedisResult, aio::MultiplexedConnection};
use sha1::{Digest, Sha1};
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::{
    link::EngineLink,
    messages::ClusterCommand,
    scripts::{call, call_with_webhooks},
};
use crate::migration::{Epoch, MemberRecord};

/// Rooms that are compared in one call, so that Redis is never busy for long.
const ROOMS_PER_CALL: usize = 128;

/// The local members of some rooms, each with the epoch that was applied to the room.
type LocalMembers = BTreeMap<Arc<str>, (Epoch, Vec<MemberRecord>)>;

impl EngineLink {
    /// Compares and repairs at each heartbeat, until an error.
    pub(super) async fn run_checks(
        &self,
        mut writer: MultiplexedConnection,
    ) -> Result<Infallible, RedisError> {
        let timings = self.gateway.timings;
        let mut ticks = interval(timings.heartbeat_interval());
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut cursor, mut stale, mut was_right) = ("0".to_owned(), HashSet::new(), true);
        loop {
            ticks.tick().await;
            let mut different = self.find_differences(&mut writer, |_| true).await?;
            if !different.is_empty() {
                // A join or a leave that is under way has arrived by then.
                sleep(timings.confirm_interval() * 2).await;
                different =
                    self.find_differences(&mut writer, |room| different.contains(room)).await?;
            }
            let mut repairs = self.state_missing(&mut writer, &different).await?;
            stale = self.remove_stale(&mut writer, &different, stale, &mut repairs).await?;
            let (next, swept) = self.sweep(&mut writer, &cursor).await?;
            cursor = next;
            repairs += swept;
            self.gateway.note_repairs(repairs);
            if repairs > 0 && was_right {
                tracing::warn!(
                    engine = self.number,
                    repairs,
                    "redis had lost members or counts of rooms; they were stated again"
                );
            }
            was_right = repairs == 0;
        }
    }

    /// The local members of the rooms of this Redis that `is_meant`, also of rooms in which only Redis knows of some.
    async fn local_rooms(
        &self,
        writer: &mut MultiplexedConnection,
        is_meant: impl Fn(&str) -> bool,
    ) -> RedisResult<LocalMembers> {
        let seats = self.keys.key(&format!("seats:{}", self.gateway.node));
        let stored: Vec<String> = writer.smembers(seats).await?;
        let is_of_engine =
            |room: &str| self.gateway.engine_of(room) == self.number && is_meant(room);
        let stored = stored.iter().filter(|room| is_meant(room));
        let mut rooms: LocalMembers =
            stored.map(|room| (Arc::from(&**room), (0, Vec::new()))).collect();
        let local = self.rooms.local_members(is_of_engine).into_iter();
        rooms.extend(local.map(|(room, epoch, members)| (room, (epoch, members))));
        Ok(rooms)
    }

    async fn find_differences(
        &self,
        writer: &mut MultiplexedConnection,
        is_meant: impl Fn(&str) -> bool,
    ) -> RedisResult<BTreeSet<String>> {
        let rooms: Vec<_> = self.local_rooms(writer, is_meant).await?.into_iter().collect();
        let mut different = BTreeSet::new();
        for some in rooms.chunks(ROOMS_PER_CALL) {
            let mut check = call(&self.keys, &self.gateway.scripts.check);
            check.arg(&*self.gateway.node);
            for (room, (_, members)) in some {
                check.arg(&**room).arg(members.iter().map(digest).sum::<u64>());
            }
            let found: Vec<String> = check.query_async(writer).await?;
            different.extend(found);
        }
        Ok(different)
    }

    /// States the members of rooms in which some are missing, and makes their counts right; how many rooms those are.
    async fn state_missing(
        &self,
        writer: &mut MultiplexedConnection,
        different: &BTreeSet<String>,
    ) -> RedisResult<u64> {
        if different.is_empty() {
            return Ok(0);
        }
        let rooms = self.local_rooms(writer, |room| different.contains(room)).await?;
        let rooms: Vec<_> =
            rooms.into_iter().map(|(room, (epoch, members))| (room, epoch, members)).collect();
        self.state_rooms(writer, &rooms, "repair").await?;
        Ok(different.len() as u64)
    }

    /// Removes members of this node that only Redis knows, also at the check before this one: an entry that would say so has
    /// been read by now. Returns those of this check.
    async fn remove_stale(
        &self,
        writer: &mut MultiplexedConnection,
        different: &BTreeSet<String>,
        before: HashSet<(String, MemberRecord)>,
        repairs: &mut u64,
    ) -> RedisResult<HashSet<(String, MemberRecord)>> {
        let mut stale = HashSet::new();
        for room in different {
            let stored: BTreeMap<String, String> = writer.hgetall(self.keys.room(room)).await?;
            let local = self.local_rooms(writer, |other| other == room).await?;
            let local = local.get(&**room).map_or(&[][..], |(_, members)| members.as_slice());
            for (client_id, record) in stored {
                let Ok(record) = MemberRecord::parse(&client_id, &record) else { continue };
                if record.connection.node == self.gateway.node && !local.contains(&record) {
                    stale.insert((room.clone(), record));
                }
            }
        }
        for (room, record) in stale.intersection(&before) {
            let (room, key): (Arc<str>, _) = (room.as_str().into(), record.connection.key);
            let (peer, reason) = (record.peer.clone(), Some("lost"));
            let leave =
                ClusterCommand::Leave { room: room.clone(), peer, key, reason, sequence: 0 };
            self.gateway.send(&room, leave);
            *repairs += 1;
        }
        Ok(stale)
    }

    /// Has Redis look through some rooms for members of nodes that are gone; where it has stopped, and what it has changed.
    async fn sweep(
        &self,
        writer: &mut MultiplexedConnection,
        cursor: &str,
    ) -> RedisResult<(String, u64)> {
        let mut sweep = call_with_webhooks(&self.keys, &self.gateway.scripts.sweep, &self.webhooks);
        let (next, changed, records): (String, u64, Vec<u8>) =
            sweep.arg(cursor).query_async(writer).await?;
        self.emit_webhooks(&records);
        Ok((next, changed))
    }
}

/// What check.lua computes of a member.
fn digest(member: &MemberRecord) -> u64 {
    let text = format!("{} {}", member.peer.client_id, member.to_record());
    let hash = Sha1::digest(text);
    let first = hash.first_chunk::<4>().copied().unwrap_or_default();
    u64::from(u32::from_be_bytes(first))
}
