#!/usr/bin/env bash
# A relay, a node that responds and one that asks, each a process with a home of its own: a request, a stream, a message
# for a node that is away, a rotation and a revocation while the two are connected.
# The relay listens on $LISTEN and the nodes reach it at $RELAY; the homes are kept where $HOMES names a folder for them.
set -euo pipefail
cd "$(dirname "$0")/.."
listen=${LISTEN:-127.0.0.1:4100} relay=${RELAY:-ws://${LISTEN:-127.0.0.1:4100}} homes=${HOMES:-$(mktemp -d)}
declare -A pids
autonomy() { "${PYTHON:-python}" -m autonomy_trio "$@"; }
# start NAME COMMAND…: have a process run, with its output in a file.
start() {
  : >"$homes/$1.log"
  "${PYTHON:-python}" -m autonomy_trio "${@:2}" --home "$homes/$1" >"$homes/$1.log" 2>&1 &
  pids[$1]=$!
}
stop() { kill "${pids[$1]}" && wait "${pids[$1]}"; }
# expect NAME WORDS [TIMES]: wait until a process has written so.
expect() {
  until [ "$(grep -c "$2" "$homes/$1.log")" -ge "${3:-1}" ]; do
    kill -0 "${pids[$1]}" || { cat "$homes/$1.log"; exit 1; }
    sleep 0.1
  done
}
trap 'trap - EXIT; kill $(jobs -p) 2>/dev/null || true; wait; [ -n "${HOMES:-}" ] || rm -rf "$homes"' EXIT

# The responder trusts one authority, itself, and says that the asker is in the payments team.
asker=$(autonomy identity show --home "$homes/asker")
autonomy authority issue --home "$homes/responder" --subject "$asker" --attribute team=payments \
  --out "$homes/asker/credentials/payments" 2>/dev/null
counter=$relay/$(autonomy identity show --home "$homes/responder")/counter

start relay relay --listen "$listen" --store "sqlite:$homes/store"
expect relay "^relay"
start responder run examples.counter:agents --relay "$relay"
expect responder "^  Count"

echo "a request"
autonomy ask "$counter" '{"Add": {"amount": 3}}' --home "$homes/asker"

echo "a stream"
autonomy stream "$counter" '{"Count": {"to": 3}}' --home "$homes/asker"

echo "a message for a node that is away"
stop responder
autonomy send --durable "$counter" '{"Add": {"amount": 4}}' --home "$homes/asker" 2>&1
start responder run examples.counter:agents --relay "$relay"
expect responder "added.*amount=4"
echo "and comes: $(grep -o 'added.*' "$homes/responder.log")"

echo "a rotation while connected"
COUNTER=$counter start asker run examples.asker:agents --relay "$relay"
expect asker "is answered"
stop responder
autonomy identity rotate --home "$homes/responder" 2>/dev/null
expect asker "is away"
start responder run examples.counter:agents --relay "$relay"
expect asker "is answered" 2

echo "a revocation while connected"
autonomy authority revoke --home "$homes/responder" --subject "$asker" --out "$homes/revoked" 2>/dev/null
expect asker "is denied"
grep "^asker" "$homes/asker.log"
