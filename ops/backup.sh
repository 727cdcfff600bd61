#!/bin/sh
# Back up the PostgreSQL database as it is at one moment, while every role goes on: backup.sh FOLDER [KEEP]
# libpq's variables say which (PGHOST, PGUSER, PGPASSWORD or a ~/.pgpass, PGDATABASE). A backup that cannot be read
# back is none: its table of contents is read before it gets its name. The newest KEEP (14) stay. The sealing key is
# not in it, on purpose: keep that elsewhere.
set -eu

folder=${1:?usage: backup.sh FOLDER [KEEP]}
keep=${2:-14}
name="orderwire-$(date -u +%Y%m%dT%H%M%SZ).dump"

umask 077
mkdir -p "$folder"
rm -f "$folder"/*.partial
pg_dump --format=custom --compress=6 --lock-wait-timeout=30s --no-owner --no-privileges --file="$folder/$name.partial"
for table in alembic_version ledgers orders outbox shards audit; do
  pg_restore --list "$folder/$name.partial" | grep -q "TABLE DATA [^ ]* $table " || {
    echo "backup.sh: $name has no table $table; it is no backup" >&2
    exit 1
  }
done
sync "$folder/$name.partial" 2>/dev/null || sync
mv "$folder/$name.partial" "$folder/$name"
sync "$folder" 2>/dev/null || sync

ls -1 "$folder" | grep '^orderwire-.*\.dump$' | sort -r | tail -n "+$((keep + 1))" | while read -r old; do
  rm -f "$folder/$old"
done
echo "$folder/$name"
