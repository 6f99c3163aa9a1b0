//! A seeded simulation of the router: the machine, unchanged, in a world of small models, with everything that can go wrong.
//!
//! A run is a plan of random happenings (somebody publishes, connects, leaves; a member crashes, or is taken for dead while it goes
//! on), then a healing: every instance is well, every user is connected, and time passes until nothing is left to happen. What must
//! never happen is checked at every step, what must come true in the end is checked after the healing. There is one random
//! number generator and one clock, both the world's, so a seed gives the same run every time.
//!
//! The models stand for what JetStream guarantees, and for what the shell around the machine does with it (`service::partition`):
//! a fence that refuses late appends, a pin and a reset of the consumer, outcomes that name what they settle.
//!
//! | module | |
//! | --- | --- |
//! | [`scenario`] | what a seed stands for: settings, faults and plan; as text, to be run again |
//! | [`faults`] | what can go wrong, and how often in a run |
//! | [`world`] | the models, the owners of the partition, and what is checked |
//! | [`run`](mod@run) | one run, and how it failed |
//! | [`shrink`](mod@shrink) | the shortest plan that fails in the same way |
//! | [`explore`](mod@explore) | very many runs |

pub mod explore;
pub mod faults;
pub mod run;
pub mod scenario;
pub mod shrink;
mod world;
