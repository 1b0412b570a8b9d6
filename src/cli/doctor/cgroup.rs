//! The limits of this process's control groups: the lowest of its own group and of all above it, in version 1 and 2.

use std::path::{Component, Path};

use super::reading::{Reading, Unread, optional, text};

/// `None` = no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cgroup {
    /// Thousandths of a CPU.
    pub cpu_millis: Option<u64>,
    /// Bytes.
    pub memory: Option<u64>,
}

const MOUNT: &str = "/sys/fs/cgroup";

pub fn read(root: &Path) -> Reading<Cgroup> {
    // `id:controllers:path` per line; version 2 is the one without controllers.
    let groups = text(root, "/proc/self/cgroup")?;
    let mount = root.join(MOUNT.trim_start_matches('/'));
    std::fs::read_dir(mount).map_err(|error| Unread::new(MOUNT, error))?;
    let mut found = Cgroup::default();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let has = |name: &str| controllers.split(',').any(|controller| controller == name);
        if controllers.is_empty() {
            // Beside version 1, version 2 is mounted in a folder of its own.
            for mount in [MOUNT.to_owned(), format!("{MOUNT}/unified")] {
                for group in lineage(&mount, path) {
                    let cpu = optional(root, &format!("{group}/cpu.max"))?;
                    found.cpu_at_most(cpu.and_then(|text| quota(&text)));
                    let memory = optional(root, &format!("{group}/memory.max"))?;
                    found.memory_at_most(memory.and_then(|text| text.trim().parse().ok()));
                }
            }
        }
        if has("cpu") {
            for mount in [format!("{MOUNT}/cpu"), format!("{MOUNT}/{controllers}")] {
                for group in lineage(&mount, path) {
                    let quota = optional(root, &format!("{group}/cpu.cfs_quota_us"))?;
                    let period = optional(root, &format!("{group}/cpu.cfs_period_us"))?;
                    let both = quota.zip(period).map(|(quota, period)| format!("{quota} {period}"));
                    found.cpu_at_most(both.and_then(|text| self::quota(&text)));
                }
            }
        }
        if has("memory") {
            for group in lineage(&format!("{MOUNT}/memory"), path) {
                let limit = optional(root, &format!("{group}/memory.limit_in_bytes"))?;
                found.memory_at_most(limit.and_then(|text| text.trim().parse().ok()));
            }
        }
    }
    Ok(found)
}

impl Cgroup {
    fn cpu_at_most(&mut self, millis: Option<u64>) {
        self.cpu_millis = self.cpu_millis.into_iter().chain(millis).min();
    }

    fn memory_at_most(&mut self, bytes: Option<u64>) {
        // Version 1 writes "no limit" as the largest number of pages.
        const NO_LIMIT: u64 = 1 << 62;
        let bytes = bytes.filter(|bytes| *bytes < NO_LIMIT);
        self.memory = self.memory.into_iter().chain(bytes).min();
    }
}

/// A group's folder and those above it. A container sees only its own group as the mount, whatever path is given.
fn lineage(mount: &str, path: &str) -> Vec<String> {
    let mut folder = mount.to_owned();
    let mut lineage = vec![folder.clone()];
    for component in Path::new(path).components() {
        if let Component::Normal(name) = component {
            folder = format!("{folder}/{}", name.to_string_lossy());
            lineage.push(folder.clone());
        }
    }
    lineage
}

/// `150000 100000` (microseconds of CPU in a period) → 1500; `max 100000` and `-1 100000` are no limit.
fn quota(text: &str) -> Option<u64> {
    let mut words = text.split_whitespace().map(str::parse::<u64>);
    let (quota, period) = (words.next()?.ok()?, words.next()?.ok()?);
    quota.checked_mul(1000)?.checked_div(period)
}
