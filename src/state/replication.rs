//! Opens the room registry, of this node alone or shared, and applies what other nodes replicate.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

use super::{login::end_revoked, moderation};
use crate::{
    auth::{
        revocation::{Revocation, RevokedTokens},
        token_sessions::TokenSessions,
    },
    clock::unix_now,
    cluster::{self, ClusterGateway, MigratedMembers, NodeIdentity, ReplicatedState},
    config::Config,
    limits::Lockouts,
    memory::MemoryBudget,
    moderation::{ModerationRule, ModerationRules},
    rooms::RoomRegistry,
    webhooks::Webhooks,
};

/// An empty registry, of this node alone or shared with the nodes of `REDIS_URL`: the one place that chooses between the
/// two.
pub(super) fn open_rooms(
    config: &Config,
    node: Arc<str>,
    webhooks: &Webhooks,
    memory: &MemoryBudget,
    state: NodeState,
) -> (RoomRegistry, Option<MigratedMembers>) {
    let Config { startup, reloadable } = config;
    let capacity = reloadable.limits.max_connections_per_room;
    let retention = startup.rooms.timeline_retention;
    if startup.cluster.redis_urls.is_empty() {
        let rooms = RoomRegistry::new(capacity).with_memory(memory.clone());
        return (rooms.with_timelines(retention).with_webhooks(webhooks.clone()), None);
    }
    #[expect(clippy::expect_used, reason = "Config::read refuses others")]
    let endpoints = cluster::parse_endpoints(
        &startup.cluster.redis_urls,
        startup.cluster.redis_authority.as_deref(),
    )
    .expect("the URLs and the certificate were checked");
    let (gateway, queues, migrated) =
        ClusterGateway::new(node, endpoints.len(), startup.intervals.cluster);
    let rooms = RoomRegistry::with_backend(capacity, gateway.clone()).with_memory(memory.clone());
    let rooms = rooms.with_timelines(retention).with_webhooks(webhooks.clone());
    let state = Arc::new(ClusteredState { state, rooms: rooms.clone() });
    let fingerprint = cluster::deployment_fingerprint(&startup.auth.secret_key);
    let timings = startup.intervals.cluster;
    let identity =
        NodeIdentity::new(fingerprint, &gateway.node, timings, endpoints.len(), capacity);
    cluster::start(&gateway, queues, endpoints, &rooms, state, webhooks, identity);
    (rooms, Some(migrated))
}

/// State of this node that the others share.
pub(super) struct NodeState {
    pub(super) revoked_tokens: Arc<RevokedTokens>,
    pub(super) token_sessions: TokenSessions,
    pub(super) lockouts: Arc<Mutex<Lockouts>>,
    pub(super) moderation_rules: Arc<ModerationRules>,
}

/// The same, with the rooms that moderation rules and announcements are about.
pub(super) struct ClusteredState {
    pub(super) state: NodeState,
    pub(super) rooms: RoomRegistry,
}

impl ReplicatedState for ClusteredState {
    fn apply_logout(&self, line: &str) {
        if let Some(revocation) = Revocation::parse(line) {
            let NodeState { revoked_tokens, token_sessions, .. } = &self.state;
            end_revoked(revoked_tokens, token_sessions, &revocation);
        }
    }

    fn logouts(&self) -> Vec<String> {
        self.state.revoked_tokens.lines()
    }

    fn apply_auth_event(&self, event: &str) {
        if let Ok(event) = serde_json::from_str(event) {
            let mut lockouts = self.state.lockouts.lock().unwrap_or_else(PoisonError::into_inner);
            lockouts.record(&event, Instant::now());
        }
    }

    fn apply_rule(&self, rule: &str) -> bool {
        let Some(rule) = ModerationRule::parse(rule) else {
            tracing::warn!("moderation rule of another server skipped");
            return true;
        };
        let is_remembered = rule.retained_until() > unix_now();
        if is_remembered {
            moderation::apply_rule(&self.state.moderation_rules, &self.rooms, rule);
        }
        is_remembered
    }

    fn rules(&self) -> Vec<String> {
        let rules = self.state.moderation_rules.all();
        rules.iter().map(ModerationRule::to_replicated_line).collect()
    }

    fn deliver_announcement(&self, announcement: &str) {
        moderation::deliver_announcement(&self.rooms, announcement);
    }
}
