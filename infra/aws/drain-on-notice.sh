#!/usr/bin/env bash
# Waits for EC2's notice that this spot node will be taken, two minutes before, and tells Ray at HEAD:PORT: nothing new
# comes, and what runs may end. Once on a node, whoever starts it again.
#
#     drain-on-notice.sh RAY HEAD:PORT
set -u
exec 9> /tmp/drain-on-notice.lock
flock --nonblock 9 || exit 0
metadata=http://169.254.169.254/latest
while sleep 5; do
  token=$(curl --silent --max-time 2 --request PUT --header "X-aws-ec2-metadata-token-ttl-seconds: 60" "$metadata/api/token")
  if curl --silent --fail --max-time 2 --output /dev/null --header "X-aws-ec2-metadata-token: $token" \
    "$metadata/meta-data/spot/instance-action"; then
    "$1" drain-node --address "$2" --reason DRAIN_NODE_REASON_PREEMPTION \
      --reason-message "EC2 takes the spot node" --deadline-remaining-seconds 110 && exit 0
  fi
done
