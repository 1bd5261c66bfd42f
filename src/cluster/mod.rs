//! Rooms that several nodes share: Redis holds the members of each room, and an inbox for each node.
//!
//! Every change of membership is one script, which changes the room and, in the same step, writes the event into the inbox
//! of each node that has members there. What a node knows is the sum of its inbox. `scripts/README.md` lists keys and fields.
//!
//! - [`gateway`]: what rooms ask of the other nodes ([`Backend`](crate::rooms::Backend)), and what they are told; knows no
//!   Redis command. `backend` implements the trait, `pending` is what waits for an answer, `evictions` ends dead memberships,
//!   `events` applies what has happened, `messages` are the values.
//! - `link`: the connections to one Redis, for as long as the process lives: `resync` states what is true, `inbox` reads,
//!   `commands` writes, `heartbeat` renews the lease. `connection` is one of them.
//! - `codec`: entries of an inbox; `scripts`: the scripts, and their calls; `webhooks`: events that scripts have numbered.
//! - `receipts`: which signals have arrived on other nodes, and which have to be answered.
//! - `queries`: what REST and moderation ask of Redis; `replicated_state`: what is the same on every node beside rooms.
//! - `redis_url`, `endpoint`, `redis_cluster`, `sharding`: where a Redis is, and which of several a room belongs to; `keys`: the names of the keys
//!   of one; `outage`: one that cannot be used; `probe`, `refusal`: what `doctor` finds of one.

mod backend;
mod checks;
mod codec;
mod commands;
mod connection;
mod endpoint;
mod events;
mod evictions;
pub mod gateway;
mod heartbeat;
pub mod identity;
mod inbox;
mod keys;
mod link;
pub mod messages;
mod outage;
mod pending;
mod probe;
mod queries;
mod reach;
pub mod receipts;
mod redis_cluster;
mod redis_url;
mod refusal;
mod registration;
mod replicated_state;
mod resync;
mod scripts;
mod sharding;
mod webhooks;

use std::sync::Arc;

pub use self::{
    endpoint::RedisEndpoint,
    gateway::{ClusterGateway, GatewayQueues, MigratedMembers},
    identity::{NodeFacts, NodeIdentity, deployment_fingerprint},
    probe::{OtherServers, RedisInfo, RedisProbe},
    redis_url::{RedisUrlError, RedisUrlProblem, parse_endpoints},
    refusal::{Refusal, RefusalReason},
    replicated_state::ReplicatedState,
};

use self::link::EngineLink;
use crate::{rooms::RoomRegistry, webhooks::Webhooks};

/// Connects, and stays connected, to the Redis at each endpoint. `rooms` are those whose backend `gateway` is, and `queues` came
/// with it; `webhooks` get the events that this node has caused. To Redis the node is `identity`.
pub fn start(
    gateway: &Arc<ClusterGateway>,
    queues: GatewayQueues,
    endpoints: Vec<RedisEndpoint>,
    rooms: &RoomRegistry,
    replicated: Arc<dyn ReplicatedState>,
    webhooks: &Webhooks,
    identity: NodeIdentity,
) {
    let identity = Arc::new(identity);
    for (number, (endpoint, commands)) in endpoints.into_iter().zip(queues.commands).enumerate() {
        let link = EngineLink::new(number, gateway, rooms, &replicated, webhooks, &identity);
        tokio::spawn(link.run(endpoint, commands));
    }
    tokio::spawn(queries::publish_auth_events(gateway.clone(), queues.auth_events));
}
