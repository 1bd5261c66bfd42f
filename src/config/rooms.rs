//! Which rooms there are, and what the server keeps of members and rooms that are gone.

use std::{path::PathBuf, time::Duration};

use super::{
    StartupSettings,
    declare::{Section, Setting},
    parse::{LIST, Reader, list, path, seconds},
};
use crate::storage::atomic_file::sibling_path;

/// What does not change while the server runs.
#[derive(Clone, Debug)]
pub struct RoomSettings {
    /// `RESUME_WINDOW_SECONDS`: how long a client may be disconnected before it resumes; 0 = no client resumes.
    pub resume_window: Duration,
    /// `STATE_FILE`; see [`StartupSettings::state_file`].
    pub state_file: Option<PathBuf>,
    /// `TIMELINE_SECONDS`: how long the timeline of a room is kept after the room is empty; 0 = no timelines.
    pub timeline_retention: Duration,
}

/// What SIGHUP may change.
#[derive(Clone, Debug)]
pub struct ReloadableRooms {
    /// `ALLOWED_ROOMS`: the rooms that clients may join; empty = all.
    pub allowed: Vec<String>,
}

pub(super) const ALLOWED_ROOMS: Setting<Vec<String>> = Setting::new("ALLOWED_ROOMS", "[]", list)
    .accepts(LIST)
    .reloadable("clients that join or resume from then on; members stay")
    .help("The only rooms that clients may join. Empty: every room.");

const RESUME_WINDOW_SECONDS: Setting<Duration> =
    Setting::new("RESUME_WINDOW_SECONDS", "30", |text| seconds(text, 0..=3600))
        .accepts("a whole number from 0 to 3600; 0 = no resuming")
        .help("Seconds that a client that resumes may be disconnected.")
        .page("docs/build/protocol.md#5-resuming");

pub(super) const STATE_FILE: Setting<Option<PathBuf>> = Setting::new("STATE_FILE", "", path)
    .accepts("the path of a file in a folder that the server may write")
    .help(
        "File that stores the members that may resume while the server restarts. Empty: `USERS_CSV` with `.state` \
         appended. Two servers with one users file need one each.",
    );

const TIMELINE_SECONDS: Setting<Duration> =
    Setting::new("TIMELINE_SECONDS", "300", |text| seconds(text, 0..=86_400))
        .accepts("a whole number from 0 to 86400; 0 = no timelines")
        .help(
            "Seconds that the timeline of a room is kept after the room is closed: joins, leaves, and the kind of \
             each message, never its content.",
        ).page("docs/run/operations.md#the-timeline-of-a-room");

pub(super) const SECTION: Section = Section {
    title: "Rooms",
    settings: &[
        ALLOWED_ROOMS.declaration,
        RESUME_WINDOW_SECONDS.declaration,
        STATE_FILE.declaration,
        TIMELINE_SECONDS.declaration,
    ],
};

impl RoomSettings {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        Self {
            resume_window: reader.get(&RESUME_WINDOW_SECONDS),
            state_file: reader.get(&STATE_FILE),
            timeline_retention: reader.get(&TIMELINE_SECONDS),
        }
    }
}

impl ReloadableRooms {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        Self { allowed: reader.get(&ALLOWED_ROOMS) }
    }
}

impl StartupSettings {
    /// Where members are kept while the server restarts: beside the users file, unless `STATE_FILE` says otherwise.
    pub fn state_file(&self) -> PathBuf {
        let beside_users = || sibling_path(&self.auth.users_csv, ".state");
        self.rooms.state_file.clone().unwrap_or_else(beside_users)
    }

    /// Where the keys of TLS session tickets are kept, beside the members; nothing where there are none.
    pub fn ticket_file(&self) -> Option<PathBuf> {
        let has_tickets = self.listen.session_tickets && self.listen.tls.is_some();
        has_tickets.then(|| sibling_path(&self.state_file(), ".tickets"))
    }
}
