//! How a node connects to a Redis: it says who it is, and is taken or refused.

use redis::{ErrorKind, RedisError};
use tokio::time::Instant;

use super::{connection::RedisConnection, identity::NodeFacts, link::EngineLink, scripts::call};

/// A node that Redis has taken.
pub(super) struct Registration {
    /// Whether its inbox is the one that it has read from before.
    pub(super) is_known: bool,
    /// The id of the last entry of its inbox.
    pub(super) hello: String,
    /// The rooms in which Redis thinks that it has members.
    pub(super) rooms: Vec<String>,
}

impl EngineLink {
    /// Registers this node.
    ///
    /// # Errors
    ///
    /// Those of the connection; and that another process has the name of this node, or that another deployment is here.
    pub(super) async fn register(
        &self,
        writer: &mut RedisConnection,
        run_id: &str,
    ) -> Result<Registration, RedisError> {
        let identity = &self.identity;
        let mut register = call(&self.keys, &self.gateway.scripts.register);
        register.arg(&*self.gateway.node).arg(run_id).arg(&identity.process);
        register.arg(identity.facts_json()).arg(&identity.fingerprint);
        register.arg(u8::from(self.position().is_some()));
        let (status, hello, rooms, nodes): (String, String, Vec<String>, Vec<String>) =
            register.query_async(writer).await?;
        match status.as_str() {
            "taken" => return Err(self.name_taken_error()),
            "foreign" => return Err(foreign_deployment_error()),
            _ => {}
        }
        *self.refused_since.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = None;
        self.registration().clone_from(&hello);
        self.log_differences(&nodes);
        Ok(Registration { is_known: status == "known", hello, rooms })
    }

    /// What a fault that heartbeat.lua returns means; nothing where it returns none.
    pub(super) fn heartbeat_fault(&self, fault: &str) -> Option<RedisError> {
        match fault {
            "" => None,
            "replaced" => Some(self.name_taken_error()),
            "foreign" => Some(foreign_deployment_error()),
            "lost" | "overrun" => {
                // No place to go on from.
                *self.position() = None;
                Some(super::inbox::inbox_overrun_error())
            }
            _ => Some(super::link::lease_lost_error()),
        }
    }

    /// Another process has the name of this node. Where that is so for two leases, its lease was renewed: this one gives up.
    fn name_taken_error(&self) -> RedisError {
        let mut since =
            self.refused_since.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let since = *since.get_or_insert_with(Instant::now);
        if since.elapsed() >= self.gateway.timings.lease * 2 {
            self.gateway.give_up(format!(
                "another running server has the name {:?}: give each server a NODE_ID of its own, or none",
                self.gateway.node
            ));
        }
        let text = "another server has the NODE_ID of this one, and its lease is not over";
        (ErrorKind::Client, text).into()
    }

    /// Warns once of each other node with other settings.
    fn log_differences(&self, nodes: &[String]) {
        let mut known = self.differences.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for facts in nodes.iter().filter_map(|entry| NodeFacts::parse_entry(entry)) {
            let settings = self.identity.facts.differences(&facts).join(", ");
            if !settings.is_empty() && known.insert((facts.node.clone(), settings.clone())) {
                tracing::warn!(node = facts.node, settings, "another server has other settings");
            }
        }
    }
}

fn foreign_deployment_error() -> RedisError {
    let text = "servers with another SECRET_KEY use this database; give each deployment a database of its own, such as redis://host:6379/1";
    (ErrorKind::Client, text).into()
}
