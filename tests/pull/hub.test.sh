#!/bin/bash
# `prima pull` and a hub of models (imitated: README.md): names, revisions, lists, tokens, and where the bytes come from.
. tests/pull/lib.sh
echo "1..32"
COMMIT=0123456789abcdef0123456789abcdef01234567

# A large file of the repository me/tiny, with its sha256.
file() # PATH BYTES [NAME IT HAS IN THE LIST [MORE ARGUMENTS OF make_gguf]]
{
    origin "hub/me/tiny/$1" "$2" "${@:4}" || return 1
    echo "$(sha256sum <"$here/www/hub/me/tiny/$1" | cut -c1-64) ${3:-$1} $1" >>"$here/www/hub/me/tiny/.files"
}
small_file() # NAME: in git itself, without a sha256
{
    origin "hub/me/tiny/$1" 3000 && echo "1111111111111111111111111111111111111111 $1 $1" >>"$here/www/hub/me/tiny/.files"
}
# Starts the hub; every command is told of it.
hub() # OPTIONS OF fault_server
{
    echo $COMMIT >"$here/www/hub/me/tiny/.commit"
    serve --hub "$here/www/hub" "$@" && export HF_ENDPOINT=http://$main
}
same() # NAME [AS IT IS THERE]
{
    whole_of "hub/me/tiny/$1" "${2:-$1}"
}
whole_of()
{
    cmp "$here/www/$1" "$here/got/$2" && (cd "$here/got" && sha256sum --quiet -c "$2.sha256")
}
usual()
{
    file tiny-Q4_K_M.gguf 1000000 && file tiny-Q8_0.gguf 1500000 "" --seed 2 && small_file README.md
}

by_quant()
{
    usual && hub && pull me/tiny:Q8_0 && exits 0 && same tiny-Q8_0.gguf && grep -q '^> cdn GET' "$log" &&
        [ ! -e "$here/got/tiny-Q4_K_M.gguf" ]
}
by_default()
{
    usual && hub && pull me/tiny && exits 0 && same tiny-Q4_K_M.gguf
}
any_case()
{
    usual && hub && pull me/tiny:q4_k_m && exits 0 && same tiny-Q4_K_M.gguf
}
by_file()
{
    usual && hub && pull me/tiny/tiny-Q8_0.gguf && exits 0 && same tiny-Q8_0.gguf
}
by_revision()
{
    usual && hub && pull hf://me/tiny@v1/tiny-Q8_0.gguf && exits 0 && same tiny-Q8_0.gguf
}
pinned() # one commit for all: what is fetched is asked for by its commit
{
    usual && hub && pull me/tiny:Q8_0 && exits 0 && grep -q "^> main GET [^ ]*/resolve/$COMMIT/" "$log" &&
        ! grep -q '^> main GET [^ ]*/resolve/main/' "$log"
}
by_page() # the address that a browser shows
{
    usual && hub && pull "http://$main/me/tiny/blob/main/tiny-Q8_0.gguf" && exits 0 && same tiny-Q8_0.gguf &&
        ! grep -q '/blob/' "$log"
}
in_a_folder()
{
    file Q8_0/tiny-Q8_0.gguf 100000 && hub && pull me/tiny:Q8_0 && exits 0 && same Q8_0/tiny-Q8_0.gguf tiny-Q8_0.gguf
}
in_git() # small enough that the hub serves it itself, by a relative redirect; it has no sha256
{
    usual && small_file tiny-F16.gguf && hub && pull me/tiny:F16 && exits 0 && same tiny-F16.gguf
}
many_pages()
{
    local i
    for i in {1..9}; do small_file "note$i.txt"; done
    usual && hub --page 2 && pull me/tiny:Q8_0 && exits 0 && same tiny-Q8_0.gguf &&
        [ "$(requests '^> main GET [^ ]*/tree/')" -ge 5 ]
}
list()
{
    usual && hub && pull --list me/tiny && exits 0 && grep -q 'tiny-Q4_K_M.gguf' "$here/out" &&
        grep -q 'tiny-Q8_0.gguf' "$here/out" && ! grep -q README "$here/out" && [ -z "$(ls -A "$here/got")" ]
}
no_such_quant() # says what there is
{
    usual && hub && pull me/tiny:Q5_K_S && exits 2 && says Q5_K_S Q4_K_M Q8_0 && [ -z "$(ls -A "$here/got")" ]
}
two_fit()
{
    usual && file other-Q8_0.gguf 1000 && hub && pull me/tiny:Q8_0 && exits 2 && says tiny-Q8_0.gguf other-Q8_0.gguf &&
        [ -z "$(ls -A "$here/got")" ]
}
no_such_repository()
{
    usual && hub && pull me/nothing:Q8_0 && [[ $status =~ ^(7|10)$ ]] && says 'me/nothing'
}
split()
{
    local i
    for i in 0 1 2; do file "big-Q8_0-0000$((i + 1))-of-00003.gguf" 700000 "" --seed $i --part $i 3 || return 1; done
    hub && pull me/tiny:Q8_0 && exits 0 || return 1
    for i in 1 2 3; do same "big-Q8_0-0000$i-of-00003.gguf" || return 1; done
    "$PRIMA" pull --verify "$here/got/big-Q8_0-00001-of-00003.gguf" 2>"$here/err"
}
split_wrong() # one part of three has a wrong byte: only that one is fetched again
{
    local i
    for i in 0 1 2; do
        file "big-Q8_0-0000$((i + 1))-of-00003.gguf" 700000 "" --seed $i --part $i 3 || return 1
    done
    hub && rules <<<"GET /xet-bridge/$(sed -n '2s/ .*//p' "$here/www/hub/me/tiny/.files") corrupt=500000" &&
        pull me/tiny:Q8_0 && exits 8 && says 'big-Q8_0-00002' && nothing_there big-Q8_0-00002-of-00003.gguf || return 1
    : >"$log"
    has_rules=
    rules </dev/null && pull me/tiny:Q8_0 && exits 0 && [ "$(served /xet-bridge/)" -lt 800000 ] || return 1
    for i in 1 2 3; do same "big-Q8_0-0000$i-of-00003.gguf" || return 1; done
}
split_missing() # a part that the repository does not have
{
    file big-Q8_0-00001-of-00002.gguf 100000 "" --part 0 2 && hub && pull me/tiny:Q8_0 && [ "$status" -ne 0 ] &&
        says '00002' && nothing_there big-Q8_0-00001-of-00002.gguf
}

# --- tokens --------------------------------------------------------------------------------------------------------

private() { usual && echo hf_secret >"$here/www/hub/me/tiny/.token" && hub; }
with_token()
{
    private && HF_TOKEN=hf_secret PRIMA_LOG=debug pull me/tiny:Q8_0 && exits 0 && same tiny-Q8_0.gguf &&
        grep -q '^> main .* auth=Bearer_hf_secret' "$log" && ! grep -q LEAK "$log" &&
        ! grep -rq hf_secret "$here/got" "$here/err" "$here/out"
}
token_in_a_file()
{
    private && echo hf_secret >"$here/token" && HF_TOKEN_PATH=$here/token pull me/tiny:Q8_0 && exits 0 &&
        same tiny-Q8_0.gguf && ! grep -q LEAK "$log" || return 1
    rm -r "$here/got" && mkdir "$here/got" "$here/hf" && cp "$here/token" "$here/hf/token" &&
        HF_HOME=$here/hf pull me/tiny:Q8_0 && exits 0 && same tiny-Q8_0.gguf
}
without_token()
{
    private && pull me/tiny:Q8_0 && exits 7 && says HF_TOKEN && nothing_there tiny-Q8_0.gguf
}
wrong_token()
{
    private && HF_TOKEN=hf_other pull me/tiny:Q8_0 && exits 7 && says HF_TOKEN && ! grep -q hf_other "$here/err"
}

next_page_elsewhere() # the rest of the list is said to be on another host: no token for it
{
    private &&
        rules <<<"* /api/models/*/tree/* on=main header=Link:_<http://$cdn/api/models/me/tiny/tree/main>;_rel=\"next\"" &&
        HF_TOKEN=hf_secret pull me/tiny:Q8_0 && ! grep -q LEAK "$log"
}
slash_at_the_end() # of HF_ENDPOINT
{
    usual && hub && HF_ENDPOINT=http://$main/ pull me/tiny:Q8_0 && exits 0 && same tiny-Q8_0.gguf
}
no_endpoint() # an address that is none is said to be wrong, not asked
{
    usual && hub && HF_ENDPOINT=models.example pull me/tiny:Q8_0 && exits 2 && says HF_ENDPOINT
}

# --- where the bytes come from ----------------------------------------------------------------------------------

# Addresses of the CDN hold for a moment only: after a cut the hub is asked for a new one.
expiring()
{
    usual && hub --expires-ms 1500 && rules <<<"GET /xet-bridge/* rate=500000 cut=1000000 times=1" &&
        pull --jobs 1 me/tiny:Q8_0 && exits 0 && same tiny-Q8_0.gguf && grep -q '^< cdn GET .* status=403 ' "$log" &&
        [ "$(served /xet-bridge/)" -le $((1500192 + 4096)) ]
}
cdn_refuses() # the hub is not to blame, and a token would not help
{
    usual && hub --expires-ms 0 && pull me/tiny:Q8_0 && exits 10 && says 403 "$cdn" && ! grep -q 'set HF_TOKEN' "$here/err" &&
        nothing_there tiny-Q8_0.gguf
}
# What has been fetched is known by its sha256: also when the repository or the mirror is another one at the next call.
half_of_it()
{
    file tiny-Q8_0.gguf 4000000 && hub && rules <<<"GET /xet-bridge/* rate=1000000" && pull_begin --jobs 2 me/tiny:Q8_0 &&
        under_way tiny-Q8_0.gguf && kill -s INT "$pid" && pull_end && exits 130 && rules </dev/null || return 1
    before=$(served /xet-bridge/)
}
rest_of_it()
{
    pull me/tiny:Q8_0 && exits 0 && same tiny-Q8_0.gguf && rest_only tiny-Q8_0.gguf "$before" /xet-bridge/
}
new_commit()
{
    half_of_it && echo 1123456789abcdef0123456789abcdef01234567 >"$here/www/hub/me/tiny/.commit" && rest_of_it
}
new_mirror()
{
    half_of_it && kill "$server" && hub && rest_of_it
}
wrong_bytes() # the hub's sha256 is what counts
{
    usual && hub && rules <<<"GET /xet-bridge/* corrupt=700000" && pull me/tiny:Q8_0 && exits 8 &&
        says sha256 tiny-Q8_0.gguf && nothing_there tiny-Q8_0.gguf && rules </dev/null && pull me/tiny:Q8_0 && exits 0 &&
        cmp "$here/www/hub/me/tiny/tiny-Q8_0.gguf" "$here/got/tiny-Q8_0.gguf"
}
offline()
{
    usual && hub && HF_HUB_OFFLINE=1 pull me/tiny:Q8_0 && exits 10 && says 'offline' && [ "$(requests '^>')" -eq 0 ] &&
        pull me/tiny:Q8_0 && exits 0 && : >"$log" && HF_HUB_OFFLINE=1 pull me/tiny/tiny-Q8_0.gguf && exits 0 &&
        pull --offline me/tiny/tiny-Q8_0.gguf && exits 0 && [ "$(requests '^>')" -eq 0 ]
}
# A list from a hub that wants to write where it should not: refused, and nothing is made anywhere.
escapes()
{
    local name
    usual && : >"$here/canary" || return 1
    for name in ../../evil-Q6_K.gguf /tmp/evil-Q6_K.gguf a/../../../evil-Q6_K.gguf ./../evil-Q6_K.gguf \
        '..%2f..%2fevil-Q6_K.gguf' '..\\..\\evil-Q6_K.gguf' 'a\nevil-Q6_K.gguf'; do
        rm -f "$here/www/hub/me/tiny/.files"
        file evil.gguf 1000 "$name" && hub && pull me/tiny:Q6_K && kill "$server" && exits 8 ||
            { echo "$name"; return 1; }
        [ -z "$(find "$top" /tmp -maxdepth 3 -name '*evil-Q6_K*' -newer "$here/canary" 2>/dev/null)" ] ||
            { echo "$name"; return 1; }
    done
    [ -z "$(ls -A "$here/got")" ] || return 1
    hub || return 1
    for name in me/tiny/../x.gguf me/tiny/.. ../tiny:Q6_K me/..:Q6_K \
        "http://$main/.." "http://$main/a/..%2fx.gguf" "http://$main/%2e%2e" "http://$main/"; do
        pull "$name"
        [[ $status =~ ^(2|9)$ ]] || { echo "$name: status $status"; return 1; }
    done
    [ -z "$(ls -A "$here/got")" ]
}
# http_proxy is libcurl's affair, and respected: the whole URL goes to the proxy, and no name is looked up here.
proxy()
{
    origin a.gguf 100000 && serve && http_proxy=http://$cdn pull --insecure-http http://models.invalid/a.gguf &&
        exits 0 && whole a.gguf && grep -q '^> cdn GET http://models.invalid/a.gguf proxied' "$log" &&
        ! grep -q 'auth=B' "$log"
}

t "OWNER/REPO:QUANT" by_quant
t "OWNER/REPO is its Q4_K_M" by_default
t "the quantisation in small letters" any_case
t "OWNER/REPO/FILE" by_file
t "hf://OWNER/REPO@REVISION/FILE" by_revision
t "the commit is pinned" pinned
t "/blob/ becomes /resolve/" by_page
t "a file in a folder" in_a_folder
t "a file that the hub serves itself" in_git
t "a list of several pages" many_pages
t "--list" list
t "a quantisation that is not there" no_such_quant
t "two files fit" two_fit
t "no such repository" no_such_repository
t "a model in three parts" split
t "a wrong byte in one part" split_wrong
t "a part is missing" split_missing
t "a token, for the hub only" with_token
t "a token from a file" token_in_a_file
t "no token" without_token
t "the wrong token" wrong_token
t "the list goes on on another host" next_page_elsewhere
t "HF_ENDPOINT with a slash" slash_at_the_end
t "HF_ENDPOINT without https://" no_endpoint
t "addresses that expire" expiring
t "the CDN refuses" cdn_refuses
t "a new commit between two calls" new_commit
t "another mirror at the second call" new_mirror
t "a wrong byte" wrong_bytes
t "offline" offline
t "names with slashes and dots" escapes
t "through a proxy" proxy
