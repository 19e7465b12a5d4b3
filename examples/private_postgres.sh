#!/usr/bin/env bash
# A private PostgreSQL that one team uses from anywhere: nothing listens to the network, and the relay reads nothing.
# Two lines do it, the first next to the database, the second on a machine of the team:
#
#   python -m autonomy_trio outlet shop --target 127.0.0.1:5432 --allow 'principal.team == "payments"' --relay ws://RELAY:4000
#   python -m autonomy_trio inlet --to ws://RELAY:4000/I…/shop --listen 127.0.0.1:15432
#
# This script runs them, with a relay and two who try, on one machine with a home each. The database is the one of
# $DATABASE (127.0.0.1:5432), which lets psql in as $PGUSER with $PGPASSWORD.
set -euo pipefail
cd "$(dirname "$0")/.."
listen=${LISTEN:-127.0.0.1:4100} homes=$(mktemp -d)
sockets=$(mktemp -d /tmp/shop.XXXXXX) # a Unix socket's path must be short
autonomy() { "${PYTHON:-python}" -m autonomy_trio "$@"; }
started() { until grep -q "$2" "$1" 2>/dev/null; do kill -0 $! || { cat "$1"; exit 1; }; sleep 0.1; done; }
trap 'trap - EXIT; kill $(jobs -p) 2>/dev/null || true; wait; rm -rf "$homes" "$sockets"' EXIT

# The database's node trusts one authority, itself, and says that Alice is in the payments team.
alice=$(autonomy identity show --home "$homes/alice")
autonomy authority issue --home "$homes/database" --subject "$alice" --attribute team=payments \
  --out "$homes/alice/credentials/payments" 2>/dev/null
address=ws://$listen/$(autonomy identity show --home "$homes/database")/shop

"${PYTHON:-python}" -m autonomy_trio relay --listen "$listen" --home "$homes/relay" >"$homes/relay.log" 2>&1 &
started "$homes/relay.log" "^relay"
"${PYTHON:-python}" -m autonomy_trio outlet shop --target "${DATABASE:-127.0.0.1:5432}" \
  --allow 'principal.team == "payments"' --relay "ws://$listen" --home "$homes/database" >"$homes/outlet.log" 2>&1 &
started "$homes/outlet.log" "^outlet"

for name in alice bob; do
  mkdir "$sockets/$name"
  "${PYTHON:-python}" -m autonomy_trio inlet --to "$address" --listen "unix:$sockets/$name/.s.PGSQL.5432" \
    --home "$homes/$name" >"$homes/inlet-$name.log" 2>&1 &
  started "$homes/inlet-$name.log" "^inlet"
  echo "$name asks the database:"
  PGHOST=$sockets/$name PGPORT=5432 psql -XAt -c "select 'you are in, ' || current_user" 2>/dev/null || echo "(exit code $?)"
done
started "$homes/inlet-bob.log" "denied"
echo "what bob's inlet logged:"
grep -o '/shop denied Connect: [^;]*' "$homes/inlet-bob.log"
