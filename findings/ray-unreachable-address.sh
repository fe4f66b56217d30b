#!/usr/bin/env bash
# ray.init does not come back from an address where nobody listens.
#
# ray 2.60.0 (PyPI, Python 3.11): with `address="127.0.0.1:1"`, where the connection is refused at once, ray.init has
# neither raised nor returned after 100 seconds; it writes "Failed to connect to GCS … within 5 seconds" meanwhile. Its
# documentation promises a ConnectionError. A connection of one's own before, with a time limit, is the way round.
#
# Seen on 2026-11-29; fails if this changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check ray==2.60.0
cat > "$folder/join.py" <<'END'
import ray

ray.init(address="127.0.0.1:1", log_to_driver=False)
END
begin=$(date +%s)
RAY_USAGE_STATS_ENABLED=0 timeout 100 "$folder/env/bin/python" "$folder/join.py" >"$folder/log" 2>&1 && code=0 || code=$?
seconds=$(($(date +%s) - begin))
told=$(grep -c "Failed to connect to GCS" "$folder/log" || true)
if [ "$code" != 124 ] || [ "$told" -lt 1 ]; then
    echo "changed: ended with $code after $seconds s"
    tail -3 "$folder/log"
    exit 1
fi
echo "no answer after 100 s; it has written 'Failed to connect to GCS' $told times"
