//! How much memory the process may use: the limits of its control groups, and what the machine has.

use std::{fs, path::Path};

use rustix::system::sysinfo;

/// The least that the default budget is, in bytes.
const MIN_DEFAULT_BUDGET: u64 = 64 << 20;

/// The budget where no setting says it, in bytes: a quarter of the memory that is `available`. The rest is for the kernel's
/// buffers, which a control group's limit counts too, for what the process holds without clients, and for the allocator.
pub fn default_budget(available: u64) -> u64 {
    (available / 4).max(MIN_DEFAULT_BUDGET)
}

/// What the process takes without clients, and what the allocator does not give back, in bytes.
const PROCESS_BYTES: u64 = 64 << 20;

/// What a WebSocket takes at most while nothing waits for its client, in bytes, with what the kernel holds for it; and how much
/// more with TLS.
const SOCKET_BYTES: u64 = 10 << 10;
const TLS_BYTES: u64 = 5 << 10;

/// So many WebSockets are accepted however little memory there is.
const MIN_SOCKETS: u64 = 256;

/// How many WebSockets fit into the memory that is `available`, beside a `budget` for what waits for their clients.
pub fn socket_capacity(available: u64, budget: u64, has_tls: bool) -> usize {
    let each = if has_tls { SOCKET_BYTES + TLS_BYTES } else { SOCKET_BYTES };
    let beside = available.saturating_sub(budget).saturating_sub(PROCESS_BYTES);
    usize::try_from((beside / each).max(MIN_SOCKETS)).unwrap_or(usize::MAX)
}

/// How much memory this process may use, in bytes: the lowest limit of its control groups (cgroups(7), both versions), or
/// all that the machine has.
pub fn available() -> u64 {
    // Not `/proc/meminfo`, which our own systemd unit hides (`ProcSubset=pid`).
    let machine = sysinfo();
    let machine = u64::from(machine.mem_unit).saturating_mul(machine.totalram);
    available_in(Path::new("/"), machine)
}

/// The same for a process whose files are below `root`, on a machine with so much memory.
pub(super) fn available_in(root: &Path, machine: u64) -> u64 {
    control_group_limit(root).unwrap_or(u64::MAX).min(machine)
}

/// A limit applies also to the groups below it. In a container the path of the group may not be visible, but its own limit
/// is at the root of what is.
fn control_group_limit(root: &Path) -> Option<u64> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let limits = groups.lines().flat_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) =
            (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
        let (hierarchy, file) = match controllers {
            "" => ("sys/fs/cgroup", "memory.max"),
            _ => ("sys/fs/cgroup/memory", "memory.limit_in_bytes"),
        };
        let is_memory = controllers.is_empty() || controllers.split(',').any(|it| it == "memory");
        let groups = Path::new(path).ancestors().filter(move |_| is_memory);
        groups.filter_map(move |group| {
            let group = group.strip_prefix("/").unwrap_or(group);
            let text = fs::read_to_string(root.join(hierarchy).join(group).join(file)).ok()?;
            text.trim().parse().ok() // "max" is no limit
        })
    });
    limits.min()
}
