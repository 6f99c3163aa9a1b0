#!/usr/bin/env bash
# `cargo package` of two crates of a workspace verifies the second against an old copy of the first.
#
# Surprise: cargo packs both, and builds the second against the packed first. It takes the first
#   from a registry of its own under `target/package`, and unpacks that copy into
#   `$CARGO_HOME/registry/src` by name and version. When the first crate changes under the same
#   version, cargo packs it again, but builds the second against the copy of the earlier run: a
#   correct change is refused, and one that must be refused passes.
# Why it matters: a CI that keeps `$CARGO_HOME` fails on correct commits, and says that something
#   does not exist which stands in the sources; or it lets a package through that cannot be built.
#   Before packaging, remove `registry/src/-*/<crate>-<version>` and run `cargo clean -p <crate>`.
# Source: pull request 13947 of rust-lang/cargo brought the registry; seen with cargo 1.95.0.
# Expected: the second run passes, as a run with an empty `$CARGO_HOME` does. Seen: E0425.
#   This script fails if that changes.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mkdir -p "$dir/work/first/src" "$dir/work/second/src"
cd "$dir/work"
cat >Cargo.toml <<'TOML'
[workspace]
members = ["first", "second"]
resolver = "3"
TOML
manifest() {
    printf '[package]\nname = "%s"\nversion = "0.1.0"\nedition = "2024"\n' "$1"
    printf 'license = "MIT"\ndescription = "An example"\n\n[dependencies]\n%s\n' "$2"
}
manifest example-first-crate 'itoa = "=1.0.15"' >first/Cargo.toml
manifest example-second-crate \
    'example-first-crate = { path = "../first", version = "0.1.0" }' >second/Cargo.toml
echo 'pub fn one() -> u8 { 1 }' >first/src/lib.rs
echo 'pub fn sum() -> u8 { example_first_crate::one() }' >second/src/lib.rs

package() {
    CARGO_HOME=$1 CARGO_TARGET_DIR=$2 cargo package --quiet --allow-dirty \
        --package example-first-crate --package example-second-crate 2>&1
}
home=$dir/home target=$dir/target
package "$home" "$target" || { echo "the first run failed" >&2; exit 1; }

# The target directory is a new one, at the same place, as in a fresh checkout of a CI.
rm -rf "$target"
echo 'pub fn two() -> u8 { 2 }' >>first/src/lib.rs
echo 'pub fn sum() -> u8 { example_first_crate::two() }' >second/src/lib.rs
second=$(package "$home" "$target") && second="passed"
rm -rf "$target"
fresh=$(package "$dir/empty-home" "$target") && fresh="passed"

cargo --version
echo "with the CARGO_HOME of the first run: $(grep -m 1 -o 'error.*' <<<"$second" || echo "$second")"
echo "with an empty CARGO_HOME: $fresh"
if [[ $second == *E0425* && $fresh == passed ]]; then
    echo "as described: cargo built against the crate of the first run"
else
    echo "changed: no longer as described" >&2
    exit 1
fi
