#!/usr/bin/env bash
# The daily job: what cron starts on a login node each morning. It only submits; the work is done in batch jobs.
#   runs/daily/daily.sh [SETTINGS]      settings: daily.conf beside this script by default (copy daily.conf.example)
# It may be started as often as you like: nights that are up to date, without data, or in a job already are left alone, and
# missed days are caught up, because what is due is derived from the products themselves.
# Exit code: 0 nothing failed; 1 a night has failed tasks; 2 nothing could be submitted; 3 another daily.sh is at it.
set -u
here=$(cd "$(dirname "$0")" && pwd)
settings=${1:-$here/daily.conf}
[ -f "$settings" ] || { echo "daily: there are no settings $settings: copy daily.conf.example and edit it" >&2; exit 2; }
DAYS=14 OPTIONS=() GROUP= PUBLISH= TODAY=
. "$settings"
for name in PANACEA_NB OUTPUT BASERAW SITE; do
    [ -n "${!name:-}" ] || { echo "daily: $settings does not set $name" >&2; exit 2; }
done
umask 027   # others than the group have no business here; --group and the folders' setgid bit say which group

mkdir -p "$OUTPUT" || exit 2
exec 9> "$OUTPUT/.daily.lock"
flock --nonblock 9 || { echo "daily: another daily.sh is at work on $OUTPUT" >&2; exit 3; }

last=${TODAY:-$(date -u +%Y%m%d)}          # a night's date is the UT date of its end: this morning's
first=$(date -u -d "$last - $DAYS days" +%Y%m%d)
code=0

# 1. Jobs that were cut short without a fault of theirs.
"$PANACEA_NB" submit --resume --output "$OUTPUT" 9>&- || code=2

# 2. The new night, and what was missed or is not complete.
"$PANACEA_NB" submit --from "$first" --to "$last" --site "$SITE" --baseraw "$BASERAW" --output "$OUTPUT" \
    ${GROUP:+--group "$GROUP"} "${OPTIONS[@]}" 9>&- || code=2

# 3. Reports of finished nights go where people look; one that did not change is left alone.
failed=()
for night in "$OUTPUT"/NIGHTS/[0-9]*/; do
    [ -d "$night" ] || continue  # there is none yet
    night=$(basename "$night"); date=${night%%_*}
    [[ $date -ge $first && $date -le $last ]] || continue
    report=$OUTPUT/NIGHTS/$night/report
    if [ -n "$PUBLISH" ] && [ -f "$report/index.html" ]; then
        if [ ! "$PUBLISH/$night/index.html" -nt "$report/index.html" ]; then
            mkdir -p "$PUBLISH" && rm -rf "$PUBLISH/.$night.part" && cp -r "$report" "$PUBLISH/.$night.part" &&
                { [ -z "$GROUP" ] || { chgrp -R "$GROUP" "$PUBLISH/.$night.part" && chmod -R g+rX "$PUBLISH/.$night.part"; }; } &&
                rm -rf "${PUBLISH:?}/$night" && mv "$PUBLISH/.$night.part" "$PUBLISH/$night" && echo "published $PUBLISH/$night" ||
                { echo "daily: the report of $night could not be published in $PUBLISH" >&2; code=2; }
        fi
    fi
    if grep -qs '"state": "failed"' "$OUTPUT/NIGHTS/$night/status/"*.json; then failed+=("$night"); fi
done

# 4. A short summary, which cron sends by mail.
echo
"$PANACEA_NB" status --output "$OUTPUT" 9>&- | awk -v first="$first" 'NR <= 2 || $1 >= first'
if [ ${#failed[@]} -gt 0 ]; then
    echo "failed tasks in ${failed[*]}: see the reports, or panacea-nb status -d NIGHT --output $OUTPUT"
    [ $code -ne 0 ] || code=1
fi
exit $code
