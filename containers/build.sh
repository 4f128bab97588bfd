#!/bin/sh
# Build and test the images: build.sh image | lab | test | sif. `make image`, `image-lab`, `image-test` and `sif` call it.
#
# ENGINE      docker or podman; found by itself
# IMAGE       name of the image (panacea-nb); that with JupyterLab has -lab behind it
# IMAGE_ARGS  further words for the builder: --platform linux/arm64, --build-arg BASE_IMAGE=...
# WHEELHOUSE  folder with the wheels of the lock files, for a build without network
# SIF         Apptainer image to make (IMAGE.sif);  APPTAINER  the program (apptainer)
set -eu
cd "$(dirname "$0")/.."
IMAGE=${IMAGE:-panacea-nb}
SIF=${SIF:-$(basename "$IMAGE" | tr : -).sif}
APPTAINER=${APPTAINER:-apptainer}

fail() { printf '%s\n' "$@" >&2; exit 2; }

# The first engine that is installed and answers: docker without its daemon does not.
find_engine() {
    if [ -n "${ENGINE:-}" ]; then
        "$ENGINE" info >/dev/null 2>&1 || fail "ENGINE=$ENGINE is not installed or does not answer: see '$ENGINE info'."
        return
    fi
    for ENGINE in docker podman; do
        "$ENGINE" info >/dev/null 2>&1 && return
    done
    fail "Neither docker nor podman is installed here and answers ('docker info', 'podman info')." \
        "On Debian or Ubuntu: apt install podman. Without either, an image can be built on another machine and copied" \
        "here as a file (containers/README.md), and 'make install' needs no container."
}

# $1: target; the rest: further words.
build() {
    target=$1; shift
    version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' panacea_nb/__init__.py)
    revision=$(git describe --always --abbrev=40 --exclude '*' --dirty 2>/dev/null || echo unknown)
    set -- -f containers/Dockerfile --target "$target" \
        --build-arg "VERSION=$version" --build-arg "REVISION=$revision" "$@"
    # docker reads containers/Dockerfile.dockerignore by itself.
    if [ "$(basename "$ENGINE")" = podman ]; then set -- --ignorefile containers/Dockerfile.dockerignore "$@"; fi
    if [ -n "${WHEELHOUSE:-}" ]; then
        set -- --network none --build-context "wheelhouse=$WHEELHOUSE" --build-arg PIP_NO_INDEX=1 \
            --build-arg PIP_FIND_LINKS=/wheelhouse "$@"
    fi
    # shellcheck disable=SC2086 # words, on purpose
    "$ENGINE" build "$@" ${IMAGE_ARGS:-} .
}

case ${1:-} in
image)
    find_engine
    build headless -t "$IMAGE"
    echo "Image $IMAGE ($("$ENGINE" image inspect --format '{{.Id}}' "$IMAGE")), made with $ENGINE"
    ;;
lab)
    find_engine
    build lab -t "$IMAGE-lab"
    echo "Image $IMAGE-lab ($("$ENGINE" image inspect --format '{{.Id}}' "$IMAGE-lab")), made with $ENGINE"
    ;;
test)
    find_engine
    "$ENGINE" image inspect "$IMAGE" >/dev/null 2>&1 || fail "There is no image $IMAGE yet: make image"
    # As harsh as any site: nothing can be written, no network, no rights, a user that the image does not know.
    "$ENGINE" run --rm --network none --read-only --tmpfs /tmp --user 54321:54321 --cap-drop all \
        --security-opt no-new-privileges --volume "$PWD:/mnt:ro" --entrypoint python "$IMAGE" \
        /mnt/containers/check_image.py /mnt/requirements.lock
    build test
    ;;
sif)
    command -v "$APPTAINER" >/dev/null 2>&1 || fail \
        "There is no program '$APPTAINER' here. Where it is only on other machines (at TACC: on compute nodes, after" \
        "'module load tacc-apptainer'), take the image there as a file: containers/README.md, section Apptainer." \
        "On Debian or Ubuntu: see https://apptainer.org/docs/admin/main/installation.html"
    archive=panacea-nb.tar # as containers/panacea_nb.def names it
    if [ -f "$archive" ]; then
        echo "Taking the image from $archive, which is here; remove it to have $IMAGE saved anew."
    else
        find_engine
        "$ENGINE" image inspect "$IMAGE" >/dev/null 2>&1 || fail "There is no image $IMAGE yet: make image"
        trap 'rm -f "$archive"' EXIT
        if [ "$(basename "$ENGINE")" = podman ]; then set -- --format docker-archive; else set --; fi
        "$ENGINE" save "$@" -o "$archive" "$IMAGE"
    fi
    "$APPTAINER" build --force "$SIF" containers/panacea_nb.def
    echo "Image $SIF (sha256:$(sha256sum "$SIF" | cut -d ' ' -f 1))"
    ;;
*)
    fail "usage: $0 image | lab | test | sif"
    ;;
esac
