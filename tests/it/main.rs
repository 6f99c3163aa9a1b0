//! Bellhop as its users meet it: real nats-servers, real processes, scripted app servers.
//!
//! One binary, since each costs a link. A module for each subject; `harness` has what they share.

#![allow(clippy::unwrap_used)] // A test that cannot go on has failed.
#![allow(clippy::disallowed_methods)] // Deadlines are real time.

mod harness;

mod associates;
mod backup;
mod buckets;
mod cli;
mod client_app_server;
mod client_publisher;
mod cloud_events;
mod completions;
mod conformance;
mod connect_as;
mod credentials;
mod dashboards;
mod delivery;
mod demo;
mod deploy;
mod devices;
mod doctor;
mod durability;
mod escalation;
mod full;
mod guides;
mod heartbeat;
mod held_back;
mod history;
mod http;
mod intake;
mod layers;
mod limits;
mod logs;
mod mailbox;
mod members;
mod merge;
mod metrics;
mod permissions;
mod prose;
mod queries;
mod refusals;
mod repartition;
mod rolling;
mod routes;
mod rules;
mod rules_cli;
mod scheduled;
mod schema;
mod secured;
mod setup;
mod stopping;
mod terminal;
mod tls;
mod top;
mod traces;
mod unreadable;
mod unreadable_messages;
mod upgrade;
mod ways_in;
