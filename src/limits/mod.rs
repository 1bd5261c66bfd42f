//! Limits: failed logins, connections, concurrent sockets, HTTP requests, joins, messages, moderation rules. Pure decisions: `now` is an argument.

mod account;
mod bucket_table;
mod concurrency;
mod connection_rate;
mod fair_queue;
mod http_rate;
mod join_rate;
mod key_fetch_rate;
mod lockout;
mod message_budgets;
mod message_rate;
mod refusals;
mod resume_slots;
mod rule_rate;
mod token_bucket;

pub use account::AccountKey;
pub use concurrency::{ConcurrencyLimiter, Permit};
pub use connection_rate::ConnectionRateLimiter;
pub use fair_queue::{FairQueue, Pushed};
pub use http_rate::{HttpRateLimiter, RateDecision};
pub use join_rate::JoinRateLimiter;
pub use key_fetch_rate::KeyFetchRateLimiter;
pub use lockout::{AuthEvent, Lockouts};
pub use message_budgets::{MessageBudget, MessageBudgets};
pub use message_rate::{ExceededRate, MessageRate, MessageRateLimiter, RateVerdict};
pub use refusals::{
    RefusalKind, count_fault, count_refusal, log_counted_refusals, log_refusal, log_refusal_in_span,
};
pub use resume_slots::{NoSlot, ResumeSlot, ResumeSlots};
pub use rule_rate::RuleRateLimiter;

use std::net::{IpAddr, Ipv6Addr};

/// How many addresses or usernames a table of failures or of requests may hold. Limits on each address do not stop a
/// client that has more addresses than this.
const MAX_TABLE_ENTRIES: usize = 100_000;

/// What counts as one address: an IPv4 address, or an IPv6 /64, which one household gets.
pub fn address_key(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
    }
}
