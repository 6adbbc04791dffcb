#!/bin/bash
# Made by cluster/render.py from cluster/templates/kubernetes/secrets.sh.j2 and values.yaml; edit those.
# Prints the secrets that the other files name, from random bytes, for kubectl create. Run it once: the passwords are
# new every time, and the databases keep their first.
set -euo pipefail
random() { head -c 32 /dev/urandom | base64 | tr -d '+/=\n'; }
cat << EOF
apiVersion: v1
kind: Secret
metadata: { name: tapray-ray-token }
stringData: { auth_token: "$(random)" }
---
apiVersion: v1
kind: Secret
metadata: { name: tapray-secrets }
stringData:
  mlflow-user: admin
  mlflow-password: "$(random)"
  mlflow-flask-key: "$(random)"
  postgres-password: "$(random)"
  redis-password: "$(random)"
  objects-key: tapray
  objects-secret: "$(random)"
EOF
