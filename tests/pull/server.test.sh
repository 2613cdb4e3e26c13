#!/bin/bash
# The fault server itself, asked by curl, a client that others wrote: what it is told to do wrong does go wrong, and
# nothing else does.
. tests/pull/lib.sh
command -v curl >/dev/null || {
    echo "1..0 # SKIP no curl (make deps-test)"
    exit 0
}
echo "1..12"
get() # ARGUMENTS OF curl; sets $status, and $got is the body
{
    got=$here/body status=0
    rm -f "$got" "$here/head"
    curl -sS -m 5 -o "$got" -D "$here/head" "$@" 2>"$here/err" || status=$?
    settled
}
head_says()
{
    tr -d '\r' <"$here/head" | grep -qiE -- "$1" || { echo "no $1 in"; cat "$here/head"; false; }
}
same()
{
    cmp "$here/www/a.gguf" "$got"
}
begin_with() # RULES
{
    origin a.gguf 200000 && serve && rules <<<"$1" && url=http://$main/a.gguf
}

right() { begin_with '' && get "$url" && exits 0 && same && head_says '^HTTP/1.1 200' &&
    head_says '^Content-Length: 200192$'; }
range()
{
    begin_with '' && get -r 100-299 "$url" && exits 0 && head_says '^HTTP/1.1 206' &&
        head_says '^Content-Range: bytes 100-299/200192$' && cmp -i 100:0 -n 200 "$here/www/a.gguf" "$got" &&
        [ "$(size_of "$got")" -eq 200 ] && get -r 200192- "$url" && head_says '^HTTP/1.1 416' &&
        head_says '^Content-Range: bytes \*/200192$'
}
if_range()
{
    begin_with '' && get -I "$url" && etag=$(tr -d '\r' <"$here/head" | sed -n 's/^ETag: //p') && [ -n "$etag" ] &&
        get -r 0-9 -H "If-Range: $etag" "$url" && head_says '^HTTP/1.1 206' && get -r 0-9 -H 'If-Range: "other"' "$url" &&
        head_says '^HTTP/1.1 200' && same
}
cuts()
{
    begin_with 'GET * cut=1000 times=1' && get "$url" && exits 18 && [ "$(size_of "$got")" -eq 1000 ] && get "$url" &&
        exits 0 && same && rules <<<'GET * cut=1000 reset' && get "$url" && exits 56
}
stalls() { begin_with 'GET * stall=1000' && get -m 1 "$url" && exits 28 && [ "$(size_of "$got")" -eq 1000 ]; }
rates()
{
    begin_with 'GET * rate=200000' && start=$EPOCHREALTIME && get "$url" && exits 0 && same &&
        awk -v a="$start" -v b="$EPOCHREALTIME" 'BEGIN { exit !(b - a > 0.9) }'
}
statuses()
{
    begin_with $'GET * status=429 header=Retry-After:_7 skip=1 times=1\nGET * status=500' && get "$url" &&
        head_says '^HTTP/1.1 500' && get "$url" && head_says '^HTTP/1.1 429' && head_says '^Retry-After: 7$'
}
lies()
{
    begin_with 'GET * no_ranges' && get -r 5-9 "$url" && exits 0 && head_says ' 200' && same &&
        rules <<<'GET * content_range=bytes_1-2/3' && get -r 5-9 "$url" && head_says '^Content-Range: bytes 1-2/3$' &&
        rules <<<'GET * length=300000' && get "$url" && exits 18 && rules <<<'GET * truncate=500' && get "$url" &&
        exits 0 && [ "$(size_of "$got")" -eq 500 ] && rules <<<'GET * corrupt=77' && get "$url" && exits 0 &&
        [ "$(cmp -l "$here/www/a.gguf" "$got" | wc -l)" -eq 1 ] && rules <<<'GET * chunked' && get "$url" && exits 0 &&
        same && head_says '^Transfer-Encoding: chunked' && rules <<<'GET * etag=none' && get "$url" &&
        ! head_says '^ETag' >/dev/null && rules <<<'GET * shift=10' && get -r 0-99 "$url" &&
        cmp -i 10:0 -n 100 "$here/www/a.gguf" "$got"
}
redirects()
{
    begin_with '' && rules <<<"* /b on=main redirect=http://$cdn/a.gguf" && get "http://$main/b" && head_says ' 302 ' &&
        get -L "http://$main/b" && exits 0 && same && ! grep -q LEAK "$log" &&
        get -H 'Authorization: Bearer x' "http://$cdn/a.gguf" && grep -q '^LEAK GET /a.gguf' "$log"
}
proxies() { begin_with '' && http_proxy=http://$main get http://models.invalid/a.gguf && exits 0 && same &&
    grep -q ' proxied ' "$log"; }
hub()
{
    mkdir -p "$here/www/hub/me/tiny" && cd "$here/www/hub/me/tiny" && echo hello >x.gguf && echo hi >y.txt && local sha &&
        sha=$(sha256sum <x.gguf | cut -c1-64) && echo 0123 >.commit &&
        printf '%s x.gguf x.gguf\n%s d/y.txt y.txt\n' "$sha" 1111111111111111111111111111111111111111 >.files &&
        cd "$OLDPWD" || return 1
    serve --hub "$here/www/hub" --page 1 --expires-ms 500 &&
        get "http://$main/api/models/me/tiny/tree/main?recursive=true" && python3 -m json.tool "$got" >/dev/null &&
        grep -q "$sha" "$got" && head_says '^Link: <http://.*cursor=1>; rel="next"' &&
        get "http://$main/api/models/me/tiny/revision/v1" && python3 -m json.tool "$got" >/dev/null &&
        grep -q '"sha":"0123"' "$got" && get -I "http://$main/me/tiny/resolve/main/x.gguf" && head_says ' 302 ' &&
        head_says "^X-Linked-ETag: \"$sha\"" && head_says '^X-Linked-Size: 6$' && head_says '^X-Repo-Commit: 0123$' &&
        url=$(tr -d '\r' <"$here/head" | sed -n 's/^Location: //p') && get "$url" && exits 0 &&
        cmp "$here/www/hub/me/tiny/x.gguf" "$got" && get -H 'Authorization: Bearer x' "$url" && head_says ' 400 ' &&
        get "${url%?}x" && head_says ' 403 ' && get -L "http://$main/me/tiny/resolve/main/d/y.txt" && exits 0 &&
        cmp "$here/www/hub/me/tiny/y.txt" "$got" && get "http://$main/me/tiny/resolve/main/z" && head_says ' 404 ' &&
        head_says '^X-Error-Code: EntryNotFound' && get "http://$main/api/models/me/none/tree/main" &&
        head_says ' 401 ' && kill "$server" && serve --hub "$here/www/hub" --expires-ms 0 &&
        get -L "http://$main/me/tiny/resolve/main/x.gguf" && grep -q expired "$got"
}
private()
{
    mkdir -p "$here/www/hub/me/tiny" && echo hf_x >"$here/www/hub/me/tiny/.token" && : >"$here/www/hub/me/tiny/.files" &&
        serve --hub "$here/www/hub" && url=http://$main/api/models/me/tiny/tree/main && get "$url" && head_says ' 401 ' &&
        get -H 'Authorization: Bearer hf_y' "$url" && head_says ' 403 ' && get -H 'Authorization: Bearer hf_x' "$url" &&
        head_says ' 200 '
}

t "a file" right
t "ranges" range
t "If-Range" if_range
t "cut" cuts
t "stall" stalls
t "rate" rates
t "status, skip, times" statuses
t "lies" lies
t "redirect, LEAK" redirects
t "a proxy" proxies
t "the hub" hub
t "a private repository" private
