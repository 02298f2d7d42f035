#!/bin/sh
# watched.sh KIND ROOT COMMAND…: a command that tells when it begins and ends, and whether another of its kind is at work.
# Below ROOT/platform: `acts` is what it tells; `slow-KIND` keeps it from acting until `go-on` is there; `deaf` makes it hear
# no signal to end. A slow one starts something first that hears none either, with its process in `helper-pid`: in its own
# process group where there is `helper`, in a session of its own where there is `deep`.
kind=$1 platform=$2/platform
shift 2
if [ -e "$platform/deaf" ]; then trap '' TERM; fi
mkdir -p "$platform/at-work"
for other in "$platform/at-work/$kind".*; do
    stat=/proc/${other##*.}/stat
    if [ -e "$stat" ] && ! grep -q ') [ZX] ' "$stat"; then echo "two $kind" >> "$platform/acts"; fi
done
: > "$platform/at-work/$kind.$$"
helper='trap "" TERM; echo $$ > "$1.new"; mv "$1.new" "$1"; while :; do sleep 0.2; done'
if [ -e "$platform/slow-$kind" ] && [ -e "$platform/helper" ]; then
    sh -c "$helper" helper "$platform/helper-pid" &
    while [ ! -e "$platform/helper-pid" ]; do sleep 0.05; done
elif [ -e "$platform/slow-$kind" ] && [ -e "$platform/deep" ]; then
    setsid sh -c "$helper" helper "$platform/helper-pid" &
    while [ ! -e "$platform/helper-pid" ]; do sleep 0.05; done
fi
echo "begin $kind $$" >> "$platform/acts"
if [ -e "$platform/slow-$kind" ]; then
    while [ ! -e "$platform/go-on" ]; do sleep 0.05; done
fi
"$@"
code=$?
echo "end $kind $$" >> "$platform/acts"
rm -f "$platform/at-work/$kind.$$"
exit $code
