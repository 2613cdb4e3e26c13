#!/bin/bash
# `prima pull` against a server that goes wrong: the right exit status, a message that helps, no wrong byte and no half
# file under the final name, and with the next call the whole file.
. tests/pull/lib.sh
echo "1..40"

plain()
{
    origin a.gguf 3000000 && serve && pull "http://$main/a.gguf" && exits 0 && whole a.gguf &&
        [ "$(cat "$here/out")" = "$here/got/a.gguf" ] && [ "$(served a.gguf)" -eq "$(size_of "$here/www/a.gguf")" ] &&
        ! grep '^>' "$log" | grep -v 'encoding=\(identity\|-\)'
}
in_four() # four connections really share the file
{
    origin a.gguf 40000000 && serve && rules <<<'GET * rate=40000000' && pull --jobs 4 "http://$main/a.gguf" && exits 0 &&
        whole a.gguf && [ "$(requests '^< main GET .* status=206 ')" -ge 4 ]
}
ipv6()
{
    origin a.gguf 300000 && serve || return 1
    [ "$six" != "[::1]:0" ] || { echo "no IPv6 here"; return 77; }
    pull "http://$six/a.gguf" && exits 0 && whole a.gguf && [ "$(requests '^< six GET .* status=20')" -ge 1 ]
}

query() # is no part of the name
{
    origin a.gguf 10000 && serve && pull "http://$main/a.gguf?download=true" && exits 0 && whole a.gguf
}
local_files() # checked like others
{
    origin a.gguf 1000000 && status=0 && pull "file://$here/www/a.gguf" && exits 0 && whole a.gguf && rm "$here"/got/* &&
        pull --sha256 "$(sha256sum <"$here/www/a.gguf" | cut -c1-64)" "$here/www/a.gguf" && exits 0 && whole a.gguf &&
        rm "$here"/got/* && pull "$here/www/b.gguf" && [[ $status =~ ^(2|9|10)$ ]] && says b.gguf &&
        truncate -s 500000 "$here/www/a.gguf" && pull "$here/www/a.gguf" && exits 8 && nothing_there a.gguf
}
on_a_terminal() # one line that is drawn again and again: how much, how fast, how long still; it goes away at the end
{
    script -qec true /dev/null >/dev/null 2>&1 </dev/null || { echo "no script(1), or no pseudo-terminals"; return 77; }
    origin a.gguf 3000000 && serve && rules <<<"GET * rate=1000000" && status=0 || return 1
    script -qec "stty cols 120; $PRIMA pull --jobs 1 -o $here/got http://$main/a.gguf" /dev/null </dev/null >"$here/err" ||
        status=$?
    settled
    exits 0 && whole a.gguf && says 'a.gguf' 'MB/s' 'left' || return 1
    # What it says is there never becomes less.
    tr '\r' '\n' <"$here/err" | grep -oE '[0-9.]+ of [0-9.]+ MB' |
        awk '{ if ($1 < last) exit 1; last = $1; n++ } END { exit n < 3 }'
}

# --- redirects ----------------------------------------------------------------------------------------------

# The token is for the endpoint's host and port only.
other_host()
{
    origin a.gguf 1000000 && serve && rules <<<"* /here.gguf on=main redirect=http://localhost:${cdn#*:}/a.gguf" &&
        HF_ENDPOINT=http://$main HF_TOKEN=hf_secret pull "http://$main/here.gguf" && exits 0 && whole here.gguf a.gguf &&
        grep -q '^> main .* auth=Bearer_hf_secret' "$log" && ! grep -q LEAK "$log" &&
        ! grep -rq hf_secret "$here/got" "$here/err" "$here/out"
}
other_port()
{
    origin a.gguf 1000000 && serve && rules <<<"* /here.gguf on=main redirect=http://$cdn/a.gguf" &&
        HF_ENDPOINT=http://$main HF_TOKEN=hf_secret pull "http://$main/here.gguf" && exits 0 && whole here.gguf a.gguf &&
        [ "$(requests '^> cdn ')" -ge 1 ] && ! grep -q LEAK "$log"
}
not_the_endpoint() # a server that is not the hub gets no token at all
{
    origin a.gguf 100000 && serve && HF_ENDPOINT=http://$main HF_TOKEN=hf_secret pull "http://$cdn/a.gguf" && exits 0 &&
        whole a.gguf && ! grep -q 'auth=B' "$log"
}
relative()
{
    origin b/a.gguf 1000000 && serve && rules <<<"* /here.gguf redirect=/b/a.gguf" && pull "http://$main/here.gguf" &&
        exits 0 && whole here.gguf b/a.gguf
}
loop()
{
    serve && rules <<<"* * redirect=/again.gguf" && pull "http://$main/a.gguf" && exits 10 && says 'redirect' &&
        nothing_there a.gguf
}
to_a_file() # a server does not get to choose another protocol
{
    serve && rules <<<"* * redirect=file:///etc/passwd" && pull "http://$main/a.gguf" && [ "$status" -ne 0 ] &&
        nothing_there a.gguf && ! grep -rq root: "$here/got"
}
to_plain_http() # nor to send what was asked for on this machine in the clear over the network
{
    serve && rules <<<"* * redirect=http://192.0.2.1/a.gguf" && pull "http://$main/a.gguf" && [ "$status" -ne 0 ] &&
        [ "$status" -ne 124 ] && says 'insecure-http' && nothing_there a.gguf
}
insecure()
{
    pull http://192.0.2.1/a.gguf && exits 2 && says 'insecure-http' && nothing_there a.gguf
}

# --- refusals ------------------------------------------------------------------------------------------------

unauthorized()
{
    origin a.gguf 100000 && serve && rules <<<"* * status=401" && pull "http://$main/a.gguf" && exits 7 &&
        says 401 HF_TOKEN && nothing_there a.gguf && rules </dev/null && pull "http://$main/a.gguf" && exits 0 &&
        whole a.gguf
}
forbidden()
{
    origin a.gguf 100000 && serve && rules <<<"* * status=403" && pull "http://$main/a.gguf" && exits 7 && says 403 &&
        nothing_there a.gguf && rules </dev/null && pull "http://$main/a.gguf" && exits 0 && whole a.gguf
}
not_found()
{
    serve && pull "http://$main/a.gguf" && exits 10 && says 404 a.gguf && nothing_there a.gguf &&
        [ "$(requests '^>')" -le 2 ]
}
# Where nobody has ever answered, the address is doubted first: three tries, a second.
unreachable()
{
    serve && kill "$server" && ! wait "$server" && pull "http://$main/a.gguf" && exits 10 &&
        says "${main%:*}" 'refused' '3 tries' && nothing_there a.gguf
}

# --- errors that pass ----------------------------------------------------------------------------------------

too_many()
{
    origin a.gguf 1000000 && serve && rules <<<"GET * status=429 header=Retry-After:_2 times=1" &&
        pull --jobs 1 "http://$main/a.gguf" && exits 0 && whole a.gguf &&
        sed -n 's/^> main GET .* t=\([0-9.]*\) .*/\1/p' "$log" | awk '{ at[NR] = $1 } END { exit at[2] - at[1] < 1.9 }'
}
recovers()
{
    origin a.gguf 1000000 && serve && rules <<<"GET * status=500 times=2" && pull "http://$main/a.gguf" && exits 0 &&
        whole a.gguf
}
recovers_at_the_head()
{
    origin a.gguf 1000000 && serve && rules <<<"* * status=503 times=1" && pull "http://$main/a.gguf" && exits 0 &&
        whole a.gguf
}
cut_fifty_times()
{
    origin a.gguf 8000000 && serve --seed 7 && rules <<<"GET * cut=random:140000 times=50" &&
        PULL_S=60 pull "http://$main/a.gguf" && exits 0 && whole a.gguf && [ "$(requests '^< .* rule=1')" -ge 50 ] &&
        [ "$(served a.gguf)" -eq "$(size_of "$here/www/a.gguf")" ]
}
reset_ten_times() # what was on its way is lost, and only that is asked for again
{
    origin a.gguf 8000000 && serve --seed 8 && rules <<<"GET * cut=random:700000 reset times=10" &&
        pull "http://$main/a.gguf" && exits 0 && whole a.gguf
}
wrong_416()
{
    origin a.gguf 1000000 && serve && rules <<<"GET * status=416 times=1" && pull "http://$main/a.gguf"
    if [ "$status" -ne 0 ]; then says 416 && nothing_there a.gguf && pull "http://$main/a.gguf"; fi && exits 0 &&
        whole a.gguf
}
always_416()
{
    origin a.gguf 1000000 && serve && rules <<<"GET * status=416" && pull "http://$main/a.gguf" &&
        [[ $status =~ ^(8|10)$ ]] && says 416 && nothing_there a.gguf
}

# --- servers that lie -----------------------------------------------------------------------------------------

# Found out by a request for one byte, whose answer is left when it turns out to be the whole: some buffers full.
no_ranges()
{
    origin a.gguf 20000000 && serve && rules <<<"* * no_ranges" && pull "http://$main/a.gguf" && exits 0 &&
        whole a.gguf && [ "$(served a.gguf)" -le $((20000192 + 8388608)) ]
}
no_ranges_and_cut() # the rest cannot be asked for: begins anew, and gets there
{
    origin a.gguf 3000000 && serve && rules <<<$'GET * no_ranges cut=1000000 times=2\n* * no_ranges' &&
        pull "http://$main/a.gguf" && exits 0 && whole a.gguf
}
claims_ranges() # says that it has ranges and sends everything
{
    origin a.gguf 3000000 && serve && rules <<<"GET * no_ranges" && pull "http://$main/a.gguf" && exits 0 && whole a.gguf
}
wrong_content_range()
{
    origin a.gguf 3000000 && serve && rules <<<"GET * content_range=bytes_5-9/3000192" && pull "http://$main/a.gguf" &&
        exits 8 && says 'asked for bytes' && nothing_there a.gguf && rules </dev/null && pull "http://$main/a.gguf" &&
        exits 0 && whole a.gguf
}
shifted() # other bytes than asked for, and says so
{
    origin a.gguf 3000000 && serve && rules <<<"GET * shift=1000" && pull "http://$main/a.gguf" && exits 8 &&
        nothing_there a.gguf && rules </dev/null && pull "http://$main/a.gguf" && exits 0 && whole a.gguf
}
truncated()
{
    origin a.gguf 3000000 && serve && rules <<<"* * truncate=1000000 no_ranges" && pull "http://$main/a.gguf" &&
        exits 8 && nothing_there a.gguf && rules </dev/null && pull "http://$main/a.gguf" && exits 0 &&
        cmp "$here/www/a.gguf" "$here/got/a.gguf"
}
shorter_than_said() # the head says one size, the body another
{
    origin a.gguf 3000000 && serve && rules <<<"GET * truncate=1000000 no_ranges" && pull "http://$main/a.gguf" &&
        [[ $status =~ ^(8|10)$ ]] && nothing_there a.gguf && rules </dev/null && pull "http://$main/a.gguf" && exits 0 &&
        cmp "$here/www/a.gguf" "$here/got/a.gguf"
}
compressed() # not what was asked for, and no file of that size
{
    origin a.gguf 1000000 && serve && rules <<<"GET * header=Content-Encoding:_gzip" && pull "http://$main/a.gguf" &&
        [[ $status =~ ^(8|10)$ ]] && says 'encod|compress' && nothing_there a.gguf
}
no_head() # a server that knows GET only
{
    origin a.gguf 1000000 && serve && rules <<<"HEAD * status=405" && pull "http://$main/a.gguf" && exits 0 &&
        whole a.gguf
}
gone_at_the_get() # there at the question, and not there any more
{
    origin a.gguf 1000000 && serve && rules <<<"GET * status=404" && pull "http://$main/a.gguf" && exits 10 && says 404 &&
        nothing_there a.gguf
}
no_length()
{
    origin a.gguf 3000000 && serve && rules <<<"* * chunked no_ranges" && pull "http://$main/a.gguf"
    if [ "$status" -eq 0 ]; then whole a.gguf; else exits 10 && says 'size|length|how long' && nothing_there a.gguf; fi
}
wrong_lengths() # more than there is, less than there is, and a head that knows another size
{
    origin a.gguf 3000000 && serve && rules <<<$'GET * length=5000000 times=1\nGET * length=1000 times=1' &&
        pull --jobs 1 "http://$main/a.gguf"
    if [ "$status" -ne 0 ]; then exits 8 && nothing_there a.gguf && rules </dev/null && pull "http://$main/a.gguf"; fi &&
        exits 0 && whole a.gguf && rm "$here"/got/* && rules <<<'HEAD * length=5000000' && pull "http://$main/a.gguf" &&
        exits 8 && nothing_there a.gguf
}
wrong_hash()
{
    origin a.gguf 1000000 && serve && pull --sha256 "$(printf '0%.0s' {1..64})" "http://$main/a.gguf" && exits 8 &&
        says sha256 && nothing_there a.gguf &&
        pull --sha256 "$(sha256sum <"$here/www/a.gguf" | cut -c1-64)" "http://$main/a.gguf" && exits 0 &&
        cmp "$here/www/a.gguf" "$here/got/a.gguf"
}
no_gguf()
{
    head -c 100000 /dev/zero >"$here/www/a.gguf" && serve && pull "http://$main/a.gguf" && exits 8 && says GGUF &&
        nothing_there a.gguf
}
a_page() # a log-in page with status 200
{
    echo '<!doctype html><title>Log in</title>' >"$here/www/a.gguf" && serve &&
        rules <<<"* * header=Content-Type:_text/html" && pull "http://$main/a.gguf" && exits 8 && says GGUF &&
        nothing_there a.gguf
}

t "a plain file, each byte once" plain
t "four connections" in_four
t "an address with a query" query
t "file:// and a path" local_files
t "progress on a terminal" on_a_terminal
t "IPv6" ipv6
t "redirect to another host: the token stays" other_host
t "redirect to another port: the token stays" other_port
t "a server that is not the hub gets no token" not_the_endpoint
t "relative redirect" relative
t "redirects without end" loop
t "redirect to file://" to_a_file
t "redirect to http:// over the network" to_plain_http
t "http:// over the network needs --insecure-http" insecure
t "401" unauthorized
t "403" forbidden
t "404, asked once" not_found
t "nobody listens" unreachable
t "429 with Retry-After" too_many
t "500 twice" recovers
t "503 at the first question" recovers_at_the_head
t "cut at random bytes fifty times" cut_fifty_times
t "reset ten times" reset_ten_times
t "416 once" wrong_416
t "416 for ever" always_416
t "no ranges" no_ranges
t "no ranges, and cut" no_ranges_and_cut
t "ranges promised, not kept" claims_ranges
t "wrong Content-Range" wrong_content_range
t "other bytes than asked for" shifted
t "a truncated file with status 200" truncated
t "a body shorter than the head said" shorter_than_said
t "a wrong Content-Length" wrong_lengths
t "no length at all" no_length
t "a compressed answer" compressed
t "no HEAD" no_head
t "404 at the GET" gone_at_the_get
t "--sha256 that does not fit" wrong_hash
t "zeros" no_gguf
t "a page instead of a model" a_page
