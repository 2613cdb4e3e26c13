# For the scripts here: `. tap.sh`, then one `begin N`, and `ok NAME COMMAND...` N times; what a command prints is shown
# when it fails. Exit status 77: skipped, the last line says why.
tap_n=0
begin()
{
    local reason
    if ! reason=$(tests/cluster/box check); then
        echo "1..0 # SKIP $reason"
        exit 0
    fi
    echo "1..$1"
}
ok()
{
    local name=$1 out status=0
    shift
    tap_n=$((tap_n + 1))
    out=$("$@" 2>&1) || status=$?
    if [ $status -eq 0 ]; then
        echo "ok $tap_n - $name"
    elif [ $status -eq 77 ]; then
        echo "ok $tap_n - $name # SKIP ${out##*$'\n'}"
    else
        echo "not ok $tap_n - $name"
        sed 's/^/    | /' <<<"$out"
    fi
}
