# For the scripts here: servers, the command under test, and what there is to see afterwards.
#
# Every test is a function that `ok` (tests/cluster/tap.sh) calls in a shell of its own: its folder $here is empty, and
# what it starts ends with it. `origin NAME BYTES` puts a model into the folder that is served; `serve` starts the fault
# server, `rules` says what goes wrong; `pull` runs the command; then `exits`, `says`, `whole` and `nothing_there` look.
. tests/cluster/tap.sh
set -uo pipefail
fault_server=${BUILD:-build/release}/tests/pull/fault_server
top=$(mktemp -d)
trap 'rm -rf "$top"' EXIT
unset HF_TOKEN HF_TOKEN_PATH HF_HOME HF_ENDPOINT HF_HUB_OFFLINE PRIMA_LOG
unset http_proxy https_proxy all_proxy no_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY NO_PROXY
export XDG_CONFIG_HOME=$top/config XDG_CACHE_HOME=$top/cache HOME=$top/home
mkdir "$top/home"

# A test: a fresh folder with www/ (what is served) and got/ (where models go).
t() # NAME FUNCTION
{
    here=$top/$2
    mkdir -p "$here/www" "$here/got"
    log=$here/log
    : >"$log"
    ok "$1" one_test "$2"
    [ -n "${KEEP:-}" ] || rm -rf "$here"
}
one_test()
{
    local failed=0
    has_rules='' started=''
    trap 'kill $started 2>/dev/null' EXIT
    "$1" || failed=$?
    # A fault that never happened proves nothing.
    [ $failed -ne 0 ] || [ -z "$has_rules" ] || grep -q ' rule=[1-9]' "$log" || {
        echo "no request was met by the rules"
        failed=1
    }
    [ $failed -eq 0 ] || [ $failed -eq 77 ] || look
    return $failed
}
# What a failed test leaves to be looked at.
look()
{
    echo "exit status ${status:-none}; it said:"
    [ ! -e "$here/err" ] || tail -n 15 "$here/err"
    echo "there is:"
    ls -l "$here/got"
    echo "served:"
    tail -n 12 "$log"
}

# Made once for all tests of a script.
origin() # NAME BYTES [MORE ARGUMENTS OF make_gguf]
{
    local made="$top/made/${*:2}"
    mkdir -p "$(dirname "$here/www/$1")" "$top/made" || return 1
    [ -e "$made" ] || tests/pull/make_gguf "$made" "${@:2}" || return 1
    cp "$made" "$here/www/$1"
}

# Sets $main, $six and $cdn to HOST:PORT of the three listeners.
serve() # OPTIONS OF fault_server
{
    rm -f "$here/ports"
    "$fault_server" "$here/www" --rules "$here/rules" --log "$log" "$@" >"$here/ports" &
    server=$!
    started+=" $server"
    wait_for grep -qs ready "$here/ports" || return 1
    main=127.0.0.1:$(sed -n 's/^main //p' "$here/ports")
    six=[::1]:$(sed -n 's/^six //p' "$here/ports")
    cdn=127.0.0.1:$(sed -n 's/^cdn //p' "$here/ports")
}
# The rules from stdin, all at once; the counts begin anew.
rules()
{
    cat >"$here/rules.new"
    ! grep -q . "$here/rules.new" || has_rules=1
    mv "$here/rules.new" "$here/rules"
}

# Sets $status; what it says is in $here/out and $here/err. A pull that hangs is killed: status 124.
pull()
{
    status=0
    timeout "${PULL_S:-30}" "$PRIMA" pull -o "$here/got" "$@" >"$here/out" 2>"$here/err" || status=$?
    settled
}
# The server writes down what it sent after it did.
settled()
{
    local i
    for ((i = 0; i < 100; i++)); do
        [ "$(grep -c '^>' "$log")" -gt "$(grep -c '^<' "$log")" ] || return 0
        sleep 0.02
    done
}
# The same in the background; $pid is its process.
pull_begin()
{
    "$PRIMA" pull -o "$here/got" "$@" >"$here/out" 2>"$here/err" &
    pid=$!
    started+=" $pid"
}
pull_end()
{
    status=0
    wait "$pid" || status=$?
    settled
}
# A pull from a slow server has begun, and some bytes have come.
under_way() # [NAME]
{
    wait_for part_or_end "$here/got/${1:-a.gguf}" && sleep 0.5
}
part_or_end()
{
    [ -s "$1.part" ] || ! kill -0 "$pid"
}

wait_for() # COMMAND..., for at most 10 s
{
    local i
    for ((i = 0; i < 500; i++)); do
        "$@" 2>/dev/null && return 0
        sleep 0.02
    done
    echo "waited in vain for: $*"
    return 1
}

exits() # STATUS
{
    [ "$status" -eq "$1" ] || { echo "exit status $status instead of $1"; false; }
}
says() # PATTERN...: each on stderr, whatever the case
{
    local p
    for p in "$@"; do
        grep -qiE -- "$p" "$here/err" || { echo "does not say \"$p\""; return 1; }
    done
}
# The final file has the bytes of the origin, its sidecar is right, and nothing else is left.
whole() # NAME [ORIGIN'S NAME]
{
    cmp "$here/www/${2:-$1}" "$here/got/$1" || return 1
    (cd "$here/got" && sha256sum --quiet -c "$1.sha256") || { echo "no right $1.sha256"; return 1; }
    left=$(ls -A "$here/got" | grep -vxF -e "$1" -e "$1.sha256")
    [ -z "$left" ] || { echo "left: $left"; false; }
}
# No final file, whole or half.
nothing_there() # NAME
{
    [ ! -e "$here/got/$1" ] && [ ! -e "$here/got/$1.sha256" ] || { echo "$1 is there"; false; }
}
# Body bytes served for paths with this in them.
served() # PATTERN
{
    awk -v p="$1" '
        $1 == "<" && $3 == "GET" && $4 ~ p { for (i = 5; i <= NF; i++) if (sub(/^sent=/, "", $i)) n += $i }
        END { print n + 0 }' "$log"
}
# A second call asked for the rest: what the first one had been sent was not asked for again, but for what was still on its
# way when it ended (much, on a busy machine).
rest_only() # NAME BYTES-SERVED-BEFORE [PATTERN OF ITS PATH]
{
    local again=$(($(served "${3:-$1}") - $(size_of "$here/got/$1")))
    [ "$2" -gt 300000 ] && [ $again -le $(($2 / 2)) ] || { echo "$2 bytes served before, $again of them twice"; false; }
}
requests() # PATTERN of log lines
{
    grep -cE "$1" "$log"
}
size_of()
{
    stat -c %s "$1"
}
