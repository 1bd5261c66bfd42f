//! Reads the inbox of this node, and applies its entries in their order.

use std::{convert::Infallible, sync::atomic::Ordering, time::Duration};

use redis::{ErrorKind, RedisError};

use super::{
    codec::{self, DecodeError, InboxEntry, InboxFields, RawEntry},
    connection::RedisConnection,
    link::{EngineLink, RESPONSE_TIMEOUT},
};

/// How long Redis waits for an entry.
const READ_BLOCK: Duration = Duration::from_secs(1);
/// The same for the read that shows whether this Redis can be read at all.
pub(super) const FIRST_READ_BLOCK: Duration = Duration::from_millis(1);
/// How long nothing may come from Redis meanwhile.
pub(super) const READ_TIMEOUT: Duration = READ_BLOCK.saturating_add(RESPONSE_TIMEOUT);

/// After so many bytes the next heartbeat comes early, and drops them from the inbox.
const EARLY_HEARTBEAT_BYTES: usize = 1 << 20;

/// Entries that are read at once.
const MAX_ENTRIES_PER_READ: usize = 512;

type InboxEntries = Vec<(String, RawEntry)>;

/// The id of an entry: later entries of an inbox have greater ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct EntryId(u64, u64);

impl EntryId {
    pub(super) const MIN: Self = Self(0, 0);
    /// Greater than that of any entry.
    pub(super) const MAX: Self = Self(u64::MAX, u64::MAX);

    /// The id with the text `<milliseconds>-<number>`; what is none is the least.
    pub(super) fn parse(text: &str) -> Self {
        let parts = text.split_once('-');
        let parts =
            parts.and_then(|(time, number)| Some(Self(time.parse().ok()?, number.parse().ok()?)));
        parts.unwrap_or(Self::MIN)
    }
}

impl EngineLink {
    /// Reads entries until an error.
    pub(super) async fn read_inbox(
        &self,
        mut reader: RedisConnection,
    ) -> Result<Infallible, RedisError> {
        loop {
            self.read_entries(&mut reader, READ_BLOCK).await?;
        }
    }

    /// Reads and applies the next entries; waits for the first for at most `block`.
    pub(super) async fn read_entries(
        &self,
        reader: &mut RedisConnection,
        block: Duration,
    ) -> Result<(), RedisError> {
        let inbox = self.keys.inbox(&self.gateway.node);
        let from = self.position().clone().unwrap_or_default();
        let mut read = redis::cmd("XREAD");
        read.arg("COUNT").arg(MAX_ENTRIES_PER_READ).arg("BLOCK").arg(block.as_millis() as u64);
        read.arg("STREAMS").arg(&inbox).arg(&from);
        let read: Option<Vec<(String, InboxEntries)>> = read.query_async(reader).await?;
        let entries: Vec<_> = read.into_iter().flatten().flat_map(|(_, entries)| entries).collect();
        // A node that is far behind may have missed entries.
        if entries.len() == MAX_ENTRIES_PER_READ && detect_loss(reader, &inbox, &from).await? {
            *self.position() = None;
            return Err(inbox_overrun_error());
        }
        let mut last = None;
        self.note_read(&entries);
        for (id, entry) in entries {
            match entry {
                RawEntry::Signals(signals) => {
                    signals.into_iter().for_each(|signal| self.apply_signal(signal));
                }
                RawEntry::Fields(mut fields) => self.apply_fields(&mut fields),
            }
            last = Some(id);
        }
        if last.is_some() {
            *self.position() = last;
        }
        Ok(())
    }

    /// The id of the newest entry of the inbox; the greatest where there is no inbox, for nothing is known of it then.
    pub(super) async fn newest_entry(
        &self,
        connection: &mut RedisConnection,
    ) -> Result<EntryId, RedisError> {
        let mut newest = redis::cmd("XREVRANGE");
        newest.arg(self.keys.inbox(&self.gateway.node)).arg("+").arg("-").arg("COUNT").arg(1);
        let found: InboxEntries = newest.query_async(connection).await?;
        Ok(found.first().map_or(EntryId::MAX, |(id, _)| EntryId::parse(id)))
    }

    /// Has the next heartbeat come early where much was read since the last one.
    fn note_read(&self, entries: &InboxEntries) {
        let bytes: usize = entries.iter().map(|(_, entry)| entry.size()).sum();
        if self.read_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes >= EARLY_HEARTBEAT_BYTES {
            self.has_read_much.notify_one();
        }
    }

    fn apply_signal(&self, signal: Vec<u8>) {
        match codec::decode_signal(signal) {
            Ok(event) => self.gateway.apply(&self.rooms, event),
            Err(error) => log_skipped(&error),
        }
    }

    fn apply_fields(&self, entry: &mut InboxFields) {
        let (numbered, records) = codec::decode_webhook_records(entry);
        match codec::decode(entry) {
            Ok(InboxEntry::Event(event)) => self.gateway.apply(&self.rooms, event),
            Ok(InboxEntry::Logout(line)) => self.replicated.apply_logout(&line),
            Ok(InboxEntry::AuthEvent(event)) => self.replicated.apply_auth_event(&event),
            Ok(InboxEntry::Rule(rule, receipt)) => {
                self.replicated.apply_rule(&rule);
                self.gateway.confirm_effect(receipt);
            }
            Ok(InboxEntry::Announcement(announcement, receipt)) => {
                self.replicated.deliver_announcement(&announcement);
                self.gateway.confirm_effect(receipt);
            }
            Ok(InboxEntry::Effective(number)) => self.gateway.note_effect(number),
            Ok(InboxEntry::Closing) => self.gateway.closed_engines.add_permits(1),
            Ok(InboxEntry::Unknown) => {}
            Err(error) => log_skipped(&error),
        }
        // Now, for the entry may have opened the room.
        if let Some((room, sequence)) = numbered {
            self.rooms.advance_webhook_seq(&room, sequence);
        }
        super::webhooks::emit(&self.webhooks, &self.rooms, records);
    }
}

fn log_skipped(error: &DecodeError) {
    tracing::warn!(%error, "inbox entry skipped");
}

/// Whether an inbox has dropped entries after `position`: then it has dropped that entry as well, which is kept otherwise
/// (`heartbeat.lua`).
async fn detect_loss(
    connection: &mut RedisConnection,
    inbox: &str,
    position: &str,
) -> Result<bool, RedisError> {
    let mut range = redis::cmd("XRANGE");
    let found: InboxEntries =
        range.arg(inbox).arg(position).arg(position).query_async(connection).await?;
    Ok(found.is_empty())
}

/// More was written into the inbox than it holds, before it was read.
pub(super) fn inbox_overrun_error() -> RedisError {
    (
        ErrorKind::Client,
        "inbox overrun: entries were dropped before they were read; resynchronising",
    )
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_ordered_by_time_and_then_by_number() {
        let ids = ["", "9-12", "10-0", "10-9", "10-10"].map(EntryId::parse);

        assert!(ids.is_sorted(), "{ids:?}");
        assert!(ids.iter().all(|id| *id < EntryId::MAX));
    }
}
