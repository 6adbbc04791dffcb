#!/bin/bash
# Builds every image without a Docker engine, upon a fresh debootstrap of Debian 12 in place of the base image, and
# tries what is in them. As root; needs: apt-get install buildah debootstrap
# PIP_FOLDERS names folders of package indexes on this machine, for where pip is set up with such.
set -euo pipefail
cd "$(dirname "$0")/.."
for command in buildah debootstrap; do
  command -v "$command" > /dev/null || { echo "install: apt-get install buildah debootstrap" >&2; exit 2; }
done
scratch="$(mktemp -d /var/tmp/tapray-images.XXXX)"
trap 'rm -rf "$scratch"' EXIT
export STORAGE_DRIVER=vfs BUILDAH_ISOLATION=chroot TMPDIR="$scratch"
tool=(buildah --root "$scratch/storage" --runroot "$scratch/run")
volumes=()
for path in /etc/pip.conf /etc/ssl/certs ${PIP_FOLDERS:-}; do
  [[ -e "$path" ]] && volumes+=(--volume "$path:$path:ro")
done

mirror="$(grep -hoP '^(URIs: |deb (\[[^]]*\] )?)\K[a-z]+:\S+' /etc/apt/sources.list /etc/apt/sources.list.d/* 2> /dev/null | head -n 1 || true)"
debootstrap --variant=minbase bookworm "$scratch/root" "$mirror" > "$scratch/debootstrap.log"
base="$("${tool[@]}" from scratch)"
"${tool[@]}" add --quiet "$base" "$scratch/root" /
"${tool[@]}" commit --quiet "$base" localhost/base:latest
rm -rf "$scratch/root"

for target in cpu cuda mlflow; do
  "${tool[@]}" bud --quiet --layers --build-arg BASE=localhost/base:latest --target "$target" "${volumes[@]}" \
    --file docker/Dockerfile --tag "localhost/tapray:$target" .
  size="$("${tool[@]}" images --format '{{.Size}}' "localhost/tapray:$target")"
  echo "$target: built, $size"
done
box="$("${tool[@]}" from localhost/tapray:cpu)"
# shellcheck disable=SC2016 # expanded within
"${tool[@]}" run "$box" -- bash -c '
  set -e
  test "$(id -u)" = 1000
  if command -v gcc; then exit 1; fi # after a bare "!" bash goes on
  command -v ssh rsync > /dev/null
  test "$(find /opt/tapray -name "*.pyc" | wc -l)" -gt 5000
  tapray --help > /dev/null && ray --version
  python -c "import boto3, gcsfs, googleapiclient, s3fs"'
"${tool[@]}" copy --quiet "$box" studies/tiny.yaml /home/ray/tiny.yaml
"${tool[@]}" run "$box" -- bash -lc 'tapray run tiny.yaml --progress quiet && test -s runs/tiny/report/results.csv'
echo "cpu: a tiny study runs"
box="$("${tool[@]}" from localhost/tapray:cuda)"
"${tool[@]}" run "$box" -- python -c '
import torch
x = torch.arange(8.0)
assert torch.allclose(torch.compile(lambda x: (x + 1).sin())(x), (x + 1).sin())'
echo "cuda: what it compiles is right"
box="$("${tool[@]}" from localhost/tapray:mlflow)"
"${tool[@]}" run "$box" -- bash -c '
  set -e
  if serve-mlflow > /tmp/told 2>&1; then exit 1; fi
  grep "MLFLOW_AUTH_ADMIN_PASSWORD is not set" /tmp/told
  mlflow --version && python -c "import psycopg2, boto3, flask_wtf"'
echo "mlflow: its packages are there, and it refuses to start without passwords"
