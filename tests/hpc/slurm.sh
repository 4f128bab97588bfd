#!/usr/bin/env bash
# Reductions through Slurm: sets up two nodes on this machine (Debian 12, as root) and proves what the documentation promises.
#   tests/hpc/slurm.sh [PART...]        parts: one-node two-nodes image pilot wall-time kill-driver campaign daily
#   tests/hpc/slurm.sh measure          efficiency, overhead per task, cost per night; only when asked for
# HPC_IMAGE_DIR names the folder of the unpacked image, for the part `image`; without it the image is built with podman.
# What else can be set stands in tests/hpc/common.sh.
. "$(dirname "$0")/common.sh"
. "$(dirname "$0")/cluster.sh"
asked=("$@")
begin
export PANACEA_NB_TRIAL=$WORK   # marks all that is started here
outside >"$WORK/log/outside" 2>&1 || { cat "$WORK/log/outside" >&2; exit 2; }
python=$HPC_BIN/python

# A plain user, as everywhere, if one may use this Python at all (not below /root).
person=root
plain_user
as_user() { setpriv --reuid $HPC_UID --regid $HPC_UID --clear-groups env HOME="$WORK/home" USER=$HPC_USER "$@"; }
if as_user "$python" -c 'import parsl, panacea_nb' 2>/dev/null; then
    person=$HPC_USER
else
    note "a plain user may not read $python, so jobs run as root"
fi
mkdir -p "$WORK/home" && chown "$person" "$WORK/home" "$WORK"
as() { if [ "$person" = root ]; then env HOME="$WORK/home" "$@"; else as_user "$@"; fi; }
nb() { as "$python" -m panacea_nb "$@"; }

kill_marked() { # what a part that failed left behind
    local file
    for file in /proc/[0-9]*/environ; do
        tr '\0' '\n' < "$file" 2>/dev/null | grep -qx "PANACEA_NB_TRIAL=$WORK" && kill -9 "$(echo "$file" | cut -d/ -f3)"
    done
}
at_end kill_marked
at_end cluster_stop
if ! check cluster eval 'cluster_install && cluster_start "$WORK/cluster"'; then exit 1; fi
export SLURM_CONF=$WORK/cluster/slurm.conf

# part NAME FUNCTION: runs it when it was asked for, or nothing was. Where it cannot be done FUNCTION_needs says why.
part() {
    local why=
    [ ${#asked[@]} -eq 0 ] || [[ " ${asked[*]} " == *" $1 "* ]] || return 0
    ! declare -F "$2_needs" >/dev/null || why=$("$2_needs" 2>>"$WORK/log/$1")
    if [ -n "$why" ]; then skip "$1" "$why"; else check "$1" "$2"; fi
}
need() { "$@" || { echo "not so: $*"; exit 1; }; }
wait_for() { # wait_for SECONDS COMMAND...: until the command succeeds
    local end=$((SECONDS + $1)); shift
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $end ] || { echo "not within time: $*"; return 1; }
        sleep 1
    done
}

site() {  # site NAME LINES...: a site of this cluster
    local name=$1; shift
    { echo 'scheduler: slurm'; echo 'launcher: srun'; echo 'sbatch: [--exclusive]'; echo 'staging: true'
      echo "scratch: /tmp"; echo 'walltime: "00:30:00"'; printf '%s\n' "$@"; } > "$WORK/$name.yaml"
    echo "$WORK/$name.yaml"
}
raw() {  # raw DATE SEED: a simulated night
    [ -d "$WORK/raw/$1" ] || nb simulate "$WORK/raw" --date "$1" --seed "$2" --scenario demo --sides uv
}
reference() {  # the night without Slurm, once
    need raw 20250115 1
    [ -f "$WORK/reference.seconds" ] || {
        local begin=$SECONDS
        nb reduce -d 20250115 -s uv --baseraw "$WORK/raw" --output "$WORK/reference" --jobs 2 &&
            echo $((SECONDS - begin)) > "$WORK/reference.seconds"
    }
}
send() { nb submit -d 20250115 -s uv --baseraw "$WORK/raw" "$@"; }
idle() { local found; found=$(squeue --noheader) && [ -z "$found" ]; }
code_of() { awk -v night="${2:-20250115}" '$1 == night {code = $2} END {print code}' "$1"/*.codes; }
owner() { "$python" -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$1/NIGHTS/20250115/.lock" "$2"; }
of_run() {  # processes that carry a run's token
    local file
    for file in /proc/[0-9]*/environ; do
        tr '\0' '\n' < "$file" 2> /dev/null | grep -qx "PANACEA_NB_RUN=$1" && echo "$file"
    done
    return 0
}
kill_both() { kill -9 $(pgrep -P "$1" -f leash.py) "$1"; }   # the driver, and what looks after its machine
nothing_left() { [ -z "$(of_run "$1")" ]; }
tasks_run() { grep -l '"state": "running"' "$1"/NIGHTS/20250115/status/*.json; }
tasks_done() { [ "$(grep -l '"state": "succeeded"' "$1"/NIGHTS/20250115/status/*.json 2> /dev/null | wc -l)" -ge "$2" ]; }
same() { as "$python" "$REPO/tests/hpc/compare.py" "$WORK/reference" "$@"; }
jobs_of() { echo "$1/NIGHTS/20250115/jobs"; }
outputs() { cat "$(jobs_of "$1")"/*.out; }

one_node() {
    need reference
    need send --site "$(site one)" --output "$WORK/one"
    need wait_for 600 idle
    outputs "$WORK/one"
    need [ "$(code_of "$(jobs_of "$WORK/one")")" = 0 ]
    same "$WORK/one"
    need nb status -d 20250115 --output "$WORK/one"
}

two_nodes() {
    need reference
    local site; site=$(site two 'workers: 1')
    need send --site "$site" --nodes 2 --output "$WORK/two"
    need wait_for 120 tasks_run "$WORK/two"
    nb status -d 20250115 --output "$WORK/two"
    ! send --site "$site" --nodes 2 --output "$WORK/two" || { echo 'a second job for the same night was taken'; exit 1; }
    need wait_for 600 idle
    outputs "$WORK/two"
    need [ "$(code_of "$(jobs_of "$WORK/two")")" = 0 ]
    same "$WORK/two"
}

in_image_needs() {
    packages charliecloud-runtime >&2 || { echo 'charliecloud cannot be installed'; return; }
    [ -n "${HPC_IMAGE_DIR:-}" ] && return
    { engines && export CONTAINERS_CONF=$WORK/containers.conf && image; } >&2 ||
        { echo 'the image cannot be built with podman, and HPC_IMAGE_DIR names none'; return; }
    local container
    container=$(podman create --network=none $IMAGE) && mkdir "$WORK/img" && podman export "$container" | tar -C "$WORK/img" -xf - &&
        podman rm "$container" >&2 && image_digest > "$WORK/img/etc/panacea_nb-digest" && chmod -R go+rX "$WORK/img" &&
        chown "$person" "$WORK/img" || echo 'the image cannot be unpacked'
}
in_image() {
    local image=${HPC_IMAGE_DIR:-$WORK/img} site
    need reference
    site=$(site image 'workers: 1' 'container:' '  engine: charliecloud' "  image: $image")
    need send --site "$site" --nodes 2 --output "$WORK/image"
    need wait_for 900 idle
    outputs "$WORK/image"
    need [ "$(code_of "$(jobs_of "$WORK/image")")" = 0 ]
    need grep -q "$(cut -c1-20 "$image/etc/panacea_nb-digest")" "$WORK/image/NIGHTS/20250115/status/05"*.json
    same "$WORK/image" --tolerance 1e-5
}

pilot() {
    need reference
    local site token driver; site=$(site pilot 'workers: 1')
    nb reduce -d 20250115 -s uv --baseraw "$WORK/raw" --output "$WORK/pilot" --site "$site" --pilot --nodes 2 &
    need wait_for 180 tasks_done "$WORK/pilot" 2
    token=$(owner "$WORK/pilot" token); driver=$(owner "$WORK/pilot" pid)
    # A driver that is killed together with the process that looks after its machine: jobs elsewhere must notice by themselves.
    kill_both "$driver"
    need wait_for 60 nothing_left "$token"
    need wait_for 15 idle
    nb reduce -d 20250115 -s uv --baseraw "$WORK/raw" --output "$WORK/pilot" --site "$site" --pilot --nodes 2
    need wait_for 30 idle
    same "$WORK/pilot"
}

driver_lives() { local pid; pid=$(owner "$1" pid) && [ -n "$pid" ] && [ -d "/proc/$pid" ]; }
wall_time() {
    need reference
    # Warned: it ends itself in time, and its own last line submits it again.
    # The wall time, in whole minutes, is too short for the night and long enough to get on with it, on this machine.
    local round minutes; minutes=$(($(cat "$WORK/reference.seconds") * 7 / 600))
    minutes=$((minutes < 1 ? 1 : minutes > 9 ? 9 : minutes))
    for round in 1 2; do
        need send --site "$(site short 'grace: 20')" --time 00:0$minutes:00 --output "$WORK/short"
        need wait_for 900 idle
        [ "$(code_of "$(jobs_of "$WORK/short")")" != 0 ] || break
    done
    outputs "$WORK/short"
    need grep -q 'submitted again as job' "$(jobs_of "$WORK/short")"/*.out
    need [ "$(code_of "$(jobs_of "$WORK/short")")" = 0 ]
    same "$WORK/short"
    # Not warned: Slurm kills it; looked after by hand (or by cron).
    need send --site "$(site hard 'grace: 20')" --time 00:0$minutes:00 --output "$WORK/hard"
    scancel --user=$person; need wait_for 60 idle
    sed -i '/--signal/d' "$(jobs_of "$WORK/hard")"/*.sh
    local number; number=$(as sbatch --parsable "$(jobs_of "$WORK/hard")"/*.sh)
    sed -i "s/\"job\": \"[0-9]*\"/\"job\": \"$number\"/" "$(jobs_of "$WORK/hard")"/*.json
    # However fast the machine is: a driver that is stopped does not come to an end within the minute.
    need wait_for 60 driver_lives "$WORK/hard"
    kill -STOP "$(owner "$WORK/hard" pid)"
    need wait_for 600 idle
    need grep -q 'JobState=TIMEOUT' <(scontrol show job "$number")
    for round in 1 2 3 4 5; do
        nb submit --resume --output "$WORK/hard" | tee "$WORK/hard.resume"
        grep -q 'submitted again' "$WORK/hard.resume" || break
        sed -i 's/--time=.*/--time=00:10:00/' "$(jobs_of "$WORK/hard")"/*.sh
        need wait_for 600 idle
    done
    need [ "$(code_of "$(jobs_of "$WORK/hard")")" = 0 ]
    same "$WORK/hard"
}

kill_driver() {
    need reference
    need send --site "$(site kill 'workers: 1')" --nodes 2 --output "$WORK/kill"
    need wait_for 180 tasks_done "$WORK/kill" 3
    need wait_for 60 tasks_run "$WORK/kill"
    local token driver; token=$(owner "$WORK/kill" token); driver=$(owner "$WORK/kill" pid)
    kill_both "$driver"
    need wait_for 60 nothing_left "$token"
    need wait_for 600 idle
    outputs "$WORK/kill"
    need grep -q 'submitted again as job' "$(jobs_of "$WORK/kill")"/*.out
    need [ "$(code_of "$(jobs_of "$WORK/kill")")" = 0 ]
    same "$WORK/kill"
}

campaign() {
    local site night; site=$(site campaign)
    for night in 20250115 20250215 20250315; do need raw $night 1; done
    many() { nb submit --from 20250115 --to 20250315 -s uv --until trace --baseraw "$WORK/raw" --output "$WORK/many" --site "$site" "$@"; }
    many | tee "$WORK/many.1"
    need grep -q '60 night(s): 3 to be submitted in 1 job(s), 57 left' "$WORK/many.1"
    many | tee "$WORK/many.2"
    need grep -q '0 to be submitted' "$WORK/many.2"      # they are in a job
    need wait_for 600 idle
    cat "$WORK/many/NIGHTS/jobs"/*.out
    many --dry-run | tee "$WORK/many.3"
    need grep -q '60 night(s): 0 to be submitted' "$WORK/many.3"
    rm "$WORK/many/NIGHTS/20250215/work/uv/02_trace.fits"
    many | tee "$WORK/many.4"
    need grep -q '60 night(s): 1 to be submitted in 1 job(s), 59 left' "$WORK/many.4"
    need grep -Eq '^submitted job [0-9]+: 20250215;' "$WORK/many.4"
    need wait_for 300 idle
    need [ -f "$WORK/many/NIGHTS/20250215/work/uv/02_trace.fits" ]
    many --dry-run | grep '60 night(s): 0 to be submitted'
}

daily() {
    need raw 20250115 1
    cat > "$WORK/daily.conf" <<CONF
PANACEA_NB=$WORK/nb
BASERAW=$WORK/raw
OUTPUT=$WORK/daily
SITE=$(site daily)
TODAY=20250118 DAYS=5
GROUP=$(id -gn $person)
PUBLISH=$WORK/published
OPTIONS=(-s uv --until bias)
CONF
    printf '#!/bin/sh\nexec "%s" -m panacea_nb "$@"\n' "$python" > "$WORK/nb"; chmod 755 "$WORK/nb"
    run() { as env -C / "$REPO/runs/daily/daily.sh" "$WORK/daily.conf"; }
    run | tee "$WORK/daily.1"
    need grep -Eq '^submitted job [0-9]+: 20250115;' "$WORK/daily.1"
    run | tee "$WORK/daily.2"                       # at once again: nothing is done twice
    need grep -q '6 night(s): 0 to be submitted' "$WORK/daily.2"
    need wait_for 300 idle
    run | tee "$WORK/daily.3"
    need grep -q '6 night(s): 0 to be submitted' "$WORK/daily.3"
    need grep -q 'published .*/published/20250115' "$WORK/daily.3"
    need [ -f "$WORK/published/20250115/index.html" ]
    need [ "$(stat -c %a "$WORK/daily/LRS2/CALS")" = 2750 ]
    rm "$WORK/daily/NIGHTS/20250115/work/uv/01_bias.fits"
    run | tee "$WORK/daily.4"
    need grep -q '6 night(s): 1 to be submitted' "$WORK/daily.4"
    need wait_for 300 idle
}

measure() {
    local workers number night begin
    need raw 20250115 1
    for workers in 1 2; do
        begin=$(date +%s.%N)
        need nb reduce -d 20250115 -s uv --baseraw "$WORK/raw" --output "$WORK/workers$workers" --jobs $workers
        "$python" - "$WORK/workers$workers" $workers "$begin" <<'PYTHON'
import json, statistics, sys, time
from pathlib import Path
root, workers, begin = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
whole = time.time() - begin
records = [json.loads(path.read_text()) for path in root.glob("NIGHTS/*/status/*.json")]
busy = sum(record["wall"] for record in records)
own = statistics.median(record["wall"] - sum(record["timing"].values()) for record in records)
print(f"NOTE {workers} worker(s): {whole:.0f} s for {len(records)} tasks of {busy:.0f} s in all, so busy {busy / workers / whole:.0%}; "
      f"notebooks' own overhead {own:.2f} s each (median)")
PYTHON
    done
    # Very small nights: hard links of one, only its first two stages.
    for number in 1 5 20; do
        for night in $(seq 1 $number); do
            night=202504$(printf %02d "$night")
            [ -d "$WORK/many_raw/$night" ] || { as mkdir -p "$WORK/many_raw"; as cp -al "$WORK/raw/20250115" "$WORK/many_raw/$night"; }
        done
        begin=$SECONDS
        need nb submit --from 20250401 --to 20250430 -s uv --until bias --baseraw "$WORK/many_raw" --output "$WORK/many$number" \
            --site "$(site measure)"
        need wait_for 1500 idle
        [ "$(awk '$2 == 0' "$WORK/many$number"/NIGHTS/jobs/*.codes | wc -l)" -eq "$number" ] || return 1
        echo "NOTE campaign of $number night(s) of two tasks: $((SECONDS - begin)) s, $(((SECONDS - begin) / number)) s a night," \
            "$(ls "$WORK/many$number"/NIGHTS/jobs/*.out | wc -l) job(s)"
    done
}

part one-node one_node
part two-nodes two_nodes
part image in_image
part pilot pilot
part wall-time wall_time
part kill-driver kill_driver
part campaign campaign
part daily daily
[[ " ${asked[*]-} " != *" measure "* ]] || part measure measure
