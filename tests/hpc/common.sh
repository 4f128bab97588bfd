# What the checks of this folder share; sourced by them. They need a Debian 12 machine of their own, as root: they install
# packages and make users and mounts. What takes long to make is kept in $HPC_CACHE (4 GB; remove it as you like), everything
# else but the packages is undone at the end.
#
# HPC_CACHE       folder for what is kept (/var/tmp/panacea_nb-hpc)
# HPC_BIN         bin folder of an environment with the packages of requirements.lock; default: .venv/bin, made by make install
# HPC_IMAGE_ARGS  further words for the image's builder
set -u
REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
HPC_CACHE=${HPC_CACHE:-/var/tmp/panacea_nb-hpc}
HPC_BIN=${HPC_BIN:-$REPO/.venv/bin}
HPC_USER=panacea-hpc
HPC_UID=24601
BASE=localhost/debian-stand-in:bookworm
IMAGE=localhost/panacea-nb-hpc
NIGHT=20250115
WORK=
PASSED=0 FAILED=0 SKIPPED=0
CLEANUP=()

# --- reporting --------------------------------------------------------------------------------------------------------
note() { printf '     %s\n' "$*"; }

# check NAME COMMAND...: PASS or FAIL with the seconds it took; its output goes to a file, whose end is shown on failure.
check() {
    local name=$1 start=$SECONDS; shift
    if ("$@") >"$WORK/log/$name" 2>&1; then
        printf 'PASS %s (%d s)\n' "$name" $((SECONDS - start))
        sed -n 's/^NOTE /     /p' "$WORK/log/$name"
        PASSED=$((PASSED + 1))
    else
        printf 'FAIL %s (%d s)\n' "$name" $((SECONDS - start))
        tail -n "${HPC_TAIL:-25}" "$WORK/log/$name" | sed 's/^/     | /'
        FAILED=$((FAILED + 1))
        return 1
    fi
}

skip() {
    printf 'SKIPPED %s: %s\n' "$1" "$2"
    SKIPPED=$((SKIPPED + 1))
}

# To be done at the end, the last first, whatever happens.
at_end() { CLEANUP+=("$*"); }

finish() {
    local code=$? i
    trap - EXIT INT TERM HUP
    cd /
    for ((i = ${#CLEANUP[@]} - 1; i >= 0; i--)); do eval "${CLEANUP[i]}" >/dev/null 2>&1; done
    if [ -n "$WORK" ]; then
        if [ "$FAILED" -gt 0 ] && [ -z "${HPC_KEEP_NOTHING:-}" ]; then
            rm -rf "$HPC_CACHE/failed" && cp -r "$WORK/log" "$HPC_CACHE/failed" && note "logs: $HPC_CACHE/failed"
        fi
        # Nothing may be mounted below any more: what is there would be removed with it.
        if grep -q " $WORK/" /proc/self/mountinfo; then
            note "still mounted below $WORK, which is therefore left:"; grep " $WORK/" /proc/self/mountinfo
            FAILED=$((FAILED + 1))
        else
            rm -rf --one-file-system "$WORK"
        fi
    fi
    printf '%d passed, %d failed, %d skipped\n' "$PASSED" "$FAILED" "$SKIPPED"
    [ "$code" -eq 0 ] || exit "$code"
    [ "$FAILED" -eq 0 ]
    exit
}

# --- the machine ------------------------------------------------------------------------------------------------------
begin() {
    if [ "$(id -u)" -ne 0 ]; then echo "These checks need root on a machine of their own." >&2; exit 2; fi
    if ! grep -q '^VERSION_CODENAME=bookworm' /etc/os-release; then
        echo "These checks know Debian 12 (bookworm) only." >&2; exit 2
    fi
    trap finish EXIT
    trap 'exit 130' INT TERM HUP
    mkdir -p "$HPC_CACHE"
    WORK=$(mktemp -d /tmp/panacea_hpc.XXXXXX)
    chmod 755 "$WORK"
    mkdir "$WORK/log"
    umask 022
    export PYTHONPATH=$REPO PYTHONDONTWRITEBYTECODE=1
    export CONTAINERS_CONF=$WORK/containers.conf CONTAINERS_STORAGE_CONF=$WORK/storage.conf
    unset PANACEA_NB_IMAGE_DIGEST
}

# packages NAME...: install what is missing.
packages() {
    local missing=() name
    for name in "$@"; do
        dpkg-query -W -f '${Status}' "$name" 2>/dev/null | grep -q 'ok installed' || missing+=("$name")
    done
    [ ${#missing[@]} -eq 0 ] && return
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
}

# A user without rights, for the engines that need none.
plain_user() {
    id "$HPC_USER" >/dev/null 2>&1 && return
    useradd --uid $HPC_UID --create-home --home-dir "$WORK/home" "$HPC_USER"
    at_end "userdel $HPC_USER"
}
as_user() { setpriv --reuid $HPC_UID --regid $HPC_UID --clear-groups env HOME="$WORK/home" USER=$HPC_USER "$@"; }

# The project, outside of any container.
outside() {
    [ -x "$HPC_BIN/panacea-nb" ] && return
    packages python3-venv python3-dev gcc make git && make -C "$REPO" install VENV="${HPC_BIN%/bin}"
}
panacea() { "$HPC_BIN/python" -m panacea_nb "$@"; }
compare() { "$HPC_BIN/python" "$REPO/tests/hpc/compare.py" "$@" >"$WORK/compare.$$" && sed 's/^/NOTE /' "$WORK/compare.$$" || { cat "$WORK/compare.$$"; false; }; }

raw_night() {
    [ -d "$WORK/raw" ] && return
    panacea simulate "$WORK/raw.part" --date $NIGHT --seed 1 --scenario demo --sides uv && mv "$WORK/raw.part" "$WORK/raw"
}

reference() { # the products that all others are compared with
    raw_night && panacea reduce -d $NIGHT -s uv --baseraw "$WORK/raw" --output "$WORK/outside" --jobs 2
}

# --- engines and images -----------------------------------------------------------------------------------------------
engines() {
    packages podman buildah runc uidmap netavark fuse-overlayfs slirp4netns mmdebstrap charliecloud-runtime || return
    cat >"$WORK/containers.conf" <<-CONF
	[containers]
	default_ulimits = ["nofile=4096:16384", "nproc=4096:4096"]
	[engine]
	runtime = "runc"
	cgroup_manager = "cgroupfs"
	CONF
    # Images of these checks are kept with the rest and touch nobody else's. podman remembers the second folder.
    cat >"$WORK/storage.conf" <<-CONF
	[storage]
	driver = "overlay"
	graphroot = "$HPC_CACHE/storage"
	runroot = "/run/panacea_nb-hpc"
	CONF
}

# The stand-in for a base image from a registry: Debian with Python and its venv module.
base_image() {
    podman image exists $BASE && return
    if [ ! -f "$HPC_CACHE/base.tar" ]; then
        mmdebstrap --quiet --format=tar --variant=minbase --include=python3,python3-venv,ca-certificates bookworm \
            "$HPC_CACHE/base.tar.part" && mv "$HPC_CACHE/base.tar.part" "$HPC_CACHE/base.tar" || return
    fi
    podman import "$HPC_CACHE/base.tar" $BASE
}

# This machine's own way to packages (certificates, index) goes in as a secret and a volume and stays out of the image.
image_args() {
    local certificates=/etc/ssl/certs/ca-certificates.crt
    { echo '[global]'
      "$HPC_BIN/python" -m pip config list | sed -nE \
        "s/^[a-z:]+\.(cert|index-url|extra-index-url|trusted-host|timeout|proxy)='([^']*)'$/\1 = \2/p" |
        grep -v 'file:' | awk '!seen[$1]++'; } >"$WORK/pip.conf"
    printf '%s' "--isolation chroot --build-arg BASE_IMAGE=$BASE --secret id=pipconf,src=$WORK/pip.conf "
    [ ! -f $certificates ] || printf '%s' "--volume $certificates:$certificates:ro "
    printf '%s' "${HPC_IMAGE_ARGS:-}"
}

image() { # the image under test, built once
    podman image exists $IMAGE && [ -n "${HPC_REUSE_IMAGE:-}" ] && return
    base_image && make -C "$REPO" image ENGINE=podman IMAGE=$IMAGE IMAGE_ARGS="$(image_args)"
}
image_digest() { podman image inspect --format 'sha256:{{.Id}}' "${1:-$IMAGE}"; }
