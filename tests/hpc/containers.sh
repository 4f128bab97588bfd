#!/usr/bin/env bash
# Images and engines: containers.sh [PART...]; as root on a Debian 12 machine of its own (tests/hpc/common.sh).
# Parts: build test wheelhouse podman digest charliecloud apptainer wrap lab; all of them by default.
# shellcheck source=tests/hpc/common.sh
. "$(dirname "$0")/common.sh"

HARSH=(--rm --network=none --read-only --cap-drop=all --security-opt no-new-privileges --user 54321:54321)
REDUCE=(reduce -d $NIGHT -s uv --baseraw /raw --output /work --jobs 2)

out() { mkdir -p "$WORK/$1" && chown "$2:$2" "$WORK/$1"; }

# --- build ------------------------------------------------------------------------------------------------------------
image_test() { make -C "$REPO" image-test ENGINE=podman IMAGE=$IMAGE IMAGE_ARGS="$(image_args)"; }

wheelhouse() {
    local certificates=/etc/ssl/certs/ca-certificates.crt house=$HPC_CACHE/wheelhouse lock
    lock=$(sha256sum "$REPO/requirements.lock" | cut -d ' ' -f 1)
    if [ "$(cat "$house/.lock" 2>/dev/null)" != "$lock" ]; then
        rm -rf "$house" && mkdir -p "$house" && image_args >/dev/null
        podman run --rm --network host --volume "$house:/wheelhouse" --volume "$REPO/requirements.lock:/mnt/requirements.lock:ro" \
            --volume "$WORK/pip.conf:/mnt/pip.conf:ro" --volume "$certificates:$certificates:ro" --env PIP_CONFIG_FILE=/mnt/pip.conf \
            $BASE sh -c 'python3 -m venv /tmp/v && /tmp/v/bin/pip download -q --require-hashes -r /mnt/requirements.lock -d /wheelhouse' ||
            return
        echo "$lock" >"$house/.lock"
    fi
    # No network at all, not even for what does not ask pip: this "host" has none. (Isolation chroot knows no other network.)
    unshare --net make -C "$REPO" image ENGINE=podman IMAGE=$IMAGE-offline WHEELHOUSE="$house" \
        IMAGE_ARGS="--no-cache --network host $(image_args)" &&
        packages_of $IMAGE >"$WORK/online.txt" && packages_of $IMAGE-offline >"$WORK/offline.txt" &&
        diff "$WORK/online.txt" "$WORK/offline.txt" && echo "NOTE $(wc -l <"$WORK/online.txt") packages, the same as from the index"
}
packages_of() { podman run "${HARSH[@]}" --entrypoint cat "$1" /opt/venv/share/panacea_nb/packages.txt; }

# --- podman -----------------------------------------------------------------------------------------------------------
in_podman() {
    out podman 54321
    podman run "${HARSH[@]}" --volume "$WORK/raw:/raw:ro" --volume "$WORK/podman:/work" \
        --env PANACEA_NB_IMAGE_DIGEST="$(image_digest)" $IMAGE "${REDUCE[@]}" && compare "$WORK/outside" "$WORK/podman"
}

digest_is_recorded() { # $1: run, $2: digest
    "$HPC_BIN/python" - "$1" "$2" <<'PYTHON'
import json, sys
from pathlib import Path
from astropy.io import fits
root, digest = Path(sys.argv[1]), sys.argv[2]
products = sorted(root.glob("LRS2/**/*.fits"))
notebooks = sorted(root.glob("**/*.ipynb"))
assert products and notebooks
for path in products:
    assert fits.getheader(path)["IMGDIGST"] == digest, path
for path in notebooks:
    assert json.loads(path.read_text())["metadata"]["panacea_nb"]["image"] == digest, path
records = [json.loads(path.read_text()) for path in root.glob("NIGHTS/*/status/*.json")]
assert all(record["versions"]["image"] == digest for record in records)
print(f"NOTE {digest[:19]}... in {len(products)} products, {len(notebooks)} notebooks and {len(records)} records")
PYTHON
}

unknown_is_a_warning() {
    out unknown 54321
    podman run "${HARSH[@]}" --volume "$WORK/raw:/raw:ro" --volume "$WORK/unknown:/work" $IMAGE "${REDUCE[@]}" --until 00_inventory
    grep -q '"image_unknown"' "$WORK"/unknown/NIGHTS/$NIGHT/status/00_inventory*.json &&
        grep -q '"verdict": "warn"' "$WORK"/unknown/NIGHTS/$NIGHT/status/00_inventory*.json
}

# --- charliecloud -----------------------------------------------------------------------------------------------------
unpacked() {
    [ -d "$WORK/img" ] && return
    local container
    container=$(podman create --network=none $IMAGE) && mkdir "$WORK/img" &&
        podman export "$container" | tar -C "$WORK/img" -xf - && podman rm "$container" &&
        image_digest >"$WORK/img/etc/panacea_nb-digest" && mkdir -p "$WORK/img/raw" && chown -R $HPC_UID "$WORK/img"
}

in_charliecloud() {
    unpacked && out charliecloud $HPC_UID || return
    as_user ch-run --unset-env='*' --set-env --set-env=PANACEA_NB_IMAGE_DIGEST="$(cat "$WORK/img/etc/panacea_nb-digest")" \
        --bind "$WORK/raw:/raw" --bind "$WORK/charliecloud:/work" --cd=/work "$WORK/img" -- panacea-nb "${REDUCE[@]}" &&
        compare "$WORK/outside" "$WORK/charliecloud" &&
        digest_is_recorded "$WORK/charliecloud" "$(image_digest)"
}

# --- apptainer: the real one is in Debian sid, with a root file system of its own --------------------------------------
SID=$HPC_CACHE/sidroot

sid_root() {
    if [ ! -x "$SID/usr/bin/apptainer" ]; then
        rm -rf --one-file-system "$SID" "$SID.part"
        local uri
        uri=$(sed -n 's/^URIs: *//p' /etc/apt/sources.list.d/debian.sources 2>/dev/null | head -n 1)
        echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${uri:-http://deb.debian.org/debian} sid main" >"$WORK/sid.list"
        mmdebstrap --quiet --aptopt='Acquire::Check-Valid-Until "false"' --aptopt='Acquire::Check-Date "false"' --variant=minbase \
            --format=directory --include=apptainer,fuse3,squashfuse,fuse2fs,fuse-overlayfs,e2fsprogs sid "$SID.part" "$WORK/sid.list" || return
        mv "$SID.part" "$SID" || return
    fi
    mkdir -p "$SID/w" "$SID/oldroot" && echo '127.0.0.1 localhost' >"$SID/etc/hosts"
    chroot "$SID" id u >/dev/null 2>&1 || chroot "$SID" useradd --uid $HPC_UID --create-home u
}

# Mounted once; undone at the end, the innermost first.
sid_mounted() {
    mountpoint -q "$SID" && return
    cat >"$WORK/pivot.sh" <<-'PIVOT'
	cd "$SID" && pivot_root . oldroot && cd / && umount -l /oldroot &&
	    exec setpriv --reuid "$HPC_UID" --regid "$HPC_UID" --clear-groups env HOME=/home/u USER=u "$@"
	PIVOT
    mount --bind "$SID" "$SID" && mount --make-private "$SID" && mount --bind "$WORK" "$SID/w" && mount -t proc proc "$SID/proc" &&
        mount --rbind /dev "$SID/dev" && mount --make-rslave "$SID/dev" && mount -t sysfs sys "$SID/sys"
}
sid_unmounted() {
    local place
    for place in "$SID/sys" "$SID/dev" "$SID/proc" "$SID/w" "$SID"; do
        if mountpoint -q "$place"; then umount -R "$place" || umount -R -l "$place"; fi
    done
}
in_sid() { SID=$SID HPC_UID=$HPC_UID unshare -m --propagation slave bash "$WORK/pivot.sh" "$@"; }

sif() {
    sid_mounted || return
    mkdir -p "$WORK/aptmp" && chmod 1777 "$WORK/aptmp"
    cp "$REPO/containers/panacea_nb.def" "$WORK/" && rm -f "$WORK/panacea-nb.tar" "$WORK"/*.sif
    podman save --format docker-archive -o "$WORK/panacea-nb.tar" $IMAGE && chmod 644 "$WORK/panacea-nb.tar" && out sif $HPC_UID || return
    # Root in a chroot may build but not run: %test comes later, as a plain user.
    chroot "$SID" env TMPDIR=/w/aptmp sh -c 'cd /w && apptainer build --notest sif/panacea-nb.sif panacea_nb.def' || return
    chown -R $HPC_UID "$WORK/sif"
    rm "$WORK/panacea-nb.tar"
    echo "NOTE $(du -h "$WORK/sif/panacea-nb.sif" | cut -f 1) as a .sif, from $(podman image inspect --format '{{.Size}}' $IMAGE | numfmt --to=iec) unpacked"
}
sif_speaks() {
    in_sid apptainer run-help /w/sif/panacea-nb.sif | grep -q 'executed notebooks' &&
        in_sid apptainer inspect /w/sif/panacea-nb.sif | grep -q 'image.revision' &&
        in_sid apptainer test --cleanenv /w/sif/panacea-nb.sif &&
        in_sid apptainer run --cleanenv --no-home /w/sif/panacea-nb.sif --version | grep -q '^panacea_nb '
}
in_apptainer() {
    out apptainer $HPC_UID
    local digest
    digest=sha256:$(sha256sum "$WORK/sif/panacea-nb.sif" | cut -d ' ' -f 1)
    in_sid env APPTAINERENV_PANACEA_NB_IMAGE_DIGEST="$digest" apptainer run --cleanenv --no-home --bind /w/raw:/raw:ro \
        --bind /w/apptainer:/work --pwd /work /w/sif/panacea-nb.sif "${REDUCE[@]}" &&
        compare "$WORK/outside" "$WORK/apptainer" && digest_is_recorded "$WORK/apptainer" "$digest"
}

# --- the commands that the workflow makes -----------------------------------------------------------------------------
# wrapped ENGINE IMAGE NETWORK: prints the words that panacea_nb.workflow.containers makes, and checks the container before.
ask='import json, os; print(json.dumps([os.environ.get("PANACEA_NB_IMAGE_DIGEST"), os.environ["A"], os.environ["HOME"], os.getcwd(),
os.getuid(), open("note").read(), "OUTSIDE" in os.environ, os.access("/opt/venv", os.W_OK), os.path.isfile("/etc/panacea_nb-image"), sorted(os.listdir("/sys/class/net"))]))'
wrapped() {
    "$HPC_BIN/python" - "$@" "$WORK/bound" "$ask" <<'PYTHON'
import shlex, sys
from panacea_nb.workflow.containers import Container, check, command
engine, image, network, folder, ask = sys.argv[1:]
container = Container(engine, image, binds=(f"{folder}:/mnt/here",))
if engine != "apptainer":
    check(container)
print(shlex.join(command(container, ["python", "-c", ask], environment={"A": "b, c d"}, workdir="/mnt/here", network=network == "1")))
PYTHON
}
wrap() { # $1: engine, $2: image, $3: digest, $4: uid, $5: network; the rest: what runs the words
    local line said
    mkdir -p "$WORK/bound" && echo -n hello >"$WORK/bound/note"
    line=$(wrapped "$1" "$2" "$5") || return
    echo "NOTE $line" | cut -c 1-150
    said=$(OUTSIDE=1 "${@:6}" bash -c "$line") || return
    echo "$said"
    "$HPC_BIN/python" - "$said" "$3" "$4" <<'PYTHON'
import json, sys
digest, a, home, cwd, uid, note, leaked, writable, inside, _ = json.loads(sys.argv[1])
assert digest == sys.argv[2], (digest, sys.argv[2])
assert (a, cwd, uid, note) == ("b, c d", "/mnt/here", int(sys.argv[3]), "hello"), sys.argv[1]
assert inside and not leaked and (uid == 0 or not writable), sys.argv[1]
PYTHON
}
wrap_apptainer() {
    # The image lies elsewhere in the sid root; the words are made where the program runs, so the paths are told as seen there.
    local digest line said
    digest=sha256:$(sha256sum "$WORK/sif/panacea-nb.sif" | cut -d ' ' -f 1)
    mkdir -p "$WORK/bound" && echo -n hello >"$WORK/bound/note"
    line=$(wrapped apptainer "$WORK/sif/panacea-nb.sif" 0 | sed "s#$WORK/#/w/#g") && echo "NOTE $line" | cut -c 1-150 &&
        said=$(OUTSIDE=1 in_sid bash -c "$line") && echo "$said" && echo "$said" | grep -qF "[\"$digest\", \"b, c d\"" &&
        echo "$said" | grep -qF "\"/mnt/here\", $HPC_UID, \"hello\", false, false, true"
}

# --- JupyterLab -------------------------------------------------------------------------------------------------------
lab() {
    make -C "$REPO" image-lab ENGINE=podman IMAGE=$IMAGE IMAGE_ARGS="$(image_args)" || return
    podman run --detach --name pnb-hpc-lab --publish 127.0.0.1:18888:8888 --read-only --tmpfs /tmp --cap-drop=all --user 54321:54321 \
        --security-opt no-new-privileges --tmpfs /work $IMAGE-lab lab --container -- --IdentityProvider.token=secret || return
    local code=1 i
    for i in $(seq 60); do
        if [ "$(status '?token=secret')" = 200 ]; then code=0; break; fi
        sleep 1
    done
    podman logs pnb-hpc-lab 2>&1 | tail -n 5
    [ $code -eq 0 ] && [ "$(status '')" = 403 ] && [ "$(ss -Hltn sport = :18888 | awk '{print $4}')" = 127.0.0.1:18888 ]
}
status() { curl --silent --output /dev/null --write-out '%{http_code}' "http://127.0.0.1:18888/api/contents$1"; }

# --- what is asked for ------------------------------------------------------------------------------------------------
PARTS=("$@")
[ ${#PARTS[@]} -gt 0 ] || PARTS=(build test wheelhouse podman digest charliecloud apptainer wrap lab)
wants() { local part; for part in "${PARTS[@]}"; do [ "$part" != "$1" ] || return 0; done; return 1; }
for part in "${PARTS[@]}"; do
    case $part in
    build | test | wheelhouse | podman | digest | charliecloud | apptainer | wrap | lab) ;;
    *) sed -n 3p "$0" >&2; exit 2 ;;
    esac
done

begin
export CONTAINERS_CONF=$WORK/containers.conf
check set-up-engines engines || exit
check set-up-project outside || exit
plain_user
check build image || exit
at_end "podman image rm -f $IMAGE-offline $IMAGE-lab"
if wants test; then check test image_test; fi
if wants wheelhouse; then check wheelhouse-without-network wheelhouse; fi
if wants podman || wants charliecloud || wants apptainer; then
    check outside reference || exit
elif wants digest; then
    check simulate raw_night || exit
fi
if wants podman; then
    check podman-reduces in_podman && check podman-digest digest_is_recorded "$WORK/podman" "$(image_digest)"
fi
if wants digest; then check unknown-image-is-a-warning unknown_is_a_warning; fi
if wants charliecloud; then check charliecloud-reduces-as-plain-user in_charliecloud; fi
HAVE_SIF=
if wants apptainer || wants wrap; then
    if ! (sid_root) >"$WORK/log/sid" 2>&1; then
        skip apptainer "Debian sid with apptainer could not be set up: $(tail -n 1 "$WORK/log/sid")"
    elif [ ! -c /dev/fuse ]; then
        skip apptainer "this machine has no /dev/fuse"
    else
        at_end sid_unmounted
        fuse_mode=$(stat -c %a /dev/fuse)
        at_end "chmod $fuse_mode /dev/fuse"
        chmod 666 /dev/fuse
        check sif sif && HAVE_SIF=1
    fi
fi
if wants apptainer && [ -n "$HAVE_SIF" ]; then
    check sif-help-labels-test sif_speaks
    check apptainer-reduces-as-plain-user in_apptainer
fi
if wants wrap; then
    check wrap-podman wrap podman $IMAGE "$(image_digest)" 0 0 env
    check wrap-podman-for-workers wrap podman $IMAGE "$(image_digest)" 0 1 env
    if unpacked >/dev/null 2>&1; then
        check wrap-charliecloud wrap charliecloud "$WORK/img" "$(image_digest)" $HPC_UID 0 as_user
    fi
    if [ -n "$HAVE_SIF" ]; then check wrap-apptainer wrap_apptainer; fi
fi
if wants lab; then
    at_end "podman rm -f pnb-hpc-lab"
    check lab-on-loopback-with-token lab
fi
exit
