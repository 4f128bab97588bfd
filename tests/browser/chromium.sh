#!/bin/sh
# Says where Chromium is; installs it with apt where that is possible, else says what is missing.
set -eu
find_it() {
    for name in ${PANACEA_BROWSER:-chromium chromium-browser google-chrome google-chrome-stable}; do
        command -v "$name" && return 0
    done
    return 1
}
find_it && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "browser-test: installing chromium with apt ..." >&2
    { apt-get -qq update && apt-get -qq install -y --no-install-recommends chromium fonts-dejavu-core; } >/dev/null 2>&1 || true
    find_it && exit 0
fi
echo "browser-test needs Chromium or Chrome, and there is none. On Debian or Ubuntu: apt install chromium fonts-dejavu-core;" >&2
echo "or name the program in PANACEA_BROWSER." >&2
exit 2
