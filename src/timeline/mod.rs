//! What has happened in a room, in a bounded ring: joins, leaves, and which member sent what kind of signal to which peer,
//! with its outcome. Never payloads, nor addresses. Pure: `now` is an argument.
//!
//! `entry` is one event as it is stored, `ring` the timeline of one room, `view` how it is shown, `archive` the timelines
//! of closed rooms.

mod archive;
mod entry;
mod ring;
#[cfg(test)]
mod tests;
mod view;

pub use self::{
    archive::TimelineArchive,
    entry::{PeerRef, TimelineEntry},
    ring::Timeline,
    view::{TimelineEvent, TimelineView},
};
