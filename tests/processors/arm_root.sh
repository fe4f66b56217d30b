#!/usr/bin/env bash
# Debian's Python 3.11 for arm64, and the runtime with its requirements' aarch64 wheels, in FOLDER: for qemu-aarch64 -L
# FOLDER. Nothing of the system is changed, and no root is needed.
#
#     tests/processors/arm_root.sh FOLDER PYTHON   # PYTHON 3.11 or newer: its packages' versions are taken, and its pip
#
# Needs apt and dpkg, Debian's keyring (debian-archive-keyring) and a package index. 380 MB. Made again only where PYTHON's
# packages have changed.
set -euo pipefail
root=$(realpath -m "$1") python=$(realpath -s "$2")
here=$(cd "$(dirname "$0")/../.." && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

"$python" - > "$scratch/versions" <<'PYTHON'
from importlib.metadata import distributions
print(*sorted(f"{one.name}=={one.version}" for one in distributions() if one.name not in ("gar-edge", "torch")), sep="\n")
PYTHON
if cmp -s "$scratch/versions" "$root/versions"; then exit 0; fi

mkdir -p "$root" "$scratch"/state/lists/partial "$scratch"/cache/archives/partial "$scratch"/debs
touch "$scratch/status"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]" \
    "${DEBIAN_MIRROR:-http://deb.debian.org/debian} bookworm main" > "$scratch/sources.list"
cat > "$scratch/apt.conf" <<CONF
APT::Architecture "arm64";
APT::Architectures { "arm64"; };
APT::Sandbox::User "$(id -un)";
Dir::State "$scratch/state";
Dir::State::status "$scratch/status";
Dir::Cache "$scratch/cache";
Dir::Etc::sourcelist "$scratch/sources.list";
Dir::Etc::sourceparts "/dev/null";
CONF
export APT_CONFIG=$scratch/apt.conf
apt-get update -qq
(cd "$scratch/debs" && apt-get download -qq python3.11-minimal libpython3.11-minimal libpython3.11-stdlib libc6 \
    libgcc-s1 libstdc++6 zlib1g libexpat1 libssl3 libffi8 libbz2-1.0 liblzma5 libsqlite3-0 libuuid1 libcrypt1)
for package in "$scratch"/debs/*.deb; do dpkg -x "$package" "$root"; done

"$python" - "$here/pyproject.toml" > "$scratch/requirements" <<'PYTHON'
import sys, tomllib
project = tomllib.load(open(sys.argv[1], "rb"))["project"]
print(*project["dependencies"], *project["optional-dependencies"]["cpu"], sep="\n")
PYTHON
rm -rf "$root/site"
"$python" -m pip install -qq --disable-pip-version-check --no-warn-conflicts --target "$root/site" --only-binary=:all: \
    --python-version 3.11 --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 \
    --platform manylinux_2_17_aarch64 --platform manylinux2014_aarch64 \
    -c "$scratch/versions" -r "$scratch/requirements"
mkdir -p "$root/site/gar_edge"
ln -sfn "$here/runtime" "$root/site/gar_edge/runtime"
cp "$scratch/versions" "$root/versions"
