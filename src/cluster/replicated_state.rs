//! What is the same on every node beside rooms: logouts, login attempts, moderation rules, announcements.

/// State of this node that the others share, in the texts that travel between nodes.
pub trait ReplicatedState: Send + Sync {
    /// Applies a logout that was made on another node, or on this one.
    fn apply_logout(&self, line: &str);

    /// All logouts that this node knows.
    fn logouts(&self) -> Vec<String>;

    /// Applies a login attempt that was made on another node.
    fn apply_auth_event(&self, event: &str);

    /// Applies a moderation rule that was made on another node, or on this one; whether it is still to be remembered.
    fn apply_rule(&self, rule: &str) -> bool;

    /// All moderation rules that this node knows.
    fn rules(&self) -> Vec<String>;

    /// Delivers an announcement of another node's administrator to the members here.
    fn deliver_announcement(&self, announcement: &str);
}
