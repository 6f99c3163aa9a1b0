//! What processes and files cost, as Linux tells.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// CPU time by process.
pub(super) type CpuTimes = BTreeMap<&'static str, Duration>;

/// What was used since `before`.
pub(super) fn used_since(before: &CpuTimes, now: CpuTimes) -> CpuTimes {
    let used = |(part, time): (&'static str, Duration)| {
        (part, time.saturating_sub(before.get(part).copied().unwrap_or_default()))
    };
    now.into_iter().map(used).collect()
}

/// The kernel counts CPU time in these on every Linux that is in use.
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU time that a process has used so far, in user and kernel mode.
pub(super) fn cpu_time(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The program's name may have blanks; what follows its parenthesis has not.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    Duration::from_secs_f64((ticks(11) + ticks(12)) / TICKS_PER_SECOND)
}

/// Memory of a process that is in the machine's: `VmRSS`. What a program has freed and its allocator keeps counts, too.
pub(super) fn resident_bytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok());
    kib.unwrap_or(0u64) * 1024
}

/// Bytes of all files below a directory, as they take space on the disk.
pub(super) fn disk_bytes(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let bytes = |entry: fs::DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() => disk_bytes(&entry.path()),
        Ok(found) => found.blocks() * 512,
        Err(_) => 0, // It was removed meanwhile.
    };
    entries.filter_map(Result::ok).map(bytes).sum()
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn work_is_seen() {
        let (before, began) = (cpu_time(std::process::id()), Instant::now());
        let mut sum = 0u64;
        while cpu_time(std::process::id()) - before < Duration::from_millis(50) {
            sum = sum.wrapping_add((0..100_000u64).sum::<u64>());
            assert!(began.elapsed() < Duration::from_secs(30), "{sum}");
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn memory_is_seen() {
        let before = resident_bytes(std::process::id());
        let held = vec![1u8; 64 << 20];
        let after = resident_bytes(std::process::id());
        assert!(before > 0 && after >= before + (32 << 20), "{before} → {after} with {} bytes more", held.len());
    }

    #[test]
    fn space_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("inner")).unwrap();
        let before = disk_bytes(dir.path());
        fs::write(dir.path().join("inner/file"), vec![1; 100_000]).unwrap();
        assert!(disk_bytes(dir.path()) >= before + 100_000);
    }
}
