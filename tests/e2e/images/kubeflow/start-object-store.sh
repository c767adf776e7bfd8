# A bucket on the disk, as the release makes one in SeaweedFS, and its keys.
set -eu
mkdir -p /data/mlpipeline
exec versitygw --port :8333 --access "$accesskey" --secret "$secretkey" --health /status posix /data
