#!/usr/bin/env bash
# Reductions through Slurm: sets up two nodes on this machine (Debian 12, as root) and proves what the documentation promises.
#   tests/hpc/slurm.sh [PART...]        parts: one-node two-nodes image pilot wall-time kill-driver campaign daily
# Settings: HPC_PYTHON (a Python with panacea_nb's packages; default .venv/bin/python), HPC_IMAGE_DIR (folder of the unpacked
# image, for the part `image`), HPC_KEEP=1 keeps what was written.
set -u
here=$(cd "$(dirname "$0")" && pwd)
repository=$(cd "$here/../.." && pwd)
python=${HPC_PYTHON:-$repository/.venv/bin/python}
. "$here/checks.sh"
. "$here/cluster.sh"

[ "$(id -u)" -eq 0 ] || { echo "SKIPPED slurm: setting up Slurm needs root"; exit 0; }
[ -x "$python" ] || { echo "there is no $python: make install first, or set HPC_PYTHON" >&2; exit 2; }
work=$(mktemp -d /tmp/pnb-slurm.XXXXXX)
chmod 755 "$work"
export PYTHONPATH=$repository OMP_NUM_THREADS=1 PANACEA_NB_TRIAL=$work   # the last marks all that is started here

clean_up() {
    trap - EXIT INT TERM
    cluster_stop
    local file
    for file in /proc/[0-9]*/environ; do   # what a part that failed left behind
        if [ "$file" != /proc/$$/environ ] && tr '\0' '\n' < "$file" 2> /dev/null | grep -qx "PANACEA_NB_TRIAL=$work"; then
            kill -9 "$(echo "$file" | cut -d/ -f3)" 2> /dev/null
        fi
    done
    [ "${person:-root}" = root ] || userdel "$person" 2> /dev/null
    if [ -n "${HPC_KEEP:-}" ]; then echo "kept: $work"; else rm -rf "$work"; fi
}
trap clean_up EXIT
trap 'exit 130' INT TERM

# A plain user, as everywhere, if one may use this Python at all (not below /root).
person=root
useradd --system --no-create-home --home-dir "$work/home" pnbtrial 2> /dev/null && person=pnbtrial
if [ $person != root ] && ! runuser -u $person -- "$python" -c 'import parsl, panacea_nb' 2> /dev/null; then
    echo "note: a plain user may not read $python, so jobs run as root"
    userdel pnbtrial; person=root
fi
mkdir -p "$work/home" && chown $person "$work/home" "$work"
as() { if [ $person = root ]; then HOME=$work/home "$@"; else runuser -u $person -- env HOME="$work/home" "$@"; fi; }
nb() { as "$python" -m panacea_nb "$@"; }

if ! { cluster_install && cluster_start "$work/cluster"; } > "$work/cluster.log" 2>&1; then
    echo "FAIL cluster"; tail -n 20 "$work/cluster.log" | sed 's/^/    /'; echo "0 passed, 1 failed, 0 skipped"; exit 1
fi

site() {  # site NAME LINES...: a site of this cluster
    local name=$1; shift
    { echo 'scheduler: slurm'; echo 'launcher: srun'; echo 'sbatch: [--exclusive]'; echo 'staging: true'
      echo "scratch: /tmp"; echo 'walltime: "00:30:00"'; printf '%s\n' "$@"; } > "$work/$name.yaml"
    echo "$work/$name.yaml"
}
raw() {  # raw DATE SEED: a simulated night
    [ -d "$work/raw/$1" ] || nb simulate "$work/raw" --date "$1" --seed "$2" --scenario demo --sides uv
}
reference() {  # the night without Slurm, once
    raw 20250115 1
    [ -f "$work/reference/done" ] || {
        nb reduce -d 20250115 -s uv --baseraw "$work/raw" --output "$work/reference" --jobs 2
        as touch "$work/reference/done"
    }
}
send() { nb submit -d 20250115 -s uv --baseraw "$work/raw" "$@"; }
idle() { [ -z "$(squeue --noheader)" ]; }
code_of() { awk -v night="${2:-20250115}" '$1 == night {code = $2} END {print code}' "$1"/*.codes; }
owner() { "$python" -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$1/NIGHTS/20250115/.lock" "$2"; }
of_run() {  # processes that carry a run's token
    local file
    for file in /proc/[0-9]*/environ; do
        tr '\0' '\n' < "$file" 2> /dev/null | grep -qx "PANACEA_NB_RUN=$1" && echo "$file"
    done
    return 0
}
nothing_left() { [ -z "$(of_run "$1")" ]; }
tasks_run() { grep -l '"state": "running"' "$1"/NIGHTS/20250115/status/*.json; }
tasks_done() { [ "$(grep -l '"state": "succeeded"' "$1"/NIGHTS/20250115/status/*.json 2> /dev/null | wc -l)" -ge "$2" ]; }
same() { as "$python" "$here/identical.py" "$work/reference" "$1"; }
jobs_of() { echo "$1/NIGHTS/20250115/jobs"; }
outputs() { cat "$(jobs_of "$1")"/*.out; }

one_node() {
    reference
    send --site "$(site one)" --output "$work/one"
    need wait_for 600 idle
    outputs "$work/one"
    need [ "$(code_of "$(jobs_of "$work/one")")" = 0 ]
    same "$work/one"
    need nb status -d 20250115 --output "$work/one"
}

two_nodes() {
    reference
    local site; site=$(site two 'workers: 1')
    send --site "$site" --nodes 2 --output "$work/two"
    need wait_for 120 tasks_run "$work/two"
    nb status -d 20250115 --output "$work/two"
    ! send --site "$site" --nodes 2 --output "$work/two" || { echo 'a second job for the same night was taken'; exit 1; }
    need wait_for 600 idle
    outputs "$work/two"
    need [ "$(code_of "$(jobs_of "$work/two")")" = 0 ]
    same "$work/two"
}

image() {
    command -v ch-run > /dev/null || apt-get install -y -qq --no-install-recommends charliecloud-runtime > /dev/null 2>&1 ||
        skip 'charliecloud cannot be installed'
    [ -n "${HPC_IMAGE_DIR:-}" ] && [ -d "${HPC_IMAGE_DIR}/usr" ] || skip 'HPC_IMAGE_DIR names no unpacked image'
    # Root would see the image's files as nobody's: a plain user is what charliecloud is for.
    reference
    local site
    site=$(site image 'workers: 1' 'container:' '  engine: charliecloud' "  image: $HPC_IMAGE_DIR" "  binds: [\"$work:$work\"]")
    mkdir -p "$HPC_IMAGE_DIR$work"
    send --site "$site" --nodes 2 --output "$work/image"
    need wait_for 900 idle
    outputs "$work/image"
    need [ "$(code_of "$(jobs_of "$work/image")")" = 0 ]
    same "$work/image"
}

pilot() {
    reference
    local site token driver; site=$(site pilot 'workers: 1')
    nb reduce -d 20250115 -s uv --baseraw "$work/raw" --output "$work/pilot" --site "$site" --pilot --nodes 2 &
    need wait_for 180 tasks_done "$work/pilot" 2
    token=$(owner "$work/pilot" token); driver=$(owner "$work/pilot" pid)
    # A driver that is killed together with the process that looks after its machine: jobs elsewhere must notice by themselves.
    pkill -9 -f "leash.py $driver " ; kill -9 "$driver"
    need wait_for 60 nothing_left "$token"
    need wait_for 15 idle
    nb reduce -d 20250115 -s uv --baseraw "$work/raw" --output "$work/pilot" --site "$site" --pilot --nodes 2
    need wait_for 30 idle
    same "$work/pilot"
}

wall_time() {
    reference
    # Warned: it ends itself in time, and its own last line submits it again.
    send --site "$(site short 'grace: 20')" --time 00:01:00 --output "$work/short"
    need wait_for 900 idle
    outputs "$work/short"
    need grep -q 'submitted again as job' "$(jobs_of "$work/short")"/*.out
    need [ "$(code_of "$(jobs_of "$work/short")")" = 0 ]
    same "$work/short"
    # Not warned: Slurm kills it; looked after by hand (or by cron).
    send --site "$(site hard 'grace: 20')" --time 00:01:00 --output "$work/hard" --dry-run > "$work/hard.txt"
    send --site "$(site hard 'grace: 20')" --time 00:01:00 --output "$work/hard"
    scancel --user=$person; need wait_for 60 idle
    sed -i '/--signal/d' "$(jobs_of "$work/hard")"/*.sh
    local number; number=$(as sbatch --parsable "$(jobs_of "$work/hard")"/*.sh)
    sed -i "s/\"job\": \"[0-9]*\"/\"job\": \"$number\"/" "$(jobs_of "$work/hard")"/*.json
    need wait_for 200 idle
    need grep -q 'JobState=TIMEOUT' <(scontrol show job "$number")
    local round
    for round in 1 2 3 4; do
        nb submit --resume --output "$work/hard" | tee "$work/hard.resume"
        grep -q 'submitted again' "$work/hard.resume" || break
        need wait_for 300 idle
    done
    need [ "$(code_of "$(jobs_of "$work/hard")")" = 0 ]
    same "$work/hard"
}

kill_driver() {
    reference
    send --site "$(site kill 'workers: 1')" --nodes 2 --output "$work/kill"
    need wait_for 180 tasks_done "$work/kill" 3
    need wait_for 60 tasks_run "$work/kill"
    local token driver; token=$(owner "$work/kill" token); driver=$(owner "$work/kill" pid)
    pkill -9 -f "leash.py $driver "; kill -9 "$driver"
    need wait_for 60 nothing_left "$token"
    need wait_for 600 idle
    outputs "$work/kill"
    need grep -q 'submitted again as job' "$(jobs_of "$work/kill")"/*.out
    need [ "$(code_of "$(jobs_of "$work/kill")")" = 0 ]
    same "$work/kill"
}

campaign() {
    local site night; site=$(site campaign)
    for night in 20250115 20250215 20250315; do raw $night "${night:4:2}"; done
    many() { nb submit --from 20250115 --to 20250315 -s uv --until trace --baseraw "$work/raw" --output "$work/many" --site "$site" "$@"; }
    many | tee "$work/many.1"
    need grep -q '60 nights: 3 to be submitted in 1 job(s), 57 left' "$work/many.1"
    many | tee "$work/many.2"
    need grep -q '0 to be submitted' "$work/many.2"      # they are in a job
    need wait_for 600 idle
    cat "$work/many/NIGHTS/jobs"/*.out
    many --dry-run | tee "$work/many.3"
    need grep -q '60 nights: 0 to be submitted' "$work/many.3"
    rm "$work/many/NIGHTS/20250215/work/uv/02_trace.fits"
    many | tee "$work/many.4"
    need grep -q '60 nights: 1 to be submitted in 1 job(s), 59 left' "$work/many.4"
    need grep -Eq '^submitted job [0-9]+: 20250215;' "$work/many.4"
    need wait_for 300 idle
    need [ -f "$work/many/NIGHTS/20250215/work/uv/02_trace.fits" ]
    many --dry-run | grep '60 nights: 0 to be submitted'
}

daily() {
    raw 20250115 01
    cat > "$work/daily.conf" <<CONF
PANACEA_NB=$work/nb
BASERAW=$work/raw
OUTPUT=$work/daily
SITE=$(site daily)
TODAY=20250118 DAYS=5
GROUP=$(id -gn $person)
PUBLISH=$work/published
OPTIONS=(-s uv --until bias)
CONF
    printf '#!/bin/sh\nexec "%s" -m panacea_nb "$@"\n' "$python" > "$work/nb"; chmod 755 "$work/nb"
    run() { as env -C / "$repository/runs/daily/daily.sh" "$work/daily.conf"; }
    run | tee "$work/daily.1"
    need grep -Eq '^submitted job [0-9]+: 20250115;' "$work/daily.1"
    run | tee "$work/daily.2"                       # at once again: nothing is done twice
    need grep -q '6 nights: 0 to be submitted' "$work/daily.2"
    need wait_for 300 idle
    run | tee "$work/daily.3"
    need grep -q '6 nights: 0 to be submitted' "$work/daily.3"
    need grep -q 'published .*/published/20250115' "$work/daily.3"
    need [ -f "$work/published/20250115/index.html" ]
    need [ "$(stat -c %a "$work/daily/LRS2/CALS")" = 2750 ]
    rm "$work/daily/NIGHTS/20250115/work/uv/01_bias.fits"
    run | tee "$work/daily.4"
    need grep -q '6 nights: 1 to be submitted' "$work/daily.4"
    need wait_for 300 idle
}

part one-node one_node
part two-nodes two_nodes
part image image
part pilot pilot
part wall-time wall_time
part kill-driver kill_driver
part campaign campaign
part daily daily
closing
