//! The commands of `signaling-server admin`, as clap parses them.

use clap::{Args, Subcommand};

/// What the server is to show or do.
#[derive(Subcommand)]
pub(super) enum Command {
    /// Show the server's state and its latest warnings and errors
    Status,
    /// List the rooms that have members
    Rooms,
    /// Show a room's members and its moderation rules
    Room {
        /// The room
        room: String,
    },
    /// Show what happened in a room; message contents are never recorded
    Timeline {
        /// The room, also for a while after it has ended
        room: String,
    },
    /// Remove a member from a room
    Kick {
        /// The room
        room: String,
        #[command(flatten)]
        subject: SubjectArguments,
        /// Also deny entry to the room for this long
        #[arg(long, value_name = "SECONDS", default_value_t = 0)]
        ban: u64,
    },
    /// Remove a member from a room or from all rooms, and deny entry
    Ban {
        /// The room; without it, all rooms
        room: Option<String>,
        #[command(flatten)]
        subject: SubjectArguments,
        /// How long entry is denied
        #[arg(long = "for", value_name = "SECONDS")]
        seconds: u64,
    },
    /// Remove a ban
    Unban {
        /// The room of the ban; without it, the ban from all rooms
        room: Option<String>,
        #[command(flatten)]
        subject: SubjectArguments,
    },
    /// Pass on neither a member's messages nor what it sends to everyone
    Mute {
        /// The room
        room: String,
        #[command(flatten)]
        subject: SubjectArguments,
        /// For how long; without it, until `unmute`
        #[arg(long = "for", value_name = "SECONDS")]
        seconds: Option<u64>,
    },
    /// Pass them on again
    Unmute {
        /// The room
        room: String,
        #[command(flatten)]
        subject: SubjectArguments,
    },
    /// Deny entry to a room; its members stay, and may resume
    Lock {
        /// The room
        room: String,
    },
    /// Allow entry to a locked room again
    Unlock {
        /// The room
        room: String,
    },
    /// Remove all members from a room
    Close {
        /// The room
        room: String,
        /// Also deny entry to the room for this long
        #[arg(long = "for", value_name = "SECONDS", default_value_t = 0)]
        seconds: u64,
    },
    /// Allow entry again to a room that was closed with --for
    Reopen {
        /// The room
        room: String,
    },
    /// Set how many members a room may have
    Capacity {
        /// The room
        room: String,
        /// The number of members; without it, MAX_CONNECTIONS_PER_ROOM applies again
        members: Option<usize>,
    },
    /// Send a `server_message` to a room, or to one of its members
    Say {
        /// The room
        room: String,
        /// The client id of the one member to send it to
        #[arg(long, value_name = "CLIENT")]
        to: Option<String>,
        /// A text; with --data, JSON
        text: String,
        /// Send the text as JSON instead of a string
        #[arg(long)]
        data: bool,
    },
    /// List the bans, locks, mutes and capacities in force
    Rules,
    /// Stop the server as SIGTERM does: clients move to servers that share its rooms, or reconnect when it is back
    Drain,
}

/// The members that a command applies to.
#[derive(Args)]
#[group(required = true, multiple = false)]
pub(super) struct SubjectArguments {
    /// All members with this username, or the guest of this name
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// The member with this client id
    #[arg(long, value_name = "ID")]
    client: Option<String>,
}

impl SubjectArguments {
    /// The field of the admin API that names them, and its value.
    pub(super) fn into_field(self) -> (&'static str, String) {
        match (self.user, self.client) {
            (Some(user), _) => ("username", user),
            (None, client) => ("client_id", client.unwrap_or_default()),
        }
    }
}
