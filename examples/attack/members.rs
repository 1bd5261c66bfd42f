//! Honest members: pairs in calls that exchange numbered messages, and notice whatever happens to them.

use std::{
    fmt,
    net::Ipv4Addr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde_json::json;
use tokio::{
    sync::oneshot,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval},
};

use crate::clients::{RawSocket, Target, TestError, user};

/// Pairs of members, each in a room of its own.
const PAIRS: usize = 25;

/// How often a member sends.
const PACE: Duration = Duration::from_millis(100);

/// The first account of the honest members.
pub const FIRST_ACCOUNT: usize = 300;

pub struct HonestMembers {
    observed: Arc<Mutex<Observed>>,
}

#[derive(Default)]
struct Observed {
    latencies: Vec<Duration>,
    sent: u64,
    lost: u64,
    disconnected: u64,
}

/// What the members have noticed since the last report.
pub struct Report {
    p50: Duration,
    pub p99: Duration,
    max: Duration,
    sent: u64,
    pub lost: u64,
    pub disconnected: u64,
}

impl HonestMembers {
    /// Lets the members join, on a thread of their own: what they notice is the server's doing, not that of the attackers
    /// beside them in this program.
    pub async fn join(target: Arc<Target>) -> Result<Self, TestError> {
        let observed = Arc::<Mutex<Observed>>::default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (joined, wait_for_join) = oneshot::channel();
        let talking = Self::talk(target, observed.clone(), joined);
        std::thread::spawn(move || runtime.block_on(talking));
        wait_for_join.await??;
        Ok(Self { observed })
    }

    async fn talk(
        target: Arc<Target>,
        observed: Arc<Mutex<Observed>>,
        joined: oneshot::Sender<Result<(), TestError>>,
    ) {
        let mut tasks = JoinSet::new();
        let result = Self::begin(&target, &observed, &mut tasks).await;
        let _ = joined.send(result);
        while tasks.join_next().await.is_some() {}
    }

    async fn begin(
        target: &Target,
        observed: &Arc<Mutex<Observed>>,
        tasks: &mut JoinSet<()>,
    ) -> Result<(), TestError> {
        for pair in 0..PAIRS {
            let room = format!("call{pair}");
            let from = Ipv4Addr::new(127, 1, 0, u8::try_from(pair + 1)?);
            let mut members = Vec::new();
            for side in 0..2 {
                let name = user(FIRST_ACCOUNT + 2 * pair + side);
                members.push(RawSocket::join(target, from, &room, &name, json!([])).await?.0);
            }
            for member in members {
                tasks.spawn(converse(member, observed.clone()));
            }
        }
        Ok(())
    }

    pub fn take_report(&mut self) -> Report {
        let Observed { mut latencies, sent, lost, disconnected } =
            std::mem::take(&mut *lock(&self.observed));
        latencies.sort_unstable();
        let at = |share: f64| {
            let index = (latencies.len() as f64 * share) as usize;
            latencies
                .get(index.min(latencies.len().saturating_sub(1)))
                .copied()
                .unwrap_or(Duration::MAX)
        };
        Report { p50: at(0.5), p99: at(0.99), max: at(1.0), sent, lost, disconnected }
    }
}

/// Sends a number at every turn, with the time; the other member's numbers must come one after the other.
async fn converse(mut member: RawSocket, observed: Arc<Mutex<Observed>>) {
    let epoch = *EPOCH;
    let mut pace = interval(PACE);
    // Each member keeps its phase: members that send at the same moment wait for each other.
    pace.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let (mut number, mut expected) = (0_u64, None);
    loop {
        let result = tokio::select! {
            _ = pace.tick() => {
                number += 1;
                lock(&observed).sent += 1;
                let sent_at = epoch.elapsed().as_micros() as u64;
                member.send(&json!({"type":"message","data":[number, sent_at]})).await
            }
            received = member.receive() => received.map(|message| {
                let data = &message["data"];
                let (Some(heard), Some(sent_at)) = (data[0].as_u64(), data[1].as_u64()) else { return };
                let latency = epoch.elapsed().saturating_sub(Duration::from_micros(sent_at));
                let mut observed = lock(&observed);
                observed.latencies.push(latency);
                // Before the first message of the other, some may have been sent to an empty room.
                observed.lost += expected.map_or(0, |expected: u64| heard.abs_diff(expected));
                expected = Some(heard + 1);
            }),
        };
        if result.is_err() {
            lock(&observed).disconnected += 1;
            return;
        }
    }
}

static EPOCH: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);

fn lock(observed: &Mutex<Observed>) -> std::sync::MutexGuard<'_, Observed> {
    observed.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |duration: Duration| duration.as_secs_f64() * 1000.0;
        let Self { p50, p99, max, sent, lost, disconnected } = self;
        let (p50, p99, max) = (ms(*p50), ms(*p99), ms(*max));
        write!(f, "{p50:>8.2} {p99:>8.2} {max:>8.1} {sent:>6} {lost:>8} {disconnected:>4}")
    }
}
