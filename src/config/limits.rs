//! Limits on requests, connections and messages. SIGHUP may change all of them.

use std::time::Duration;

use super::{
    declare::{Section, Setting},
    parse::{FROM_ONE, Reader, UP_TO_A_MILLION, number, seconds},
};

/// What a client address, a connection and a room may take.
#[derive(Clone, Debug)]
pub struct ReloadableLimits {
    /// `RATE_LIMIT_PER_MINUTE`: HTTP requests per client address; 0 = no limit.
    pub requests_per_minute: u32,
    /// `JOINS_PER_MINUTE`: joins per account; 0 = no limit.
    pub joins_per_minute: u32,
    /// `WEBSOCKET_MESSAGES_PER_SECOND`: how fast the message budget of a connection refills.
    pub messages_per_second: u32,
    /// `WEBSOCKET_MESSAGE_BURST`: how many messages a connection may send at once.
    pub message_burst: u32,
    /// `WEBSOCKET_BYTES_PER_SECOND`: how fast the byte budget of a connection refills.
    pub bytes_per_second: u32,
    /// `WEBSOCKET_TIMEOUT`: how long a connection may take for its first message, and may be silent.
    pub websocket_timeout: Duration,
    /// `WEBSOCKET_MAX_MESSAGE_BYTES`: the longest message.
    pub max_message_bytes: usize,
    /// `MAX_CONNECTIONS_PER_ROOM`: members of a room.
    pub max_connections_per_room: usize,
    /// `MAX_CONNECTIONS_PER_IP`: WebSockets per client address; 0 = no limit.
    pub max_connections_per_ip: usize,
    /// `MAX_CONNECTIONS_PER_USER`: WebSockets per account; 0 = no limit.
    pub max_connections_per_user: usize,
}

/// What a new limit of a connection applies to.
const NEW_CONNECTIONS: &str = "connections that start from then on";

/// What a new limit of messages applies to.
const NEW_MESSAGES: &str = "new connections, and open ones within a third of `WEBSOCKET_TIMEOUT`; members that sent \
                            `\"features\":[\"limits\"]` are told";

const RATE_LIMIT_PER_MINUTE: Setting<u32> =
    Setting::new("RATE_LIMIT_PER_MINUTE", "60", |text| number(text, 0..=u32::MAX))
        .accepts("a whole number; 0 = no limit")
        .reloadable("every request; a new limit starts with full buckets")
        .help(
            "HTTP requests per minute for each client address. The bucket holds one minute's worth, so an idle \
             client may burst to twice the rate in the first minute. `/health` and WebSockets are not counted.",
        );

const JOINS_PER_MINUTE: Setting<u32> =
    Setting::new("JOINS_PER_MINUTE", "60", |text| number(text, 0..=1_000_000))
        .accepts("a whole number from 0 to 1000000; 0 = no limit on joins, of addresses neither")
        .reloadable("every join")
        .help(
            "Joins per minute for each account, of which half may come at once. All guests of one address are one \
             account. Each address may join `MAX_CONNECTIONS_PER_IP` times a minute. A resume is not a join: \
             each membership may be resumed as often as an account may join, and all of an account ten times as often. \
             An account reports ten times as many calls as it may join.",
        );

const WEBSOCKET_MESSAGES_PER_SECOND: Setting<u32> =
    Setting::new("WEBSOCKET_MESSAGES_PER_SECOND", "50", |text| number(text, 1..=1_000_000))
        .accepts(FROM_ONE)
        .reloadable(NEW_MESSAGES)
        .help(
            "Messages per second on each connection, sustained. Pings, Pongs that answer no Ping of the server, and \
             fragments of less than 1 KiB count as messages. A client that reconnects to a room continues with the \
             budget of its closed connection.",
        );

const WEBSOCKET_MESSAGE_BURST: Setting<u32> =
    Setting::new("WEBSOCKET_MESSAGE_BURST", "250", |text| number(text, 1..=1_000_000))
        .accepts(FROM_ONE)
        .reloadable(NEW_MESSAGES)
        .help("Messages that a connection may send at once.");

const WEBSOCKET_BYTES_PER_SECOND: Setting<u32> =
    Setting::new("WEBSOCKET_BYTES_PER_SECOND", "1048576", |text| number(text, 1024..=1_000_000_000))
        .accepts("a number of bytes from 1024 to 1000000000")
        .reloadable(NEW_MESSAGES)
        .help(
            "Bytes of messages per second on each connection, sustained. The bytes of 16 seconds may come at once. The \
             budget is kept and exceeded as that of `WEBSOCKET_MESSAGES_PER_SECOND`.",
        );

const WEBSOCKET_TIMEOUT: Setting<Duration> =
    Setting::new("WEBSOCKET_TIMEOUT", "30", |text| seconds(text, UP_TO_A_MILLION))
        .accepts(FROM_ONE)
        .reloadable(NEW_CONNECTIONS)
        .help(
            "Seconds until the first message must arrive, and seconds of silence after which a connection is closed.",
        );

const WEBSOCKET_MAX_MESSAGE_BYTES: Setting<usize> =
    Setting::new("WEBSOCKET_MAX_MESSAGE_BYTES", "65536", |text| number(text, 1024..=16_777_216))
        .accepts("a number of bytes from 1024 to 16777216")
        .reloadable(NEW_MESSAGES)
        .help(
            "Size of the largest message in bytes. A larger one is discarded and answered with an error; one of more \
             than four times the size closes the connection. Where no guests are allowed, the first message of a \
             connection is at most 16 KiB.",
        );

const MAX_CONNECTIONS_PER_ROOM: Setting<usize> =
    Setting::new("MAX_CONNECTIONS_PER_ROOM", "10", |text| number(text, 1..=1_000_000))
        .accepts(FROM_ONE)
        .reloadable("clients that join from then on; members stay")
        .help("Members of a room.");

const MAX_CONNECTIONS_PER_IP: Setting<usize> =
    Setting::new("MAX_CONNECTIONS_PER_IP", "100", |text| number(text, 0..=usize::MAX))
        .accepts("a whole number; 0 = no limit")
        .reloadable("connections that start from then on; open ones stay")
        .help(
            "WebSockets for each client address. An address that is no trusted proxy opens at most 512 connections a minute, \
             and four for each of these.",
        );

const MAX_CONNECTIONS_PER_USER: Setting<usize> =
    Setting::new("MAX_CONNECTIONS_PER_USER", "0", |text| number(text, 0..=usize::MAX))
        .accepts("a whole number; 0 = no limit")
        .example("50")
        .reloadable("clients that join from then on; members stay")
        .help(
            "WebSockets for each account on this server. A resume is never refused for it, and guests are counted by \
             address alone.",
        );

pub(super) const SECTION: Section = Section {
    title: "Limits",
    settings: &[
        RATE_LIMIT_PER_MINUTE.declaration,
        JOINS_PER_MINUTE.declaration,
        WEBSOCKET_MESSAGES_PER_SECOND.declaration,
        WEBSOCKET_MESSAGE_BURST.declaration,
        WEBSOCKET_BYTES_PER_SECOND.declaration,
        WEBSOCKET_TIMEOUT.declaration,
        WEBSOCKET_MAX_MESSAGE_BYTES.declaration,
        MAX_CONNECTIONS_PER_ROOM.declaration,
        MAX_CONNECTIONS_PER_IP.declaration,
        MAX_CONNECTIONS_PER_USER.declaration,
    ],
};

impl ReloadableLimits {
    /// How many detached members an account may have: as many as connections, since all may be lost at once.
    pub fn max_detached_per_user(&self) -> usize {
        match self.max_connections_per_user {
            0 => self.max_connections_per_ip,
            limit => limit,
        }
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        Self {
            requests_per_minute: reader.get(&RATE_LIMIT_PER_MINUTE),
            joins_per_minute: reader.get(&JOINS_PER_MINUTE),
            messages_per_second: reader.get(&WEBSOCKET_MESSAGES_PER_SECOND),
            message_burst: reader.get(&WEBSOCKET_MESSAGE_BURST),
            bytes_per_second: reader.get(&WEBSOCKET_BYTES_PER_SECOND),
            websocket_timeout: reader.get(&WEBSOCKET_TIMEOUT),
            max_message_bytes: reader.get(&WEBSOCKET_MAX_MESSAGE_BYTES),
            max_connections_per_room: reader.get(&MAX_CONNECTIONS_PER_ROOM),
            max_connections_per_ip: reader.get(&MAX_CONNECTIONS_PER_IP),
            max_connections_per_user: reader.get(&MAX_CONNECTIONS_PER_USER),
        }
    }
}
