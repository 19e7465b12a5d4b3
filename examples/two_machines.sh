#!/usr/bin/env bash
# A relay, a node that serves a counter, and two that ask it: four processes, a home each, as four machines would have.
# The relay listens on $LISTEN, and the nodes reach it at $RELAY.
set -euo pipefail
cd "$(dirname "$0")/.."
listen=${LISTEN:-127.0.0.1:4100} relay=${RELAY:-ws://${LISTEN:-127.0.0.1:4100}} homes=$(mktemp -d)
autonomy() { "${PYTHON:-python}" -m autonomy_trio "$@"; }
started() { until grep -q "$2" "$1" 2>/dev/null; do kill -0 $! || { cat "$1"; exit 1; }; sleep 0.1; done; }
trap 'trap - EXIT; kill $(jobs -p) 2>/dev/null || true; wait; rm -rf "$homes"' EXIT

# The serving node trusts one authority, itself, and says that Alice is in the payments team.
alice=$(autonomy identity show --home "$homes/alice")
autonomy authority issue --home "$homes/server" --subject "$alice" --attribute team=payments \
  --out "$homes/alice/credentials/payments"
address=$relay/$(autonomy identity show --home "$homes/server")/counter

"${PYTHON:-python}" -m autonomy_trio relay --listen "$listen" --home "$homes/relay" >"$homes/relay.log" 2>&1 &
started "$homes/relay.log" "^relay"
"${PYTHON:-python}" -m autonomy_trio run examples.counter:agents --relay "$relay" --home "$homes/server" >"$homes/server.log" 2>&1 &
started "$homes/server.log" "^node"

for name in alice bob; do
  echo "$name asks $address for Add(3)"
  autonomy ask "$address" '{"Add": {"amount": 3}}' --home "$homes/$name" 2>&1 || echo "(exit code $?)"
done
echo "what the serving node logged:"
grep -o 'reason=denied.*\|added.*' "$homes/server.log"
