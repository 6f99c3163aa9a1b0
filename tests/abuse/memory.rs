//! Resident memory of a process, and what bounds it.

use std::fs;

use bellhop::config::Config;

/// Bytes that one user takes in memory who has a route or a mailbox: names, places in tables, what
/// the allocator adds. Measured.
const USER_BYTES: usize = 2_400;
/// A reminder in work is there as it came, as what was made of it, and as an entry of tables: for a
/// short one three times its bytes and more. The allocator keeps some of what was freed.
const COPIES: usize = 4;

/// Resident memory, in bytes.
pub(crate) fn resident(pid: u32) -> usize {
    of_status(pid, "VmRSS:")
}

/// The most resident memory since [`forget_peak`], in bytes.
pub(crate) fn peak(pid: u32) -> usize {
    of_status(pid, "VmHWM:")
}

/// Resets the peak.
pub(crate) fn forget_peak(pid: u32) {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").unwrap();
}

fn of_status(pid: u32, name: &str) -> usize {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let value = status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB"))
        .unwrap();
    value.parse::<usize>().unwrap() << 10
}

/// Returns the maximum memory of a member with the default settings beyond its quiet size, with
/// this many users who are connected or have mail. docs/reliability.md explains the arithmetic.
pub(crate) fn bound(users: usize) -> usize {
    let Config {
        partitions,
        intake,
        idempotency,
        mailbox,
        dispatch,
        ..
    } = Config::default();
    // In work, and as much pulled ahead.
    let sets = intake.max_bytes_in_flight * (COPIES + 1);
    let partition = dispatch.max_bytes_in_flight * (COPIES + 1)
        + mailbox.park_bytes * 2
        + mailbox.page_bytes * mailbox.reads_in_flight * COPIES;
    sets + usize::from(partitions) * partition + idempotency.max_ids * 48 + users * USER_BYTES
}
