#!/bin/sh
# Put a backup of the PostgreSQL database in its place, all of it or nothing; while no role runs: restore.sh BACKUP
# libpq's variables say where (as for backup.sh). The backup goes into a new database first, every change log and every
# shard begins anew there, and only then the names change: what was there stays as <name>_before_<time> until you drop it.
set -eu

backup=${1:?usage: restore.sh BACKUP}
orderwire=${ORDERWIRE:-orderwire}
database=${PGDATABASE:?set PGDATABASE}
stamp=$(date -u +%Y%m%d%H%M%S)
fresh="${database}_restored_$stamp"

sql() { psql --no-psqlrc --quiet --tuples-only --no-align --set=ON_ERROR_STOP=1 --dbname=postgres --command="$1"; }

pg_restore --list "$backup" >/dev/null
others() { sql "SELECT count(*) FROM pg_stat_activity WHERE datname = '$database'"; }
tries=3
while [ "$(others)" -ne 0 ] && [ "$tries" -gt 0 ]; do # what was stopped just now may still be leaving
  tries=$((tries - 1))
  sleep 1
done
if [ "$(others)" -ne 0 ]; then
  echo "restore.sh: $(others) connections to $database are open; stop every web and feeds process first" >&2
  exit 1
fi

sql "CREATE DATABASE \"$fresh\""
drop_fresh() { sql "DROP DATABASE IF EXISTS \"$fresh\""; }
trap drop_fresh EXIT
pg_restore --exit-on-error --single-transaction --no-owner --no-privileges --dbname="$fresh" "$backup"
ORDERWIRE_DATABASE_URL="postgresql+psycopg:///$fresh" "$orderwire" restore --yes
sql "ALTER DATABASE \"$database\" RENAME TO \"${database}_before_$stamp\""
sql "ALTER DATABASE \"$fresh\" RENAME TO \"$database\""
trap - EXIT
echo "restored $backup; what was there is ${database}_before_$stamp"
