//! A signaling server for WebRTC: two browsers that want a call exchange offers, answers and ICE
//! candidates through it.
//!
//! Read in this order: [`protocol`] (what clients and server send each other), [`rooms`] (who receives it), [`delivery`] (how it
//! gets there), [`cluster`] (where there are several servers), [`session`] (one connection's life),
//! [`auth`], [`moderation`] and [`limits`] (who may), [`turn`] (relay credentials), [`net`] (sockets), [`state`] (what handlers share),
//! [`http`] (routes) and [`config`] (settings).

#![cfg_attr(
    test,
    allow(
        clippy::wildcard_enum_match_arm,
        clippy::wrong_self_convention,
        reason = "a test panics on the rest"
    )
)]

pub mod auth;
pub mod cli;
pub mod client_ip;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod delivery;
pub mod doctor;
pub mod http;
pub mod http_client;
pub mod intervals;
pub mod issuer;
pub mod limits;
pub mod memory;
pub mod metrics;
pub mod migration;
pub mod moderation;
pub mod net;
pub mod peer;
pub mod protocol;
pub mod rooms;
pub mod session;
pub mod state;
pub mod storage;
pub mod telemetry;
pub mod timeline;
pub mod tls;
pub mod turn;
pub mod webhooks;
pub mod websocket;
