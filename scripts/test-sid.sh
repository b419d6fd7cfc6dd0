#!/bin/sh
# Runs the Python tests but the slow ones on every Python of Debian unstable, which has the newest. Needs root, Linux and
# debootstrap. Not a lane of CI: what that release has changes by the day.
#
# Environment, optional:
#   SID=/var/tmp/httpy-sid    where it is, or is made
set -eu
cd "$(dirname "$0")/.."
SID=${SID:-/var/tmp/httpy-sid}
command -v debootstrap >/dev/null || { echo "debootstrap is not here: apt-get install debootstrap" >&2; exit 1; }
[ -f "$SID/etc/debian_version" ] || debootstrap --variant=minbase sid "$SID"
# A mirror may lag behind.
echo 'Acquire::Check-Valid-Until "false";' >"$SID/etc/apt/apt.conf.d/99httpy"
rm -rf "$SID/httpy"
mkdir -p "$SID/httpy"
make -s wheel WHEELS="$SID/httpy/wheels" ARGUMENTS=-q
git ls-files -z | tar c --null -T - | tar x -C "$SID/httpy"
certificates=/etc/ssl/certs/ca-certificates.crt
[ ! -f $certificates ] || install -D $certificates "$SID$certificates"
cat >"$SID/httpy/run" <<'END'
set -eu
export DEBIAN_FRONTEND=noninteractive HOME=/root PIP_DISABLE_PIP_VERSION_CHECK=1
unset PIP_FIND_LINKS
apt-get update -qq
minors=$(apt-cache search --names-only '^python3\.[0-9]+-venv$' | sed 's/-venv.*//' | sort -V)
# shellcheck disable=SC2046,SC2086 # words
apt-get install -y -qq --no-install-recommends $(printf '%s-venv ' $minors) >/dev/null
cd /httpy
for minor in $minors; do
    rm -rf "/venvs/$minor"
    $minor -m venv "/venvs/$minor"
    python=/venvs/$minor/bin/python
    $python -m pip install -q pytest pytest-timeout hypothesis httpx anyio wheels/*.whl
    for package in pydantic msgspec uvloop aiohttp; do
        $python -m pip install -q --only-binary :all: $package || true
    done
    echo "$minor:"
    $python -m pytest -q -m "not slow" || $python -m pytest -q --last-failed --last-failed-no-failures none
done
END
# Mounts of its own, which go when it ends.
exec unshare --mount sh -eu -c 'mount --bind /proc "$1/proc"; mount --rbind /dev "$1/dev"; exec chroot "$1" sh /httpy/run' sh "$SID"
