#!/bin/bash
# `prima pull` interrupted, killed, repeated, raced: what has been received is not asked for again, and what a
# server has meanwhile replaced is never mixed.
. tests/pull/lib.sh
echo "1..16"
BYTES=8000000

# Begins a pull of a.gguf at 1 MB/s a connection and leaves it alone in its middle.
half()
{
    origin a.gguf $BYTES && serve && rules <<<"GET * rate=1000000" && pull_begin --jobs 2 "http://$main/a.gguf" &&
        under_way
}
interrupted() # SIGNAL STATUS
{
    half && kill -s "$1" "$pid" && pull_end && exits "$2" && nothing_there a.gguf && [ -e "$here/got/a.gguf.part" ] &&
        says 'goes on' || return 1
    before=$(served a.gguf)
    rules </dev/null && pull "http://$main/a.gguf" && exits 0 && whole a.gguf && rest_only a.gguf "$before"
}
sigint() { interrupted INT 130; }
sigterm() { interrupted TERM 143; }
sigkill() # the journal is written each second: what came since then comes again, and no more
{
    origin a.gguf $BYTES && serve && rules <<<"GET * rate=1000000" && pull_begin --jobs 2 "http://$main/a.gguf" &&
        under_way && sleep 2 && kill -s KILL "$pid" && { pull_end; exits 137; } && nothing_there a.gguf || return 1
    before=$(served a.gguf)
    rules </dev/null && pull "http://$main/a.gguf" && exits 0 && whole a.gguf &&
        [ $(($(served a.gguf) - BYTES)) -lt $((before * 3 / 4)) ]
}
killed_often() # again and again, at any moment
{
    local i
    origin a.gguf $BYTES && serve && rules <<<"GET * rate=8000000" || return 1
    for i in 1 2 3 4 5; do
        pull_begin "http://$main/a.gguf"
        sleep "0.$((i * 37 % 9 + 1))"
        kill -s KILL "$pid" 2>/dev/null
        wait "$pid"
        [ ! -e "$here/got/a.gguf" ] || cmp "$here/www/a.gguf" "$here/got/a.gguf" || return 1
    done
    rules </dev/null && pull "http://$main/a.gguf" && exits 0 && whole a.gguf
}
# Connections that say nothing, in a process that does not end by itself: given up after 30 s, made again, and gone on with.
stalled()
{
    origin a.gguf 3000000 && serve && rules <<<"GET * stall=500000 times=2" && PULL_S=100 pull "http://$main/a.gguf" &&
        exits 0 && whole a.gguf && [ "$(served a.gguf)" -eq "$(size_of "$here/www/a.gguf")" ]
}
dribble() # slow is not stalled
{
    origin a.gguf 100000 && serve && rules <<<"GET * rate=100000" && pull --jobs 1 "http://$main/a.gguf" && exits 0 &&
        whole a.gguf && [ "$(served a.gguf)" -eq "$(size_of "$here/www/a.gguf")" ]
}

# --- the file changes ------------------------------------------------------------------------------------------

changed() # between two calls
{
    half && kill -s INT "$pid" && pull_end && exits 130 || return 1
    tests/pull/make_gguf "$here/www/b.gguf" $BYTES --seed 2
    touch -d '2001-01-01' "$here/www/b.gguf" && mv "$here/www/b.gguf" "$here/www/a.gguf"
    rules </dev/null && pull "http://$main/a.gguf"
    if [ "$status" -ne 0 ]; then exits 8 && says 'changed' && nothing_there a.gguf && pull "http://$main/a.gguf"; fi &&
        exits 0 && whole a.gguf
}
changed_now() # in the middle of one, whose connections are cut afterwards
{
    origin a.gguf $BYTES && tests/pull/make_gguf "$here/b.gguf" $BYTES --seed 2 && touch -d '2001-01-01' "$here/b.gguf" &&
        serve && rules <<<"GET * rate=1000000 cut=700000" && pull_begin --jobs 2 "http://$main/a.gguf" && under_way &&
        mv "$here/b.gguf" "$here/www/a.gguf" && rules </dev/null && pull_end || return 1
    if [ "$status" -ne 0 ]; then exits 8 && says 'changed' && nothing_there a.gguf && pull "http://$main/a.gguf"; fi &&
        exits 0 && whole a.gguf
}
changed_size()
{
    half && kill -s INT "$pid" && pull_end && exits 130 || return 1
    tests/pull/make_gguf "$here/www/a.gguf" 5000000 --seed 3
    rules </dev/null && pull "http://$main/a.gguf"
    if [ "$status" -ne 0 ]; then exits 8 && nothing_there a.gguf && pull "http://$main/a.gguf"; fi && exits 0 &&
        whole a.gguf
}
no_validator() # nothing to tell two versions apart by: what is there is not built upon
{
    origin a.gguf $BYTES && serve && rules <<<$'GET * rate=1000000 etag=none\nHEAD * etag=none' &&
        pull_begin --jobs 2 "http://$main/a.gguf" && under_way && kill -s INT "$pid" && pull_end && exits 130 || return 1
    tests/pull/make_gguf "$here/www/a.gguf" $BYTES --seed 4
    rules <<<"* * etag=none" && pull "http://$main/a.gguf" && exits 0 && whole a.gguf
}
rotten_journal()
{
    half && kill -s INT "$pid" && pull_end && exits 130 && echo '{"schema": "prima/' >"$here/got/a.gguf.part.json" &&
        rules </dev/null && pull "http://$main/a.gguf" && exits 0 && whole a.gguf
}
rotten_part() # the journal promises bytes that are not there
{
    half && kill -s INT "$pid" && pull_end && exits 130 && : >"$here/got/a.gguf.part" && rules </dev/null &&
        pull "http://$main/a.gguf" && exits 0 && whole a.gguf
}

# --- others ------------------------------------------------------------------------------------------------------

two_at_once() # the second leaves it to the first
{
    origin a.gguf $BYTES && serve && rules <<<"GET * rate=1000000" && pull_begin --jobs 2 "http://$main/a.gguf" &&
        under_way || return 1
    status=0
    "$PRIMA" pull -o "$here/got" "http://$main/a.gguf" 2>"$here/err" || status=$?
    exits 9 && says "another.*$pid" && nothing_there a.gguf && [ "$(requests '^> main GET')" -le 2 ] &&
        kill -s INT "$pid" && pull_end && exits 130 && rules </dev/null && pull "http://$main/a.gguf" && exits 0 &&
        whole a.gguf
}
twice() # what is there and right is not fetched again
{
    origin a.gguf $BYTES && serve && pull "http://$main/a.gguf" && exits 0 && whole a.gguf &&
        pull "http://$main/a.gguf" && exits 0 && whole a.gguf &&
        [ "$(served a.gguf)" -eq "$(size_of "$here/www/a.gguf")" ]
}
another_is_there() # what is there and something else is not overwritten
{
    origin a.gguf 100000 && serve && tests/pull/make_gguf "$here/got/a.gguf" 5000 --seed 9 &&
        cp "$here/got/a.gguf" "$here/mine" && pull "http://$main/a.gguf" && exits 5 && says a.gguf &&
        cmp "$here/mine" "$here/got/a.gguf"
}
verify()
{
    origin a.gguf 1000000 && serve && pull "http://$main/a.gguf" && exits 0 || return 1
    status=0
    "$PRIMA" pull --verify "$here/got/a.gguf" >"$here/out" 2>"$here/err" || status=$?
    exits 0 || return 1
    printf X | dd of="$here/got/a.gguf" bs=1 seek=500000 conv=notrunc status=none
    "$PRIMA" pull --verify "$here/got/a.gguf" >"$here/out" 2>"$here/err" || status=$?
    exits 8 && says a.gguf sha256 && truncate -s 400000 "$here/got/a.gguf" || return 1
    "$PRIMA" pull --verify "$here/got/a.gguf" >"$here/out" 2>"$here/err" || status=$?
    exits 8 && says a.gguf
}

# This one takes half a minute of waiting: beside the others.
(tap_n=15 && t "two connections that stall" stalled) >"$top/stalled.tap" &
t "SIGINT, then the rest" sigint
t "SIGTERM, then the rest" sigterm
t "SIGKILL, then the rest" sigkill
t "killed five times" killed_often
t "slow is not stalled" dribble
t "another file at the second call" changed
t "another file in the middle of a call" changed_now
t "another size at the second call" changed_size
t "no ETag, another file" no_validator
t "a broken journal" rotten_journal
t "a part without its bytes" rotten_part
t "two at once" two_at_once
t "twice" twice
t "another file has the name" another_is_there
t "--verify: right, wrong, short" verify
wait
cat "$top/stalled.tap"
