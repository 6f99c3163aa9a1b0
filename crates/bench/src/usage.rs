//! CPU time, memory and disk space, as Linux counts them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use procfs::process::Process;

/// CPU time by process.
pub(super) type CpuTimes = BTreeMap<&'static str, Duration>;

/// Returns the CPU time used between these two readings.
pub(super) fn used_since(before: &CpuTimes, now: CpuTimes) -> CpuTimes {
    let used = |(process, time): (&'static str, Duration)| {
        (
            process,
            time.saturating_sub(before.get(process).copied().unwrap_or_default()),
        )
    };
    now.into_iter().map(used).collect()
}

/// Returns the CPU time that a process has used so far, in user and kernel mode; zero once it has
/// ended.
pub(super) fn cpu_time(pid: u32) -> Duration {
    let stat = Process::new(pid as i32).and_then(|process| process.stat());
    let ticks = stat.map_or(0, |stat| stat.utime + stat.stime);
    Duration::from_secs_f64(ticks as f64 / procfs::ticks_per_second() as f64)
}

/// Returns the resident memory of a process in bytes (`VmRSS`); zero once it has ended. Memory that
/// the program has freed and its allocator keeps is included.
pub(super) fn resident_bytes(pid: u32) -> u64 {
    let status = Process::new(pid as i32).and_then(|process| process.status());
    status.ok().and_then(|status| status.vmrss).unwrap_or(0) * 1024
}

/// Returns the disk space of all files below a directory, in bytes.
pub(super) fn disk_bytes(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else {
        return 0;
    };
    let bytes = |entry: fs::DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() => disk_bytes(&entry.path()),
        Ok(found) => found.blocks() * 512,
        Err(_) => 0, // The file was removed meanwhile.
    };
    entries.filter_map(Result::ok).map(bytes).sum()
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn cpu_time_grows_with_work() {
        let (before, began) = (cpu_time(std::process::id()), Instant::now());
        let mut sum = 0u64;
        while cpu_time(std::process::id()) - before < Duration::from_millis(50) {
            sum = sum.wrapping_add((0..100_000u64).sum::<u64>());
            assert!(began.elapsed() < Duration::from_secs(30), "{sum}");
        }
    }

    #[test]
    fn resident_memory_grows_with_allocations() {
        let before = resident_bytes(std::process::id());
        let held = vec![1u8; 64 << 20];
        let after = resident_bytes(std::process::id());
        assert!(
            before > 0 && after >= before + (32 << 20),
            "{before} → {after} with {} bytes more",
            held.len()
        );
    }

    #[test]
    fn disk_space_includes_inner_directories() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("inner")).unwrap();
        let before = disk_bytes(dir.path());
        fs::write(dir.path().join("inner/file"), vec![1; 100_000]).unwrap();
        assert!(disk_bytes(dir.path()) >= before + 100_000);
    }
}
