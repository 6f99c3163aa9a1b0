//! A seeded simulation of the router: the machine, unchanged, in a world of small models, with
//! everything that can go wrong.
//!
//! A run is a plan of random happenings (a source publishes, a user connects or leaves; a member
//! crashes, or is taken for dead while it goes on), then a healing: every instance is well, every
//! user is connected, and time passes until nothing is left to happen. Conditions that must never
//! fail are checked at every step, those that must hold in the end are checked after the healing.
//! There is one random number generator and one clock, both the world's, so a seed gives the same
//! run every time.
//!
//! It goes from a published set to the final outcome. The models stand for what JetStream
//! guarantees, and for what the shell around the pure code does with it: the log of sets, positions
//! with revisions, windows, outcomes that name what they are of, and fences that refuse late
//! appends and late outcomes.
//!
//! | module | |
//! | --- | --- |
//! | [`scenario`] | what a seed stands for: settings, faults and plan; as text, to be run again |
//! | [`faults`] | what can go wrong, and how often in a run |
//! | `world` | the models, the owners of the partition, and what is checked |
//! | [`run`](mod@run) | one run, and how it failed |
//! | [`shrink`](mod@shrink) | the shortest plan that fails in the same way |
//! | [`explore`](mod@explore) | very many runs |

pub mod explore;
pub mod faults;
pub mod run;
pub mod scenario;
pub mod shrink;
mod world;
