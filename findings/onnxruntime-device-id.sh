#!/usr/bin/env bash
# ONNX Runtime's wheels for Linux write an identifier of the machine into the user's cache when they are imported.
#
# onnxruntime 1.28.0 (PyPI, x86-64 Linux, Python 3.11): `import onnxruntime` writes nothing.
# onnxruntime 1.29.0 and 1.32.0: the import alone, no session and no model, leaves
# $HOME/.cache/Microsoft/DeveloperTools/.onnxruntime/deviceid with a random UUID, and the documented
# `disable_telemetry_events()` comes too late to prevent it, for it can only be called after the import.
# ORT_DISABLE_TELEMETRY=1 in the environment prevents it.
#
# Seen on 2026-11-28; fails if one of these changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for version in 1.28.0 1.29.0 1.32.0; do python3 -m venv "$folder/$version"; done
"$folder/1.28.0/bin/pip" install --quiet --disable-pip-version-check onnxruntime==1.28.0
"$folder/1.29.0/bin/pip" install --quiet --disable-pip-version-check onnxruntime==1.29.0
"$folder/1.32.0/bin/pip" install --quiet --disable-pip-version-check onnxruntime==1.32.0
written() { # VERSION [NAME=VALUE…]: files in a fresh home after an import
    local version=$1; shift
    rm -rf "$folder/home"; mkdir "$folder/home"
    env -u XDG_CACHE_HOME -u ORT_DISABLE_TELEMETRY HOME="$folder/home" "$@" \
        "$folder/$version/bin/python" -c 'import onnxruntime; onnxruntime.disable_telemetry_events()'
    (cd "$folder/home" && find . -type f -name 'deviceid' | sort)
}
check() { # WHAT EXPECTED FOUND
    if [ "$2" != "$3" ]; then echo "changed: $1: expected '$2', found '$3'"; exit 1; fi
    echo "$1: '$3'"
}
file=./.cache/Microsoft/DeveloperTools/.onnxruntime/deviceid
check "1.28.0" "" "$(written 1.28.0)"
check "1.29.0" "$file" "$(written 1.29.0)"
check "1.32.0" "$file" "$(written 1.32.0)"
check "1.32.0, ORT_DISABLE_TELEMETRY=1" "" "$(written 1.32.0 ORT_DISABLE_TELEMETRY=1)"
