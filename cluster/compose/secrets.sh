#!/bin/bash
# Made by cluster/render.py from cluster/templates/compose/secrets.sh.j2 and values.yaml; edit those.
# Makes the secrets of the stack, once: random, readable by their owner alone.
set -euo pipefail
cd "$(dirname "$0")"
umask 077
mkdir -p secrets
for name in ray_token mlflow_password mlflow_flask_key postgres_password objects_secret; do
  [[ -e "secrets/$name" ]] || head -c 32 /dev/urandom | base64 | tr -d '+/=\n' > "secrets/$name"
done
chmod 644 secrets/* # the containers' users are others; the folder itself stays closed
chmod 700 secrets
