//! The steps of a takeover.

/// What a new owner does next.
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
    /// Tells the machine all of that, and the routes, and begins to read the log.
    Load,
}
