//! The counters of what is held, the accounts with their shares, and the charges by which holders are counted.

use std::{
    collections::HashMap,
    fmt,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    thread::Thread,
};

use strum::{EnumCount, IntoStaticStr, VariantArray};

/// What an account may hold at least, in bytes, however small the budget is.
pub const MIN_ACCOUNT_SHARE: usize = 8 << 20;

/// What all unauthenticated connections together may hold at least, in bytes.
pub const MIN_UNAUTHENTICATED_SHARE: usize = 16 << 20;

/// A holder with less than this, in bytes, is never shed because it grows.
const SMALL_HOLDER: usize = 64 << 10;

/// What memory is held for (label `kind` of `signaling_memory_held_bytes`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumCount, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum MemoryKind {
    /// Frames in send queues.
    SendQueues,
    /// The rest of frames that were written in part.
    UnsentRemainders,
    /// Frames that are kept until a client acknowledges them, and are in no send queue.
    ReplayBuffers,
    /// Frames, messages and TLS records of clients that have arrived in part, and TLS records that were sent in part.
    PartialFrames,
    /// HTTP requests that have arrived in part, or are being answered.
    PartialRequests,
    /// Timelines of rooms.
    Timelines,
    /// Events that wait for receivers of webhooks.
    WebhookQueues,
}

/// Whose share a holder counts against.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum MemoryAccount {
    /// The account of this username.
    User(Arc<str>),
    /// All guests of one address.
    GuestsOf(IpAddr),
}

/// Frees memory that is held for a client.
pub trait Shed: Send + Sync {
    /// Frees what it can at once, and ends the connection. Returns whether nothing will be held again.
    fn shed(&self) -> bool;
}

/// Whether what is held may grow as it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Growth {
    /// It fits.
    Fits,
    /// The budget, or twice the account's share, is exceeded: the holder has to be shed at once.
    Excessive,
}

/// The budget of one server. Clones share it; the default has no limit.
#[derive(Clone)]
pub struct MemoryBudget {
    pub(super) state: Arc<BudgetState>,
    /// Stands for the server itself, which holds what is held for no client in particular.
    server: Arc<MemoryHolder>,
}

pub(super) struct BudgetState {
    limit: usize,
    held: AtomicUsize,
    by_kind: [AtomicUsize; MemoryKind::COUNT],
    unauthenticated: Arc<AccountUsage>,
    accounts: Mutex<HashMap<MemoryAccount, Weak<AccountUsage>>>,
    /// How many holders were shed.
    shed: AtomicU64,
    /// More is held than allowed, and the guard has not looked at it yet.
    pub(super) is_exceeded: AtomicBool,
    pub(super) guard: OnceLock<Thread>,
}

/// What one account holds, on all its connections.
pub(super) struct AccountUsage {
    pub(super) share: usize,
    held: AtomicUsize,
    holders: Mutex<Vec<Weak<MemoryHolder>>>,
}

/// A connection or membership that holds memory. It counts as unauthenticated until it is assigned to an account.
pub struct MemoryHolder {
    budget: Arc<BudgetState>,
    account: OnceLock<Arc<AccountUsage>>,
    held: AtomicUsize,
    is_shed: AtomicBool,
    shed: OnceLock<Weak<dyn Shed>>,
}

/// So many bytes of a kind, counted for a holder until this is dropped.
pub struct Charge {
    /// `None` where nothing is counted.
    holder: Option<Arc<MemoryHolder>>,
    kind: MemoryKind,
    bytes: usize,
}

impl fmt::Debug for MemoryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBudget").field("limit", &self.limit()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Charge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Charge").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl Default for MemoryBudget {
    fn default() -> Self {
        Self::new(usize::MAX)
    }
}

impl MemoryBudget {
    /// A budget of `limit` bytes.
    pub fn new(limit: usize) -> Self {
        let state = Arc::new(BudgetState {
            limit,
            held: AtomicUsize::new(0),
            by_kind: Default::default(),
            unauthenticated: AccountUsage::new((limit / 16).max(MIN_UNAUTHENTICATED_SHARE)),
            accounts: Mutex::default(),
            shed: AtomicU64::new(0),
            is_exceeded: AtomicBool::new(false),
            guard: OnceLock::new(),
        });
        let server = MemoryHolder::new(state.clone());
        let _ = server.account.set(AccountUsage::new(usize::MAX));
        Self { state, server: Arc::new(server) }
    }

    /// How many bytes may be held.
    pub fn limit(&self) -> usize {
        self.state.limit
    }

    /// How many bytes are held.
    pub fn held(&self) -> usize {
        self.state.held.load(Relaxed)
    }

    /// How many bytes of each kind are held.
    pub fn held_by_kind(&self) -> impl Iterator<Item = (MemoryKind, usize)> {
        let held = self.state.by_kind.iter().map(|bytes| bytes.load(Relaxed));
        MemoryKind::VARIANTS.iter().copied().zip(held)
    }

    /// How many holders were disconnected because too much was held.
    pub fn shed_count(&self) -> u64 {
        self.state.shed.load(Relaxed)
    }

    /// Whether more than 95 % of the budget is held, so that nothing new is accepted.
    pub fn is_exhausted(&self) -> bool {
        self.held() > self.state.limit / 20 * 19
    }

    /// Whether an eighth of the budget or more is held of one kind, which is the most for those that are held for no client.
    pub fn is_eighth_used_by(&self, kind: MemoryKind) -> bool {
        let held = self.state.by_kind.get(kind as usize).map_or(0, |bytes| bytes.load(Relaxed));
        held >= self.state.limit / 8
    }

    /// A new unauthenticated connection.
    pub fn holder(&self) -> Arc<MemoryHolder> {
        let holder = Arc::new(MemoryHolder::new(self.state.clone()));
        self.state.unauthenticated.register(&holder);
        holder
    }

    /// Counts bytes that are held for no client in particular.
    pub fn server_charge(&self, kind: MemoryKind) -> Charge {
        self.server.charge(kind)
    }

    /// The accounts that have holders, and the one of all unauthenticated connections.
    pub(super) fn all_accounts(&self) -> Vec<Arc<AccountUsage>> {
        let mut all: Vec<_> = self.state.accounts().values().filter_map(Weak::upgrade).collect();
        all.push(self.state.unauthenticated.clone());
        all
    }
}

impl BudgetState {
    /// The account of a key, which exists as long as it has holders.
    fn account(&self, key: &MemoryAccount) -> Arc<AccountUsage> {
        let mut accounts = self.accounts();
        if let Some(account) = accounts.get(key).and_then(Weak::upgrade) {
            return account;
        }
        // When it would grow, so that accounts without holders cost no memory for long.
        if accounts.len() == accounts.capacity() {
            accounts.retain(|_, account| account.strong_count() > 0);
        }
        let account = AccountUsage::new((self.limit / 16).max(MIN_ACCOUNT_SHARE));
        accounts.insert(key.clone(), Arc::downgrade(&account));
        account
    }

    fn accounts(&self) -> MutexGuard<'_, HashMap<MemoryAccount, Weak<AccountUsage>>> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Above this, the largest holders are shed.
    pub(super) fn high_mark(&self) -> usize {
        self.limit / 5 * 4
    }

    fn report_excess(&self) {
        if !self.is_exceeded.swap(true, Relaxed)
            && let Some(guard) = self.guard.get()
        {
            guard.unpark();
        }
    }
}

impl AccountUsage {
    fn new(share: usize) -> Arc<Self> {
        Arc::new(Self { share, held: AtomicUsize::new(0), holders: Mutex::default() })
    }

    pub(super) fn held(&self) -> usize {
        self.held.load(Relaxed)
    }

    /// The holders that count against this account.
    pub(super) fn holders(&self) -> Vec<Arc<MemoryHolder>> {
        let known = self.lock_holders();
        known.iter().filter_map(Weak::upgrade).filter(|holder| holder.is_of(self)).collect()
    }

    fn register(&self, holder: &Arc<MemoryHolder>) {
        let mut known = self.lock_holders();
        // When it would grow, so that a connection costs a constant time however many came before it.
        if known.len() == known.capacity() {
            known.retain(|known| known.upgrade().is_some_and(|holder| holder.is_of(self)));
        }
        known.push(Arc::downgrade(holder));
    }

    fn lock_holders(&self) -> MutexGuard<'_, Vec<Weak<MemoryHolder>>> {
        self.holders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MemoryHolder {
    fn new(budget: Arc<BudgetState>) -> Self {
        Self {
            budget,
            account: OnceLock::new(),
            held: AtomicUsize::new(0),
            is_shed: AtomicBool::new(false),
            shed: OnceLock::new(),
        }
    }

    /// Counts bytes of a kind for this holder; none at first.
    pub fn charge(self: &Arc<Self>, kind: MemoryKind) -> Charge {
        Charge { holder: Some(self.clone()), kind, bytes: 0 }
    }

    /// From now on it counts against the account of `key`, with all that it holds. Only the first call has an effect: a
    /// connection has one account. No charge of an unassigned holder may change meanwhile on another thread.
    pub fn assign(self: &Arc<Self>, key: &MemoryAccount) {
        if self.account.get().is_some() {
            return;
        }
        let account = self.budget.account(key);
        if self.account.set(account.clone()).is_ok() {
            let held = self.held();
            account.held.fetch_add(held, Relaxed);
            self.budget.unauthenticated.held.fetch_sub(held, Relaxed);
            account.register(self);
        }
    }

    /// `shed` is what frees its memory. Only the first call has an effect.
    pub fn set_shed(&self, shed: Weak<dyn Shed>) {
        let _ = self.shed.set(shed);
    }

    /// How many bytes it holds.
    pub fn held(&self) -> usize {
        self.held.load(Relaxed)
    }

    /// Whether its memory was freed for good: what it still holds goes with its connection.
    pub fn is_shed(&self) -> bool {
        self.is_shed.load(Relaxed)
    }

    /// Frees its memory and disconnects its client; whether there was anything to free it.
    pub fn shed(&self) -> bool {
        let Some(shed) = self.shed.get().and_then(Weak::upgrade) else { return false };
        self.is_shed.store(true, Relaxed);
        self.budget.shed.fetch_add(1, Relaxed);
        if !shed.shed() {
            self.is_shed.store(false, Relaxed);
        }
        true
    }

    fn account(&self) -> &Arc<AccountUsage> {
        self.account.get().unwrap_or(&self.budget.unauthenticated)
    }

    fn is_of(&self, account: &AccountUsage) -> bool {
        std::ptr::eq(&raw const **self.account(), account)
    }

    fn grow(&self, kind: MemoryKind, bytes: usize) -> Growth {
        let (budget, account) = (&*self.budget, &**self.account());
        let add = |counter: &AtomicUsize| counter.fetch_add(bytes, Relaxed) + bytes;
        let own = add(&self.held);
        budget.by_kind.get(kind as usize).map(add);
        let (of_account, of_all) = (add(&account.held), add(&budget.held));
        let crosses = |held: usize, mark: usize| held > mark && held - bytes <= mark;
        if crosses(of_account, account.share) || crosses(of_all, budget.high_mark()) {
            budget.report_excess();
        }
        let is_excessive = of_all > budget.limit || of_account / 2 > account.share;
        if is_excessive && own >= SMALL_HOLDER { Growth::Excessive } else { Growth::Fits }
    }

    fn shrink(&self, kind: MemoryKind, bytes: usize) {
        let subtract = |counter: &AtomicUsize| counter.fetch_sub(bytes, Relaxed);
        subtract(&self.held);
        self.budget.by_kind.get(kind as usize).map(subtract);
        subtract(&self.account().held);
        subtract(&self.budget.held);
    }
}

impl Charge {
    /// Counts nothing, for as long as no holder is billed.
    pub const fn uncounted(kind: MemoryKind) -> Self {
        Self { holder: None, kind, bytes: 0 }
    }

    /// From now on the bytes count for `holder`.
    pub fn bill(&mut self, holder: &Arc<MemoryHolder>) {
        let bytes = std::mem::take(&mut self.bytes);
        if let Some(before) = self.holder.replace(holder.clone()) {
            before.shrink(self.kind, bytes);
        }
        let _ = self.set(bytes);
    }

    /// So many bytes are held now.
    #[inline]
    pub fn set(&mut self, bytes: usize) -> Growth {
        if bytes == self.bytes {
            return Growth::Fits;
        }
        let before = std::mem::replace(&mut self.bytes, bytes);
        match &self.holder {
            None => Growth::Fits,
            Some(holder) if bytes > before => holder.grow(self.kind, bytes - before),
            Some(holder) => {
                holder.shrink(self.kind, before - bytes);
                Growth::Fits
            }
        }
    }

    /// How many bytes are counted.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let _ = self.set(0);
    }
}
