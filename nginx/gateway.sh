#!/bin/sh
# The gateway: renders NGINX's configuration from the environment, then runs it in the foreground.
#
#   gateway.sh          renders and runs; SIGQUIT drains, SIGTERM ends at once
#   gateway.sh check    renders, and has NGINX check what came out
#
# docs/gateway.md explains every variable. It takes no more than a POSIX shell and awk, so that the
# same script serves a container image, a plain Linux machine and the tests.
set -aeuf # -a: `render` finds everything in its environment

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)

: "${GATEWAY_NGINX:=nginx}"
: "${GATEWAY_FOLDER:=/tmp/inferstack-gateway}"
: "${GATEWAY_API:=api-server:8000}"
: "${GATEWAY_RESOLVER:=}"
: "${GATEWAY_HTTP:=80}"
: "${GATEWAY_HTTPS:=443}"
: "${GATEWAY_CERTIFICATE:=}"
: "${GATEWAY_KEY:=}"
: "${GATEWAY_UI:=/usr/share/nginx/html}"
: "${GATEWAY_RATE:=1000}"
: "${GATEWAY_BURST:=2000}"
: "${GATEWAY_CONNECTIONS:=512}"
: "${GATEWAY_TIMEOUT:=15}"
: "${GATEWAY_TRUSTED_PROXIES:=}"
: "${GATEWAY_ACCESS_LOG:=/dev/stdout}"
: "${MAX_BODY_BYTES:=16777216}"
: "${MAX_WAIT:=60}"

fail() {
    echo "$1" >&2
    exit 1
}

# What could end a directive or begin another one never reaches the configuration.
check_text() {
    eval "value=\$$1"
    case $value in
        *[!][A-Za-z0-9._:/,@+-]*) fail "$1=$value: it takes $2" ;;
    esac
}

check_whole() {
    eval "value=\$$1"
    case $value in
        '' | 0* | *[!0-9]*) fail "$1=$value: it takes a whole number, 1 or more" ;;
    esac
}

check_variables() {
    for name in GATEWAY_FOLDER GATEWAY_UI GATEWAY_CERTIFICATE GATEWAY_KEY GATEWAY_ACCESS_LOG; do
        check_text "$name" 'a path of letters, digits and ._:/,@+-'
    done
    check_text GATEWAY_HTTP 'a port or address:port'
    check_text GATEWAY_HTTPS 'a port or address:port'
    check_text GATEWAY_API 'host:port, comma-separated'
    check_text GATEWAY_RESOLVER 'addresses of name servers, comma-separated'
    check_text GATEWAY_TRUSTED_PROXIES 'addresses or networks such as 10.0.0.0/8, comma-separated'
    for name in GATEWAY_RATE GATEWAY_BURST GATEWAY_CONNECTIONS GATEWAY_TIMEOUT MAX_BODY_BYTES; do
        check_whole "$name"
    done
    case $MAX_WAIT in
        0[0-9]* | *[!0-9.]* | *.*.*) fail "MAX_WAIT=$MAX_WAIT: it takes a number of seconds" ;;
    esac
    case "$GATEWAY_CERTIFICATE|$GATEWAY_KEY" in
        '|' | ?*'|'?*) ;;
        *) fail 'TLS takes both GATEWAY_CERTIFICATE and GATEWAY_KEY' ;;
    esac
}

read_version() {
    version=$("$GATEWAY_NGINX" -v 2>&1) || fail "GATEWAY_NGINX=$GATEWAY_NGINX: it cannot be run: $version"
    version=${version##*/}
    version=${version%%[!0-9.]*}
}

# Whether NGINX is of this version or newer.
nginx_is() {
    printf '%s\n%s\n' "$1" "$version" | awk -F. '
        { number[NR] = $1 * 1000000 + $2 * 1000 + $3 }
        END { exit number[2] < number[1] }
    '
}

words() {
    echo "$1" | tr ',' ' '
}

# Those of /etc/resolv.conf, which in a container is Docker's own.
name_servers() {
    if [ -n "$GATEWAY_RESOLVER" ]; then
        words "$GATEWAY_RESOLVER"
    else
        awk '$1 == "nameserver" { printf "%s ", ($2 ~ /:/) ? "[" $2 "]" : $2 }' /etc/resolv.conf
    fi
}

# The lines of the upstream. A name stands for all replicas that it resolves to.
#
# A replica that takes no connection is left alone only for a short while: asking costs little, and
# when all of them have been restarted nobody should have to wait.
servers() {
    resolve=' resolve'
    nginx_is 1.27.3 || resolve=''
    for server in $(words "$GATEWAY_API"); do
        lasting=''
        case $server in
            \[*\]:[0-9]*) ;;
            *[!0-9.:]*:[0-9]*)
                lasting=$resolve
                [ -n "$resolve" ] ||
                    echo "GATEWAY_API: before 1.27.3 NGINX looks $server up only when it starts" >&2
                ;;
            [0-9]*:[0-9]*) ;;
            *) fail "GATEWAY_API=$GATEWAY_API: it takes host:port, comma-separated" ;;
        esac
        echo "        server $server max_fails=1 fail_timeout=2s$lasting;"
    done
}

# What the templates take beside the variables of the environment.
derive() {
    GATEWAY_SERVERS=$(servers)
    GATEWAY_RESOLVER_LINE=''
    # Docker's own answers say that they hold for ten minutes: far too long.
    case $GATEWAY_SERVERS in
        *' resolve;'*)
            resolver=$(name_servers)
            [ -n "$resolver" ] || fail 'GATEWAY_RESOLVER: /etc/resolv.conf names no server: set it'
            GATEWAY_RESOLVER_LINE="resolver $resolver valid=1s;"
            ;;
    esac
    GATEWAY_TRUST_LINES=''
    for proxy in $(words "$GATEWAY_TRUSTED_PROXIES"); do
        GATEWAY_TRUST_LINES="$GATEWAY_TRUST_LINES set_real_ip_from $proxy;"
    done
    # Started as root NGINX wants a user for its workers; the one compiled in may not exist.
    GATEWAY_USER_LINE=''
    if [ "$(id -u)" = 0 ]; then
        GATEWAY_USER_LINE="user nobody $(id -gn nobody);"
    fi
    # As many as there are cores costs memory on large machines; four do more than the API can.
    GATEWAY_WORKERS=$(nproc)
    [ "$GATEWAY_WORKERS" -le 4 ] || GATEWAY_WORKERS=4
    GATEWAY_LISTEN='ssl http2'
    GATEWAY_HTTP2_LINE=''
    if nginx_is 1.25.1; then
        GATEWAY_LISTEN='ssl'
        GATEWAY_HTTP2_LINE='http2 on;'
    fi
    # The API answers within MAX_WAIT and the time of a commit.
    seconds=${MAX_WAIT%%.*}
    GATEWAY_READ_TIMEOUT=$((${seconds:-0} + 15))
    # A balancer in front must wait longer than that for an answer, and keeps idle connections for as
    # long. It must be the one who closes them, or requests meet a connection that is just gone.
    GATEWAY_KEEPALIVE=$((GATEWAY_READ_TIMEOUT + 45))
}

# Anybody can make things in /tmp: who owns the folder, or may write to it, could replace what was
# rendered before NGINX reads it.
make_folder() {
    (umask 022 && mkdir -p "$GATEWAY_FOLDER")
    ls -ldn "$GATEWAY_FOLDER" | awk -v me="$(id -u)" '
        { exit !($1 ~ /^d/ && substr($1, 9, 1) != "w" && $3 == me) }
    ' || fail "GATEWAY_FOLDER=$GATEWAY_FOLDER: it takes a folder of this user's own"
}

# Replaces every ${NAME}; one that is not set is an error.
render() {
    awk '
        {
            while (match($0, /\$\{[A-Z0-9_]+\}/)) {
                name = substr($0, RSTART + 2, RLENGTH - 3)
                if (!(name in ENVIRON)) {
                    print FILENAME ": " name " is not set" > "/dev/stderr"
                    exit 1
                }
                printf "%s%s", substr($0, 1, RSTART - 1), ENVIRON[name]
                $0 = substr($0, RSTART + RLENGTH)
            }
            print
        }
    ' "$here/$1.conf" >"$GATEWAY_FOLDER/$2.conf"
}

case ${1:-run} in
    run) set -- ;;
    check) set -- -t ;;
    *) fail "usage: gateway.sh [check]" ;;
esac
check_variables
read_version
derive
make_folder
for name in nginx http problems headers own site api; do
    render "$name" "$name"
done
if [ -n "$GATEWAY_CERTIFICATE" ]; then
    render tls servers
else
    render plain servers
fi
exec "$GATEWAY_NGINX" -p "$GATEWAY_FOLDER" -c "$GATEWAY_FOLDER/nginx.conf" -e stderr "$@"
