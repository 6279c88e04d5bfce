# What the examples' `walk` scripts share; sourced, not run. Everything that it starts ends with the script.
#
# TIDEGATE: the program [tidegate]. EXAMPLE_PORTS: free ports, instead of those in the files.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[1]}")" && pwd)
examples=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
tidegate=${TIDEGATE:-tidegate}
folder=$(mktemp -d)
trap 'trap - EXIT; kill $(jobs -p) 2>/dev/null; wait 2>/dev/null; rm -rf "$folder"' EXIT
trap 'exit 143' TERM INT

# ports PORT...: those that stand in the files, each replaced by one of EXAMPLE_PORTS where that is set.
ports() {
    written=("$@")
    read -r -a free <<<"${EXAMPLE_PORTS:-$*}"
    change=()
    for place in "${!written[@]}"; do change+=(-e "s/\b${written[place]}\b/@${place}@/g"); done
    for place in "${!written[@]}"; do change+=(-e "s/@${place}@/${free[place]}/g"); done
}
# port PORT: what it is now.
port() { for place in "${!written[@]}"; do if [[ ${written[place]} == "$1" ]]; then echo "${free[place]}"; fi; done; }
# copy FILE...: into the folder, with the ports of now; FOLDER stands for the folder.
copy() { for file in "$@"; do sed "${change[@]}" -e "s|FOLDER|$folder|g" "$file" >"$folder/$(basename "$file")"; done; }

say() { printf '\n== %s\n' "$*"; }
# ends CODE COMMAND...: the exit code that is expected.
ends() {
    local wanted=$1 code=0
    shift
    "$@" || code=$?
    [[ $code == "$wanted" ]] || { echo "$* ended with $code, not with $wanted"; exit 1; }
}
# until_so COMMAND...: at most a minute.
until_so() {
    for _ in $(seq 120); do
        if "$@" >/dev/null 2>&1; then return; fi
        sleep 0.5
    done
    echo "never: $*"
    exit 1
}

# apps: the service's two pools, `blue` on port 8001 and `green` on port 8002. The share of requests that a pool fails
# stands in a file, `blue.errors` and `green.errors`.
apps() {
    for pool in blue green; do
        echo 0 >"$folder/$pool.errors"
        local at=8001
        [[ $pool == blue ]] || at=8002
        python3 "$examples/app.py" "$pool" "$(port $at)" "$folder/$pool.errors" &
    done
    until_so curl -sf "http://127.0.0.1:$(port 8001)/" -o /dev/null
    until_so curl -sf "http://127.0.0.1:$(port 8002)/" -o /dev/null
}

# users URL [OPTION...]: a hundred requests a second, for ten minutes at most, with these options of curl.
users() {
    until_so curl -sf -o /dev/null "$1"
    curl -s -o /dev/null --rate 6000/m "${@:2}" "$1?[1-60000]" &
}

# apps_at BLUE GREEN: the two pools at loopback addresses of their own, both on port 8001, for users who are sent by name.
apps_at() {
    local pool=blue
    for address in "$@"; do
        echo 0 >"$folder/$pool.errors"
        python3 "$examples/app.py" "$pool" "$(port 8001)" "$folder/$pool.errors" "$address" &
        until_so curl -sf "http://$address:$(port 8001)/health" -o /dev/null
        pool=green
    done
}

# users_of NAME TYPE: as `users`, for a name that the name server on port 5301 knows; TYPE is A or SRV.
users_of() { python3 "$examples/users.py" "127.0.0.1:$(port 5301)" "$1" "$2" "$(port 8001)" & }

# both_ways [SERVICE]: takes the service over, promotes v2, and sees v3 go back because it fails.
both_ways() {
    local service=${1:-web}
    say "the service as it stands"
    until_so "$tidegate" adopt "$service" --version v1
    ends 0 "$tidegate" doctor
    say "v2 is well: promoted"
    ends 0 "$tidegate" run pipeline.yaml --service "$service" --version v2
    say "v3 fails every other request: rolled back"
    echo 0.5 >blue.errors
    ends 5 "$tidegate" run pipeline.yaml --service "$service" --version v3
    say "what is recorded is whole"
    ends 0 "$tidegate" store verify
    say "done"
}
