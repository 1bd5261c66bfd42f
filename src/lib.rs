//! A signaling server for WebRTC: two browsers that want a call exchange offers, answers and ICE
//! candidates through it.
//!
//! Read in this order: [`wire`] (what is said), [`rooms`] (who hears it), [`outbox`] and [`replay`] (how it
//! gets there), [`cluster`] (where there are several servers), [`session`] (one connection's life),
//! [`auth`], [`moderation`] and [`limits`] (who may), [`turn`] (relay credentials), [`http`] (the doors), [`app`], [`server`]
//! and [`config`] (the house).

#![cfg_attr(
    test,
    allow(
        clippy::wildcard_enum_match_arm,
        clippy::wrong_self_convention,
        reason = "a test panics on the rest"
    )
)]

pub mod app;
pub mod auth;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod doctor;
pub mod dotenv;
pub mod forwarded;
pub mod frames;
pub mod http;
pub mod http_client;
pub mod limits;
pub mod metrics;
pub mod migration;
pub mod moderation;
pub mod outbox;
pub mod peer;
pub mod process;
pub mod relays;
pub mod replay;
pub mod rooms;
pub mod server;
pub mod session;
pub mod state_file;
pub mod telemetry;
pub mod timeline;
pub mod tls;
pub mod traces;
pub mod trust;
pub mod turn;
pub mod watched;
pub mod webhooks;
pub mod websocket;
pub mod wire;
pub mod workers;
