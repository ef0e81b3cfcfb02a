#!/bin/sh
# Installs the reference programs where that is possible without asking anyone.
missing=""
command -v convert-im6.q16 >/dev/null 2>&1 || missing="$missing imagemagick"
command -v gm >/dev/null 2>&1 || missing="$missing graphicsmagick"
[ -z "$missing" ] && exit 0
become=""
[ "$(id -u)" = 0 ] || become="sudo -n"
if command -v apt-get >/dev/null 2>&1; then
    echo "Installing$missing for the comparisons ..."
    $become apt-get update -qq >/dev/null 2>&1
    DEBIAN_FRONTEND=noninteractive $become apt-get install -y -qq $missing >/dev/null 2>&1 && exit 0
fi
echo "NOT INSTALLED:$missing. The tests that compare with them will be skipped."
exit 0
