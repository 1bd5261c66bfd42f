//! Opens the room registry, of this node alone or shared, and applies what other nodes replicate.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

use super::moderation;
use crate::{
    auth::{revocation::RevokedTokens, token_sessions::TokenSessions},
    clock::unix_now,
    cluster::{self, Cluster, ReplicatedState},
    config::Config,
    limits::Lockouts,
    moderation::{ModerationRule, ModerationRules},
    rooms::{
        RoomRegistry,
        far::{ClusterGateway, MigratedMembers},
    },
    webhooks::Webhooks,
};

/// An empty registry, of this node alone or shared with the nodes of `REDIS_URL`.
pub(super) fn open_rooms(
    config: &Config,
    node: Arc<str>,
    webhooks: &Webhooks,
    revoked: &Arc<RevokedTokens>,
    token_sessions: &TokenSessions,
    lockouts: &Arc<Mutex<Lockouts>>,
    rules: &Arc<ModerationRules>,
) -> (RoomRegistry, Option<(Cluster, MigratedMembers)>) {
    let Config { startup, reloadable } = config;
    let capacity = reloadable.limits.max_connections_per_room;
    if startup.cluster.redis_urls.is_empty() {
        let rooms = RoomRegistry::new(capacity).with_timelines(startup.rooms.timeline_retention);
        return (rooms.with_webhooks(webhooks.clone()), None);
    }
    #[expect(clippy::expect_used, reason = "Config::read refuses others")]
    let endpoints = cluster::parse_endpoints(
        &startup.cluster.redis_urls,
        startup.cluster.redis_authority.as_deref(),
    )
    .expect("the URLs and the certificate were checked");
    let (gateway, commands, migrated) =
        ClusterGateway::new(node, endpoints.len(), startup.intervals.cluster);
    let gateway = Arc::new(gateway);
    let rooms = RoomRegistry::clustered(capacity, gateway.clone());
    let rooms =
        rooms.with_timelines(startup.rooms.timeline_retention).with_webhooks(webhooks.clone());
    let (local, replicated, sessions) = (revoked.clone(), revoked.clone(), token_sessions.clone());
    let lockouts = lockouts.clone();
    let (all_rules, applied, announced) =
        (rules.clone(), (rules.clone(), rooms.clone()), rooms.clone());
    let replicated_state = ReplicatedState {
        ordered: Box::new(move |line| {
            let Some(rule) = ModerationRule::parse(line) else {
                tracing::warn!("an order of another server is passed over");
                return true;
            };
            let is_retained = rule.retained_until() > unix_now();
            if is_retained {
                moderation::apply_rule(&applied.0, &applied.1, rule);
            }
            is_retained
        }),
        orders: Box::new(move || all_rules.all().iter().map(ModerationRule::to_line).collect()),
        announced: Box::new(move |announcement| {
            moderation::deliver_announcement(&announced, announcement)
        }),
        logged_out: Box::new(move |line| {
            if let Some((username, fingerprint)) = replicated.insert_line(line) {
                sessions.end_token(&username, fingerprint);
            }
        }),
        logouts: Box::new(move || local.lines()),
        attempted: Box::new(move |event| {
            if let Ok(event) = serde_json::from_str(event) {
                let mut lockouts = lockouts.lock().unwrap_or_else(PoisonError::into_inner);
                lockouts.record(&event, Instant::now());
            }
        }),
    };
    let cluster = Cluster::start(endpoints, &rooms, gateway, commands, replicated_state, webhooks);
    (rooms, Some((cluster, migrated)))
}
