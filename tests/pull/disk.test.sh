#!/bin/bash
# `prima pull` where there is no room or no right to write. The file systems are mounts of this script's own, in a mount
# namespace of its own: root on Linux only.
if [ -z "${PRIMA_TEST_MOUNTS:-}" ]; then
    if ! reason=$(unshare -m true 2>&1); then
        echo "1..0 # SKIP needs mounts of its own: ${reason##*$'\n'}"
        exit 0
    fi
    PRIMA_TEST_MOUNTS=1 exec unshare -m "$0"
fi
. tests/pull/lib.sh
echo "1..6"
BYTES=4000000

disk() # SIZE
{
    mount -t tmpfs -o "size=$1" tmpfs "$here/got" && trap 'kill $started 2>/dev/null; umount -l "$here/got"' EXIT
}
room() # SIZE
{
    mount -o "remount,size=$1" "$here/got"
}

# Asked before the first byte: nothing is fetched that has no room.
too_small()
{
    disk 1m && origin a.gguf $BYTES && serve && pull "http://$main/a.gguf" && exits 9 &&
        says "$here/got" 'free|space|room|full' && [ "$(served a.gguf)" -eq 0 ] && [ -z "$(ls -A "$here/got")" ] &&
        room 2g && pull "http://$main/a.gguf" && exits 0 && whole a.gguf
}
# The file itself would fit, but nothing else then.
leaves_some()
{
    disk 900m && origin a.gguf $BYTES && serve && pull "http://$main/a.gguf" && exits 9 && says 'GiB|free' &&
        [ "$(served a.gguf)" -eq 0 ]
}
# Another one takes the room while we are fetching. What is there stays, and is gone on with.
filled_up()
{
    disk 2g && origin a.gguf $BYTES && serve && rules <<<"GET * rate=2000000" &&
        pull_begin --jobs 1 "http://$main/a.gguf" && under_way || return 1
    room "$(($(df -B1 --output=used "$here/got" | tail -n 1) / 1024 + 64))k"
    pull_end
    # Where the whole room was taken at the beginning, there is nothing that could fail.
    if [ "$status" -eq 0 ]; then whole a.gguf; return; fi
    exits 9 && says 'space|full' && nothing_there a.gguf && [ -e "$here/got/a.gguf.part" ] || return 1
    before=$(served a.gguf)
    rules </dev/null && room 2g && pull "http://$main/a.gguf" && exits 0 && whole a.gguf &&
        [ "$(served a.gguf)" -le $((BYTES + before / 2 + 1048576)) ]
}
read_only()
{
    disk 2g && origin a.gguf $BYTES && serve && mount -o remount,ro "$here/got" && pull "http://$main/a.gguf" &&
        exits 9 && says "$here/got" 'read-only' && [ "$(served a.gguf)" -le 65536 ] && mount -o remount,rw "$here/got" &&
        pull "http://$main/a.gguf" && exits 0 && whole a.gguf
}
read_only_meanwhile() # as a disk with errors becomes
{
    disk 2g && origin a.gguf $BYTES && serve && rules <<<"GET * rate=2000000" &&
        pull_begin --jobs 1 "http://$main/a.gguf" && under_way && kill -s INT "$pid" && pull_end && exits 130 &&
        mount -o remount,ro "$here/got" && pull "http://$main/a.gguf" && exits 9 && says 'read-only' &&
        nothing_there a.gguf && mount -o remount,rw "$here/got" && rules </dev/null && pull "http://$main/a.gguf" &&
        exits 0 && whole a.gguf
}
no_folder() # its parents are not made
{
    origin a.gguf 1000 && serve && status=0 &&
        { "$PRIMA" pull -o "$here/got/x/y" "http://$main/a.gguf" >"$here/out" 2>"$here/err" || status=$?; } &&
        [[ $status =~ ^(2|9)$ ]] && says "$here/got/x" && [ -z "$(ls -A "$here/got")" ]
}

t "too small: refused before the first byte" too_small
t "a GiB is left free" leaves_some
t "filled up by others, then the rest" filled_up
t "read-only" read_only
t "read-only at the second call" read_only_meanwhile
t "a folder in no folder" no_folder
