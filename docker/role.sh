#!/usr/bin/env bash
# Runs once, when PostgreSQL's data directory is made: the role of walden, which may replicate and nothing else.
set -euo pipefail
psql -v ON_ERROR_STOP=1 -v password="$(cat /run/secrets/walden-password)" --username "${POSTGRES_USER:-postgres}" <<'SQL'
set password_encryption = 'scram-sha-256';
create role walden login replication password :'password';
SQL
echo 'host replication walden all scram-sha-256' >>"$PGDATA/pg_hba.conf"
