#!/usr/bin/env bash
# Copies the head's logs to a folder in the bucket once a minute: of jobs what the driver prints, of GCS and autoscaler
# which nodes came and went. `ray down` takes the node with its disk. Once on a node, whoever starts it again.
#
#     ship-logs.sh s3://BUCKET/PREFIX/logs
set -u
exec 9> /tmp/ship-logs.lock
flock --nonblock 9 || exit 0
while sleep 60; do
  session=$(readlink --canonicalize /tmp/ray/session_latest) || continue
  aws s3 sync "$session/logs" "$1/$(basename "$session")" --only-show-errors \
    --exclude "*" --include "job-driver-*" --include "gcs_server*" --include "monitor*"
done
