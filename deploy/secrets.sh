#!/bin/sh
# Draws passwords for deploy/compose.yaml into deploy/.env, which only its owner can read; again, it changes nothing.
set -eu
umask 077
file=$(dirname "$0")/.env
if [ -e "$file" ]; then
    echo "$file is there already"
    exit 0
fi
for name in RAY_AUTH_TOKEN POSTGRES_PASSWORD MLFLOW_PASSWORD MLFLOW_SESSION_KEY S3_PASSWORD GRAFANA_PASSWORD; do
    printf '%s=%s\n' "$name" "$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')"
done > "$file.new"
mv "$file.new" "$file"
