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

/// No rooms yet: of this server alone, or shared.
pub(super) fn open_rooms(
    config: &Config,
    node: Arc<str>,
    webhooks: &Webhooks,
    revoked: &Arc<RevokedTokens>,
    grants: &TokenSessions,
    lockouts: &Arc<Mutex<Lockouts>>,
    orders: &Arc<ModerationRules>,
) -> (RoomRegistry, Option<(Cluster, MigratedMembers)>) {
    if config.redis_urls.is_empty() {
        let rooms =
            RoomRegistry::new(config.max_connections_per_room).with_timelines(config.timelines);
        return (rooms.with_webhooks(webhooks.clone()), None);
    }
    #[expect(clippy::expect_used, reason = "Config::read refuses others")]
    let ways = cluster::parse_endpoints(&config.redis_urls, config.redis_authority.as_deref())
        .expect("URLs and a certificate that were looked at");
    let (far, asked, arrivals) = ClusterGateway::new(node, ways.len());
    let far = Arc::new(far);
    let rooms = RoomRegistry::clustered(config.max_connections_per_room, far.clone());
    let rooms = rooms.with_timelines(config.timelines).with_webhooks(webhooks.clone());
    let (ours, theirs, grants) = (revoked.clone(), revoked.clone(), grants.clone());
    let lockouts = lockouts.clone();
    let (told, heard, said) = (orders.clone(), (orders.clone(), rooms.clone()), rooms.clone());
    let accounts = ReplicatedState {
        ordered: Box::new(move |line| {
            let Some(order) = ModerationRule::parse(line) else {
                tracing::warn!("an order of another server is passed over");
                return true;
            };
            let is_remembered = order.retained_until() > unix_now();
            if is_remembered {
                moderation::apply_rule(&heard.0, &heard.1, order);
            }
            is_remembered
        }),
        orders: Box::new(move || told.all().iter().map(ModerationRule::to_line).collect()),
        announced: Box::new(move |announcement| {
            moderation::deliver_announcement(&said, announcement)
        }),
        logged_out: Box::new(move |line| {
            if let Some((username, fingerprint)) = theirs.insert_line(line) {
                grants.end_token(&username, fingerprint);
            }
        }),
        logouts: Box::new(move || ours.lines()),
        attempted: Box::new(move |attempt| {
            if let Ok(attempt) = serde_json::from_str(attempt) {
                let mut lockouts = lockouts.lock().unwrap_or_else(PoisonError::into_inner);
                lockouts.record(&attempt, Instant::now());
            }
        }),
    };
    let cluster = Cluster::start(ways, &rooms, far, asked, accounts, webhooks);
    (rooms, Some((cluster, arrivals)))
}
