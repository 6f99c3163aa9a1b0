//! Signals to processes.

use rustix::process::{Pid, Signal, kill_process};

/// Sends a process a signal, such as `TERM`. Returns whether there is such a process.
///
/// # Panics
/// When no signal that tests send has this name.
pub fn signal(pid: u32, name: &str) -> bool {
    let signal = match name {
        "CONT" => Signal::CONT,
        "HUP" => Signal::HUP,
        "INT" => Signal::INT,
        "KILL" => Signal::KILL,
        "STOP" => Signal::STOP,
        "TERM" => Signal::TERM,
        "USR2" => Signal::USR2,
        name => panic!("no test sends SIG{name}"),
    };
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| kill_process(pid, signal).is_ok())
}
