#!/bin/bash
# .ci/deps with a make-believe dpkg, apt-get, id and sudo: it installs what is missing and nothing else.
set -uo pipefail
root=$PWD
bin=$(mktemp -d)
trap 'rm -rf "$bin"' EXIT
n=0 failed=0

result() # NAME STATUS
{
    n=$((n + 1))
    if [ "$2" -eq 0 ]; then echo "ok $n - $1"; else echo "not ok $n - $1"; failed=1; fi
}
fake() # NAME BODY
{
    printf '#!/bin/bash\n%s\n' "$2" >"$bin/$1"
    chmod +x "$bin/$1"
}
deps()
{
    : >"$bin/log"
    PATH=$bin "$root/.ci/deps" "$@" >"$bin/out" 2>&1
}

for tool in bash env grep mktemp; do ln -s "$(command -v $tool)" "$bin/$tool"; done
fake dpkg 'exit 1'
# The package is the third argument; here2 is there for two architectures.
fake dpkg-query 'case $3 in here1) echo installed ;; here2) echo installed; echo installed ;; removed) echo config-files ;; *) exit 1 ;; esac'
fake apt-get "echo apt-get \$* >>$bin/log"
fake id 'echo 0'

echo "1..6"
deps here1 here2 && [ ! -s "$bin/log" ]
result "nothing missing: nothing is called" $?
deps here1 gone removed here2 && grep -q ' update$' "$bin/log" && grep -q ' gone removed$' "$bin/log" &&
    ! grep -q here "$bin/log"
result "as root: only what is missing is installed" $?
fake id 'echo 1000'
deps gone
[ $? -ne 0 ] && grep -q 'apt-get install gone' "$bin/out" && [ ! -s "$bin/log" ]
result "neither root nor sudo: says what to do and fails" $?
fake sudo "echo sudo >>$bin/log; \"\$@\""
deps gone && [ "$(grep -c sudo "$bin/log")" -eq 2 ] && grep -q ' gone$' "$bin/log"
result "not root: sudo is used" $?
fake apt-get 'exit 100'
! deps gone
result "a failed installation is a failure" $?
rm "$bin/dpkg"
deps here gone && grep -q 'here gone' "$bin/out"
result "another system: lists the packages and goes on" $?
exit $failed
