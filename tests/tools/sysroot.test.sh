#!/bin/bash
# .ci/sysroot with a make-believe apt-get and dpkg-deb: it unpacks what apt has downloaded, once, and never half.
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
sysroot()
{
    : >"$bin/log"
    PATH=$bin "$root/.ci/sysroot" arm64 "$bin/dir" "$@" >"$bin/out" 2>&1
}

for tool in bash env cat mkdir rm; do ln -s "$(command -v $tool)" "$bin/$tool"; done
fake apt-get "echo \"\$*\" >>$bin/log
case \$* in *' install '*) : >\"$bin/dir/apt/cache/archives/libone.deb\" ;; esac"
fake dpkg-deb "echo dpkg-deb \$* >>$bin/log; : >\"\$3/libone.so\""

echo "1..5"
sysroot one two && [ -e "$bin/dir/libone.so" ] && [ -e "$bin/dir/complete" ] && [ ! -e "$bin/dir/apt" ] &&
    grep -q 'APT::Architecture=arm64 .* --download-only one two$' "$bin/log" && ! grep -v "$bin/dir" "$bin/log"
result "downloads for the architecture and unpacks, and writes nowhere else" $?
sysroot one two && [ ! -s "$bin/log" ]
result "a second call does nothing" $?
sysroot one && grep -q 'download-only one$' "$bin/log"
result "other packages: anew" $?
fake apt-get 'exit 100'
! sysroot two && [ ! -e "$bin/dir/complete" ] && ! sysroot two
result "a failed download is a failure, also the next time" $?
rm "$bin/apt-get"
! sysroot two && grep -q 'apt-get' "$bin/out"
result "another system: says what is missing" $?
exit $failed
