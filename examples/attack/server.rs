//! The server as a process in a control group, measured from outside.

use std::{
    fmt, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use signaling::auth::users;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    sync::mpsc,
    time::{Instant, timeout},
};

use crate::clients::{ACCOUNTS, ADMIN_TOKEN, JWT_KEY, TIMEOUT, Target, TestError, http, user};

/// The limit of the control group, in MiB.
const LIMIT_MIB: u64 = 256;

pub struct Server {
    child: Child,
    pid: u32,
    address: SocketAddr,
    metrics: SocketAddr,
    pub budget_mib: u64,
    group: Result<ControlGroup, String>,
    warnings: Arc<AtomicU64>,
    _folder: TempDir,
}

/// A control group of one process, which is removed at the end.
struct ControlGroup(PathBuf);

impl ControlGroup {
    /// Makes a group below our own, of either version (cgroups(7)).
    fn create() -> Result<Self, String> {
        let own = fs::read_to_string("/proc/self/cgroup").map_err(|error| error.to_string())?;
        let path_of = |controller: &str| {
            own.lines().find_map(|line| {
                let (_, rest) = line.split_once(':')?;
                let (controllers, path) = rest.split_once(':')?;
                controllers
                    .split(',')
                    .any(|it| it == controller)
                    .then(|| path.trim_matches('/').to_owned())
            })
        };
        let v1 = path_of("memory")
            .map(|path| (Path::new("/sys/fs/cgroup/memory").join(path), "memory.limit_in_bytes"));
        let v2 = path_of("").map(|path| (Path::new("/sys/fs/cgroup").join(path), "memory.max"));
        let name = format!("signaling-attack-{}", std::process::id());
        let mut problem = "there is no memory controller".to_owned();
        for (parent, file) in v1.into_iter().chain(v2) {
            let group = parent.join(&name);
            let limited = fs::create_dir(&group)
                .and_then(|()| fs::write(group.join(file), (LIMIT_MIB << 20).to_string()));
            match limited {
                Ok(()) => return Ok(Self(group)),
                Err(error) => {
                    let _ = fs::remove_dir(&group);
                    problem = format!("{}: {error}", group.display());
                }
            }
        }
        Err(problem)
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

impl Server {
    pub async fn start(binary: &Path) -> Result<Self, TestError> {
        let folder = tempfile::tempdir()?;
        let hash = bcrypt::hash("correct horse", 4)?;
        users::edit(&folder.path().join("users.csv"), |table| {
            (0..ACCOUNTS)
                .try_for_each(|number| table.add(&user(number), "attack@example.com", &hash))
        })?;
        let group = ControlGroup::create();
        let mut command = Command::new("/bin/sh");
        let enter = match &group {
            Ok(group) => format!("echo $$ > {}/cgroup.procs && exec \"$0\"", group.0.display()),
            Err(_) => "exec \"$0\"".to_owned(),
        };
        command.args(["-c", &enter]).arg(fs::canonicalize(binary)?).env_clear().envs([
            ("HOST", "127.0.0.1"),
            ("PORT", "0"),
            ("METRICS_LISTEN", "127.0.0.1:0"),
            ("LOG_FORMAT", "json"),
            ("REQUIRE_HTTPS", "false"),
            ("SECRET_KEY", "attack: another key of 32 bytes or more"),
            ("JWT_SECRET_KEY", JWT_KEY),
            ("TRUSTED_PROXIES", "[]"),
            ("ADMIN_TOKEN", ADMIN_TOKEN),
            ("MAX_CONNECTIONS_PER_USER", "50"),
        ]);
        if group.is_err() {
            command.env("MEMORY_BUDGET_MIB", "64");
        }
        command
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn()?;
        let pid = child.id().ok_or("the server has ended")?;
        let mut lines = BufReader::new(child.stdout.take().ok_or("no stdout")?).lines();
        let (found, mut values) = mpsc::unbounded_channel();
        let warnings = Arc::<AtomicU64>::default();
        let counted = warnings.clone();
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                let line: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
                if line["level"] == "WARN" {
                    counted.fetch_add(1, Relaxed);
                }
                if line["level"] == "ERROR" {
                    println!("the server: {line}");
                }
                let fields = &line["fields"];
                let _ = match fields["message"].as_str() {
                    Some("listening") => found.send(("address", fields["address"].to_string())),
                    Some("metrics listener open") => {
                        found.send(("metrics", fields["address"].to_string()))
                    }
                    Some("memory budget set") => {
                        found.send(("budget", fields["budget_mib"].to_string()))
                    }
                    _ => continue,
                };
            }
        });
        let (mut address, mut metrics, mut budget) = (None, None, None);
        while address.is_none() || metrics.is_none() || budget.is_none() {
            let next =
                timeout(TIMEOUT, values.recv()).await.map_err(|_| "the server does not start")?;
            let (name, value) = next.ok_or("the server has ended")?;
            let value = value.trim_matches('"').to_owned();
            *match name {
                "address" => &mut address,
                "metrics" => &mut metrics,
                _ => &mut budget,
            } = Some(value);
        }
        Ok(Self {
            child,
            pid,
            address: address.ok_or("no address")?.parse()?,
            metrics: metrics.ok_or("no address of metrics")?.parse()?,
            budget_mib: budget.ok_or("no budget")?.parse()?,
            group,
            warnings,
            _folder: folder,
        })
    }

    pub fn description(&self) -> String {
        let budget = self.budget_mib;
        match &self.group {
            Ok(_) => format!("a control group of {LIMIT_MIB} MiB, budget {budget} MiB"),
            Err(problem) => format!("no control group ({problem}); budget {budget} MiB"),
        }
    }

    pub fn target(&self) -> Target {
        Target { address: self.address, metrics: self.metrics }
    }

    /// From now on the peak of the resident memory counts anew (proc(5), `clear_refs`).
    pub fn reset_peak(&self) {
        let _ = fs::write(format!("/proc/{}/clear_refs", self.pid), "5");
    }

    pub async fn usage(&self) -> Result<Snapshot, TestError> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid))
            .map_err(|error| format!("the server has ended: {error}"))?;
        let field = |name: &str| {
            let size = status.lines().find_map(|line| line.strip_prefix(name));
            let kib: u64 = size?.trim().strip_suffix(" kB")?.parse().ok()?;
            Some(kib >> 10)
        };
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid))?;
        let fields: Vec<_> = stat.rsplit_once(')').ok_or("no stat")?.1.split_whitespace().collect();
        let ticks = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
        let (_, text) = http(self.metrics, [127, 0, 0, 1].into(), "GET /metrics").await?;
        let shed =
            text.lines().find_map(|line| line.strip_prefix("signaling_memory_shed_clients_total "));
        Ok(Snapshot {
            at: Instant::now(),
            rss_mib: field("VmRSS:").ok_or("no VmRSS")?,
            peak_mib: field("VmHWM:").ok_or("no VmHWM")?,
            ticks,
            shed: shed.and_then(|shed| shed.parse().ok()).unwrap_or_default(),
            warnings: self.warnings.load(Relaxed),
        })
    }

    pub async fn usage_since(&self, before: &Snapshot) -> Result<Usage, TestError> {
        let now = self.usage().await?;
        let elapsed = now.at.duration_since(before.at).max(Duration::from_millis(1)).as_secs_f64();
        Ok(Usage {
            rss_before_mib: before.rss_mib,
            peak_mib: now.peak_mib,
            // A tick is a hundredth of a second.
            cpu_percent: (now.ticks - before.ticks) as f64 / elapsed,
            shed: now.shed - before.shed,
            log_warnings: now.warnings - before.warnings,
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.start_kill();
        // The group can be removed when its process is gone.
        for _ in 0..50 {
            if !matches!(self.child.try_wait(), Ok(None)) {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

pub struct Snapshot {
    at: Instant,
    rss_mib: u64,
    peak_mib: u64,
    ticks: u64,
    shed: u64,
    warnings: u64,
}

/// What the server used during an attack.
pub struct Usage {
    pub rss_before_mib: u64,
    pub peak_mib: u64,
    pub cpu_percent: f64,
    pub shed: u64,
    pub log_warnings: u64,
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { peak_mib, cpu_percent, shed, .. } = self;
        write!(f, "{peak_mib:>8} {cpu_percent:>6.0} {shed:>6}")
    }
}
