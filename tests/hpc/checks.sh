# Sourced by the scripts of this folder: named parts, their results one a line, and a closing line.
#   part NAME FUNCTION      runs FUNCTION when NAME was asked for (or nothing was)
#   skip REASON             inside a part: it cannot be done here
#   need CONDITION...       inside a part: fails it, with the command, when the command fails
# A part runs in a shell of its own; its output goes to $work/NAME.log, of which the end is shown when it fails.

passed=0 failed=0 skipped=0
asked=" $* "
failures=()

part() {
    local name=$1 begin=$SECONDS code log="$work/$1.log"
    [ "$asked" = '  ' ] || [[ $asked == *" $name "* ]] || return 0
    ( set -e; "$2" ) > "$log" 2>&1
    code=$?
    if [ $code -eq 0 ]; then
        passed=$((passed + 1)); echo "PASS $name ($((SECONDS - begin)) s)"
    elif [ $code -eq 77 ]; then
        skipped=$((skipped + 1)); echo "SKIPPED $name: $(tail -n 1 "$log")"
    else
        failed=$((failed + 1)); echo "FAIL $name ($((SECONDS - begin)) s)"
        tail -n "${SHOW:-25}" "$log" | sed 's/^/    /'
    fi
}

skip() { echo "$*"; exit 77; }

need() { "$@" || { echo "not so: $*"; exit 1; }; }

# wait_for SECONDS COMMAND...: until the command succeeds
wait_for() {
    local end=$((SECONDS + $1)); shift
    until "$@" > /dev/null 2>&1; do
        [ $SECONDS -lt $end ] || { echo "not within time: $*"; return 1; }
        sleep 1
    done
}

closing() {
    echo "$passed passed, $failed failed, $skipped skipped"
    [ $failed -eq 0 ]
}
