#!/usr/bin/env bash
# Packs the client, installs the file into a fresh folder as people do, and checks the types of README.md's examples there.
set -euo pipefail
cd "$(dirname "$0")/.."
here=$PWD
there=$(mktemp -d)
trap 'rm -rf "$there"' EXIT

npm pack --silent --pack-destination "$there" >/dev/null
cd "$there"
echo '{ "private": true, "type": "module" }' >package.json
npm install --no-audit --no-fund --loglevel=error ./bellhop-client-*.tgz
awk '/^```ts$/ { name = "example-" ++n ".ts"; next } /^```$/ { name = "" } name { print > name }' "$here/README.md"
ls example-*.ts
"$here/node_modules/.bin/tsc" --strict --noEmit --target es2022 --lib es2023,esnext.disposable --module nodenext \
    --types node --typeRoots "$here/node_modules/@types" example-*.ts
node --input-type=module --eval 'import * as client from "@bellhop/client"; console.log(Object.keys(client).join(" "))'
