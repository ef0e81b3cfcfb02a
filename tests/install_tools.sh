#!/bin/sh
# Installs what the tests need besides Python packages, where that is possible without
# asking anyone: the reference programs, and a screen for the windows.
programs=""
command -v convert-im6.q16 >/dev/null 2>&1 || programs="$programs imagemagick"
command -v gm >/dev/null 2>&1 || programs="$programs graphicsmagick"
# For clusters over SSH, and in networks of their own.
[ -x /usr/sbin/sshd ] || programs="$programs openssh-server"
command -v ip >/dev/null 2>&1 || [ -x /usr/sbin/ip ] || programs="$programs iproute2"
# Clients and neighbors of the endpoint: PHP's curl extension, a browser for its page, two proxies.
if ! command -v php >/dev/null 2>&1; then programs="$programs php-cli php-curl"; fi
command -v chromium >/dev/null 2>&1 || command -v chromium-browser >/dev/null 2>&1 \
    || programs="$programs chromium"
command -v nginx >/dev/null 2>&1 || [ -x /usr/sbin/nginx ] || programs="$programs nginx-light"
command -v caddy >/dev/null 2>&1 || programs="$programs caddy"
if ! command -v xvfb-run >/dev/null 2>&1 && [ -z "$DISPLAY" ]; then
    programs="$programs xvfb xauth"
fi
# Qt's own libraries; only dpkg knows whether they are there.
if command -v dpkg >/dev/null 2>&1; then
    for library in libgl1 libegl1 libgl1-mesa-dri libxkbcommon-x11-0 libxcb-cursor0 \
        libxcb-icccm4 libxcb-keysyms1 libxcb-image0 libxcb-render-util0 libxcb-shape0 \
        libxcb-xkb1 libxcb-randr0 libdbus-1-3 libfontconfig1; do
        dpkg -s "$library" >/dev/null 2>&1 || programs="$programs $library"
    done
fi
[ -z "$programs" ] && exit 0
become=""
[ "$(id -u)" = 0 ] || become="sudo -n"
if command -v apt-get >/dev/null 2>&1; then
    echo "Installing$programs for the tests ..."
    $become apt-get update -qq >/dev/null 2>&1
    DEBIAN_FRONTEND=noninteractive $become apt-get install -y -qq $programs >/dev/null 2>&1 && exit 0
fi
echo "NOT INSTALLED:$programs. The tests that need them will be skipped."
exit 0
