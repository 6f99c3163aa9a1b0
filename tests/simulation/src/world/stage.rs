//! The steps of a takeover.

/// The next step of a new owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Learns the positions; from here on the owners that they name can record nothing.
    FenceOutcomes,
    /// Makes the positions its own, unless another one was quicker.
    Claim,
    /// From here on no earlier owner can append to mailboxes.
    Fence,
    /// Learns what lies in them.
    Find,
    /// Reads what is recorded as settled.
    Recorded,
    /// Passes all of that, and the routes, to the machine, and begins to read the log.
    Load,
}
