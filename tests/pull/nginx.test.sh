#!/bin/bash
# `prima pull` from nginx, a server that others wrote: plain, ranges, rate limits, no ranges, TLS. It runs from a folder of
# its own on a free port of the loopback interface; root is not needed.
. tests/pull/lib.sh
. tests/pull/nginx.sh
[ -n "$nginx" ] || {
    echo "1..0 # SKIP no nginx (make deps-test)"
    exit 0
}
echo "1..8"

once() # each byte was sent once; nginx writes its log when it has the time
{
    wait_for all_is_sent && sleep 0.1 && all_is_sent || { echo "$(served a.gguf) bytes sent"; false; }
}
all_is_sent()
{
    [ "$(served a.gguf)" -eq "$(size_of "$here/www/a.gguf")" ]
}

plain()
{
    origin a.gguf 5000000 && serve_nginx </dev/null && pull "http://$main/a.gguf" && exits 0 && whole a.gguf && once
}
ranges()
{
    origin a.gguf 40000000 && serve_nginx <<<"limit_rate 30m;" && pull --jobs 4 "http://$main/a.gguf" && exits 0 &&
        whole a.gguf && once && [ "$(requests 'GET .* status=206')" -ge 4 ]
}
limited() # interrupted in its middle, at 1 MB/s a connection
{
    origin a.gguf 8000000 && serve_nginx <<<"limit_rate 1m;" && pull_begin --jobs 2 "http://$main/a.gguf" && under_way &&
        sleep 1 && kill -s INT "$pid" && pull_end && exits 130 && nothing_there a.gguf &&
        pull --jobs 4 "http://$main/a.gguf" && exits 0 && whole a.gguf && sleep 0.2 &&
        [ "$(served a.gguf)" -ge 8000192 ] && [ "$(served a.gguf)" -le 9000000 ]
}
restarted() # the server goes away and comes back
{
    origin a.gguf 8000000 && serve_nginx <<<"limit_rate 2m;" && pull_begin --jobs 2 "http://$main/a.gguf" && under_way ||
        return 1
    kill "$server"
    wait "$server"
    rm -f "$here/nginx/pid"
    "$nginx" -p "$here/nginx" -e "$here/nginx/error.log" -c "$here/nginx/conf" &
    started+=" $!"
    pull_end
    exits 0 && whole a.gguf && [ "$(requests '^< nginx GET .* status=206 ')" -ge 3 ]
}
no_ranges() # asked about by a request that is left when it turns out to be for the whole: some buffers full
{
    origin a.gguf 20000000 && serve_nginx <<<"max_ranges 0;" && pull --jobs 4 "http://$main/a.gguf" && exits 0 &&
        whole a.gguf && sleep 0.2 && [ "$(served a.gguf)" -le $((20000192 + 8388608)) ]
}
# What it takes to fetch 160 MiB does not grow with the file: `make pull-bench` does the same with 2 GiB.
memory()
{
    local peak=0 now
    [ "${BUILD##*/}" = release ] || { echo "sanitizers take memory of their own"; return 77; }
    origin a.gguf 167772160 --zeros && serve_nginx </dev/null && pull_begin --jobs 4 "http://$main/a.gguf" || return 1
    while now=$(sed -n 's/^VmHWM:[^0-9]*\([0-9]*\) kB/\1/p' "/proc/$pid/status" 2>/dev/null) && [ -n "$now" ]; do
        peak=$now
        sleep 0.02
    done
    pull_end
    echo "peak of resident memory: $peak KiB"
    exits 0 && whole a.gguf && [ "$peak" -gt 0 ] && [ "$peak" -lt 65536 ]
}
over_tls()
{
    origin a.gguf 5000000 && serve_nginx </dev/null && SSL_CERT_FILE=$top/cert.pem pull "https://$tls/a.gguf" &&
        exits 0 && whole a.gguf && once
}
unknown_ca()
{
    origin a.gguf 5000 && serve_nginx </dev/null && pull "https://$tls/a.gguf" && exits 10 && says 'certificate' &&
        nothing_there a.gguf
}
t "plain" plain
t "ranges" ranges
t "a rate limit and an interruption" limited
t "the server is restarted" restarted
t "max_ranges 0" no_ranges
t "memory" memory
t "TLS" over_tls
t "TLS with an unknown certificate" unknown_ca
