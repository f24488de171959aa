#!/usr/bin/env bash
# Checks a running stack from outside, whatever it runs on:
#
#   scripts/integration-test.sh [BASE_URL]     http://127.0.0.1:8000 if left out
#
#   API_KEY                 calls with this key; or
#   USERNAME and PASSWORD   logs in and calls with the token; with neither it calls as nobody
#   ECHO_MODEL              a model that returns its input: echo
#   TEXT_MODEL              a model that takes {"text": ...}: minilm
#   MAX_BODY_BYTES          the stack's own limit: 16777216
#   CURL_CA_BUNDLE          a certificate of your own, in a file (read by curl)
#
# It needs bash, curl and python3. One line for each check; what the stack does not serve is skipped
# and said so. The last line is `N passed, N failed`; the exit status is 1 if any failed. It takes
# back the API key that it makes and cancels what it leaves unfinished; its tasks stay in history.
set -uf

URL=${1:-http://127.0.0.1:8000}
URL=${URL%/}
ECHO_MODEL=${ECHO_MODEL:-echo}
TEXT_MODEL=${TEXT_MODEL:-minilm}
MAX_BODY_BYTES=${MAX_BODY_BYTES:-16777216}
API_KEY=${API_KEY:-}
USERNAME=${USERNAME:-}
PASSWORD=${PASSWORD:-}
# Desktops and some shells set USERNAME by themselves.
[ -n "$PASSWORD" ] || USERNAME=

ANSWER_LIMIT=30 # seconds for one answer; no wait below is longer than 20
DIRECT="localhost,127.0.0.1,::1,${NO_PROXY:-${no_proxy:-}}" # no proxy knows this machine as we do

# --- Telling ---------------------------------------------------------------------------------------

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
    GREEN=$'\e[32m' RED=$'\e[31m' YELLOW=$'\e[33m' PLAIN=$'\e[0m'
else
    GREEN='' RED='' YELLOW='' PLAIN=''
fi
PASSED=0 FAILED=0 SKIPPED=0

die() {
    echo "$1" >&2
    exit "${2:-1}"
}

# check NAME FUNCTION: runs a check. It returns 0, or says why not by `because` or `skip`.
check() {
    REASON=''
    "$2"
    case $? in
        0)
            PASSED=$((PASSED + 1))
            printf '%sok%s       %s\n' "$GREEN" "$PLAIN" "$1"
            ;;
        77)
            SKIPPED=$((SKIPPED + 1))
            printf '%sskipped%s  %s: %s\n' "$YELLOW" "$PLAIN" "$1" "$REASON"
            ;;
        *)
            FAILED=$((FAILED + 1))
            printf '%sFAILED%s   %s: %s\n' "$RED" "$PLAIN" "$1" "${REASON:-no reason given}"
            return 1
            ;;
    esac
}

because() {
    REASON=$1
    return 1
}

skip() {
    REASON=$1
    return 77
}

finish() {
    [ "$SKIPPED" = 0 ] || echo "$SKIPPED skipped: see above"
    echo "$PASSED passed, $FAILED failed"
    [ "$FAILED" = 0 ]
    exit
}

# --- Calling ---------------------------------------------------------------------------------------

[ $# -le 1 ] || die "usage: ${0##*/} [BASE_URL]" 2
case $URL in
    -h | --help)
        sed -n '2,/^set /s/^# \{0,1\}//p' "$0"
        exit
        ;;
    http://?* | https://?*) ;;
    *) die "$URL is not a URL such as http://127.0.0.1:8000" 2 ;;
esac
case $ECHO_MODEL$TEXT_MODEL in
    *[!A-Za-z0-9._-]*) die 'ECHO_MODEL and TEXT_MODEL take names of letters, digits and ._-' 2 ;;
esac
case $MAX_BODY_BYTES in
    '' | *[!0-9]*) die "MAX_BODY_BYTES=$MAX_BODY_BYTES: it takes a number" 2 ;;
esac
for program in curl python3; do
    command -v "$program" >/dev/null || die "this needs $program, which is not installed"
done

# The program itself: what some version managers put in its place takes a while to find it each time.
PYTHON=$(python3 -IS -c 'import sys; print(sys.executable)') || die 'python3 does not run'
WORK=$(mktemp -d "${TMPDIR:-/tmp}/inferstack-check.XXXXXX") || die 'cannot make a temporary folder'
: >"$WORK/headers" # credentials go to curl by file: a command line can be read by everybody
: >"$WORK/tasks"
KEY_ID=''

leave() {
    if [ -n "$KEY_ID" ]; then
        send "$WORK/headers" DELETE "/api/auth/keys/$KEY_ID" || true
    fi
    while read -r task; do
        send "$WORK/headers" DELETE "/api/inference/$task" || break
    done <"$WORK/tasks"
    rm -rf "$WORK"
}
trap leave EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# send HEADERS METHOD PATH [ARGUMENTS OF CURL]: leaves $STATUS, and files with the head and the body
# of the answer. $REASON says why there is none.
send() {
    headers=$1 method=$2 path=$3
    shift 3
    : >"$WORK/body"
    STATUS=$(curl --silent --show-error --connect-timeout 3 --max-time "$ANSWER_LIMIT" \
        --noproxy "$DIRECT" --request "$method" --header "@$headers" --dump-header "$WORK/head" --output "$WORK/body" \
        --write-out '%{http_code}' "$@" "$URL$path" 2>"$WORK/error") && return
    because "$method $path: $(tr '\n' ' ' <"$WORK/error")"
}

call() {
    send "$WORK/headers" "$@"
}

# post PATH JSON [ARGUMENTS OF CURL]: `call` with a body.
post() {
    path=$1 body=$2
    shift 2
    printf '%s' "$body" >"$WORK/request"
    call POST "$path" --header 'Content-Type: application/json' --data-binary "@$WORK/request" "$@"
}

# submit JSON [ARGUMENTS OF CURL]: remembers the task, so that it is not left unfinished.
submit() {
    post /api/inference "$@" || return
    value "d['task_id']" >>"$WORK/tasks" 2>/dev/null || true
}

# value EXPRESSION [ARGUMENTS]: prints what Python makes of the answer `d`, its fields `h` in lower
# case, and the arguments `a`.
value() {
    "$PYTHON" -IS - "$WORK" "$@" <<'PYTHON'
import json
import sys

work, expression, *a = sys.argv[1:]
with open(f"{work}/head", encoding="latin-1") as head:
    fields = [line.split(":", 1) for line in head if ":" in line]
h = {name.strip().lower(): text.strip() for name, text in fields}
with open(f"{work}/body", encoding="utf-8") as body:
    text = body.read()
try:
    d = json.loads(text)
except ValueError:
    d = text
found = eval(expression, {"d": d, "h": h, "a": a, "json": json})
if isinstance(found, bool):
    sys.exit(not found)
print(found)
PYTHON
}

# expect STATUS [EXPRESSION [ARGUMENTS]]: the status of the answer, and what is true of it.
expect() {
    wanted=$1
    shift
    if [ "$STATUS" != "$wanted" ]; then
        because "status $STATUS instead of $wanted: $(shown)"
        return
    fi
    [ $# = 0 ] && return
    expression=$1
    shift
    value "bool($expression)" "$@" 2>/dev/null ||
        because "not so: $expression; the answer was $(shown)"
}

# problem STATUS KIND: RFC 9457 problem details.
problem() {
    expect "$1" "h['content-type'].startswith('application/problem+json') \
and d['status'] == $1 and d['type'].endswith('/$2') and d['title'] != '' and d['detail'] != ''"
}

shown() {
    head -c 300 "$WORK/body" | tr '\n' ' '
}

# --- The checks ------------------------------------------------------------------------------------

reachable() {
    call GET /health || because "nothing answers at $URL: $(tr '\n' ' ' <"$WORK/error")" || return
    expect 200 "d['status'] == 'healthy' and d['uptime'] >= 0"
}

ready() {
    call GET /health/live && expect 200 "d['status'] == 'healthy'" || return
    call GET /health/ready && expect 200 "d['status'] == 'healthy'"
}

components() {
    call GET /health/detailed && expect 200 "all(c['ok'] for c in d['components'])" || return
    expect 200 "len(d['components']) > 0 and len(d['deployments']) > 0"
}

documented() {
    call GET /api/openapi.json || return
    expect 200 "all('/api/inference' + p in d['paths'] for p in ('', '/batch', '/{task_id}'))"
}

measured() {
    call GET /metrics || return
    if [ "$STATUS" = 404 ]; then
        skip 'not shown here; a gateway keeps them to itself'
        return
    fi
    expect 200 "all('# TYPE ' + m in d for m in \
('http_requests_total', 'http_request_duration_seconds', 'queue_depth'))"
}

logged_in() {
    credentials=$(U=$USERNAME P=$PASSWORD "$PYTHON" -IS -c \
        'import json, os; print(json.dumps({"username": os.environ["U"], "password": os.environ["P"]}))')
    post /api/auth/login "$credentials" || return
    rm -f "$WORK/request"
    expect 200 "d['token_type'] == 'bearer' and d['expires_in'] > 0" || return
    value "'Authorization: Bearer ' + d['access_token']" >"$WORK/headers"
}

let_in() {
    call GET /api/auth/me || return
    if [ "$STATUS" = 401 ] && [ ! -s "$WORK/headers" ]; then
        because 'it takes credentials: set API_KEY, or USERNAME and PASSWORD'
        return
    fi
    expected=account
    [ -s "$WORK/headers" ] || expected=nobody
    expect 200 "d['tenant'] != '' and d['anonymous'] == (a[0] == 'nobody')" "$expected"
}

nobody() {
    : >"$WORK/nothing"
    send "$WORK/nothing" GET /api/inference || return
    if [ "$STATUS" = 200 ]; then
        skip 'this stack lets callers on its own machine in without them'
        return
    fi
    problem 401 unauthenticated && expect 401 "'www-authenticate' in h"
}

forged() {
    echo 'Authorization: Bearer not.a.token' >"$WORK/forged"
    send "$WORK/forged" GET /api/inference && problem 401 unauthenticated || return
    echo 'X-API-Key: is_nobody_has_this_key' >"$WORK/forged"
    send "$WORK/forged" GET /api/inference && problem 401 unauthenticated
}

wrong_password() {
    post /api/auth/login '{"username": "nobody-of-this-name", "password": "wrong"}' || return
    if [ "$STATUS" = 503 ]; then
        skip "this stack has no logins: $(value "d['detail']")"
        return
    fi
    problem 401 unauthenticated
}

key_lives_and_dies() {
    if [ ! -s "$WORK/headers" ]; then
        skip 'it takes an account: set API_KEY, or USERNAME and PASSWORD'
        return
    fi
    post /api/auth/keys '{"name": "integration-test"}' && expect 201 "d['key'].startswith('is_')" || return
    KEY_ID=$(value "d['id']")
    value "'X-API-Key: ' + d['key']" >"$WORK/key"
    send "$WORK/key" GET /api/auth/me && expect 200 "not d['anonymous']" || return
    call DELETE "/api/auth/keys/$KEY_ID" && expect 204 || return
    KEY_ID=''
    # Other API processes than the one that was asked may trust it for ten seconds more.
    until_so 15 key_is_dead
}

key_is_dead() {
    send "$WORK/key" GET /api/auth/me && problem 401 unauthenticated
}

# until_so SECONDS FUNCTION: repeats a check until it holds.
until_so() {
    end=$((SECONDS + $1))
    until "$2"; do
        [ "$SECONDS" -lt "$end" ] || return 1
        sleep 0.2
    done
}

served() {
    call GET /api/models && expect 200 || return
    for model in "$ECHO_MODEL" "$TEXT_MODEL"; do
        if value "any(m['model'] == a[0] and m['state'] == 'ready' for m in d['models'])" "$model"; then
            MODELS="$MODELS $model"
        fi
    done
    [ -n "$MODELS" ] || because "neither $ECHO_MODEL nor $TEXT_MODEL is ready: $(shown)"
}

has() {
    case " $MODELS " in
        *" $1 "*) ;;
        *) skip "$1 is not served here" ;;
    esac
}

# input [TEXT]: the members `model` and `data` of a request.
input() {
    printf '"model": "%s", "data": {"text": "%s"}' "$MODEL" "${1:-integration test}"
}

# What the model `echo` does on purpose; in production it refuses it.
can_be_slow() {
    has "$ECHO_MODEL" || return
    case $SLOW in
        yes) ;;
        no) skip "$ECHO_MODEL takes no sleep_ms here, as in production" ;;
    esac
}

find_out_whether_slow() {
    SLOW=no
    case " $MODELS " in
        *" $ECHO_MODEL "*) ;;
        *) return ;;
    esac
    submit '{"model": "'"$ECHO_MODEL"'", "data": {"sleep_ms": 1}}' || return
    [ "$STATUS" = 422 ] || SLOW=yes
}

submits() {
    submit "{$(input)}" || return
    expect 202 "d['status'] == 'queued' and d['estimated_wait_time'] >= 0 \
and h['location'].endswith('/api/inference/' + d['task_id'])" || return
    TASK=$(value "d['task_id']")
    call GET "/api/inference/$TASK" --header 'Prefer: wait=20' || return
    expect 200 "d['task_id'] == a[0] and d['status'] == 'completed' and d['error'] is None" "$TASK"
}

waits() {
    submit "{$(input)}" --header 'Prefer: wait=20' || return
    expect 200 "d['status'] == 'completed' and d['result'] is not None and d['attempts'] >= 1 \
and d['timings']['compute_ms'] >= 0 and h['preference-applied'].startswith('wait=')" || return
}

waits_by_query() {
    post '/api/inference?wait=20' "{$(input)}" && expect 200 "d['status'] == 'completed'"
}

returns_its_input() {
    has "$ECHO_MODEL" || return
    submit '{"model": "'"$ECHO_MODEL"'", "data": {"n": [1, "\u00e9"]}, "metadata": {"a": 1}}' \
        --header 'Prefer: wait=20' || return
    expect 200 "d['result'] == {'n': [1, '\u00e9']} and d['metadata'] == {'a': 1}"
}

embeds() {
    has "$TEXT_MODEL" || return
    submit '{"model": "'"$TEXT_MODEL"'", "data": {"text": "Hello, world!"}}' \
        --header 'Prefer: wait=20' || return
    expect 200 "d['status'] == 'completed' and d['result'] != {}"
}

outlives_a_short_wait() {
    can_be_slow || return
    submit '{"model": "'"$ECHO_MODEL"'", "data": {"sleep_ms": 1500}}' --header 'Prefer: wait=0.1' || return
    expect 202 "d['status'] in ('queued', 'running')" || return
    call GET "/api/inference/$(value "d['task_id']")?wait=20" && expect 200 "d['status'] == 'completed'"
}

repeats() {
    key="integration-$$-$RANDOM$RANDOM"
    submit "{$(input)}" --header "Idempotency-Key: $key" && expect 202 || return
    first=$(value "d['task_id']")
    submit "{$(input)}" --header "Idempotency-Key: $key" || return
    expect 202 "d['task_id'] == a[0] and h['idempotency-replayed'] == 'true'" "$first" || return
    submit "{$(input 'another text')}" --header "Idempotency-Key: $key" && problem 422 idempotency-mismatch
}

batches() {
    bad='{"model": "no-such-model", "data": {}}'
    post /api/inference/batch "[{$(input)}, $bad, {$(input)}]" || return
    expect 200 "len(d) == 3 and d[1]['status'] == 404 and d[0]['task_id'] != d[2]['task_id']" || return
    remember_all
    for task in $(value "d[0]['task_id'] + ' ' + d[2]['task_id']"); do
        call GET "/api/inference/$task?wait=20" && expect 200 "d['status'] == 'completed'" || return
    done
}

remember_all() {
    value "'\n'.join(t['task_id'] for t in d if 'task_id' in t)" >>"$WORK/tasks"
}

prioritizes() {
    for priority in high normal low; do
        submit "{$(input), \"priority\": \"$priority\"}" --header 'Prefer: wait=20' || return
        expect 200 "d['priority'] == a[0] and d['status'] == 'completed'" "$priority" || return
    done
}

lets_high_go_first() {
    # In one commit, so that nothing is taken out of the queue in between.
    normal="{$(input)}, {$(input)}, {$(input)}, {$(input)}, {$(input)}"
    low="{$(input), \"priority\": \"low\"}" high="{$(input), \"priority\": \"high\"}"
    post /api/inference/batch "[$normal, $low, $high]" || return
    expect 200 "len(d) == 7 and all('queue_position' in t for t in d)" || return
    remember_all
    expect 200 "d[6]['queue_position'] < d[5]['queue_position']"
}

unknown_priority() {
    submit "{$(input), \"priority\": \"urgent\"}" && problem 422 invalid-request || return
    expect 422 "d['errors'][0]['field'] == 'priority'"
}

cancels() {
    can_be_slow || return
    submit '{"model": "'"$ECHO_MODEL"'", "data": {"sleep_ms": 2000}}' && expect 202 || return
    task=$(value "d['task_id']")
    call DELETE "/api/inference/$task" && expect 200 "d['status'] == 'cancelled'" || return
    call GET "/api/inference/$task?wait=20" && expect 200 "d['status'] == 'cancelled' and d['result'] is None"
}

cancels_nothing_finished() {
    call POST "/api/inference/$TASK/cancel" && expect 200 "d['status'] == 'completed'"
}

unknown_task() {
    for task in 019b8d7d-f237-76a8-9c52-5b0f3f0c8f11 nonsense; do
        call GET "/api/inference/$task" && problem 404 task-not-found || return
        call DELETE "/api/inference/$task" && problem 404 task-not-found || return
    done
}

too_large() {
    {
        printf '{"data": {"text": "'
        head -c "$MAX_BODY_BYTES" /dev/zero | tr '\0' x
        printf '"}}'
    } >"$WORK/large"
    call POST /api/inference --header 'Content-Type: application/json' --data-binary "@$WORK/large" || return
    problem 413 payload-too-large
}

no_json() {
    call POST /api/inference --header 'Content-Type: text/plain' --data x || return
    problem 415 unsupported-media-type || return
    post /api/inference '{"data": ' && problem 422 invalid-request
}

names_the_field() {
    submit "{$(input), \"surprise\": 1}" && expect 422 "'surprise' in json.dumps(d['errors'])" || return
    submit "{$(input), \"timeout\": -1}" && expect 422 "d['errors'][0]['field'] == 'timeout'"
}

no_model() {
    submit '{"model": "no-such-model", "data": {}}' && problem 404 model-not-found
}

too_many() {
    items=$(printf '{},%.0s' $(seq 100001))
    post /api/inference/batch "[${items%,}]" || return
    expect 422 "d['status'] == 422 and len(d['detail']) > 0"
}

listed() {
    until_so 15 in_history
}

in_history() {
    call GET "/api/inference?status=completed&model=$MODEL&limit=200" || return
    expect 200 "[t['status'] for t in d['tasks'] if t['task_id'] == a[0]] == ['completed'] \
and all(t['model'] == a[1] for t in d['tasks'])" "$TASK" "$MODEL"
}

pages() {
    until_so 15 two_pages
}

two_pages() {
    call GET '/api/inference?limit=1' && expect 200 "len(d['tasks']) == 1 and d['next_cursor']" || return
    first=$(value "d['tasks'][0]['task_id']")
    call GET "/api/inference?limit=1&cursor=$(value "d['next_cursor']")" || return
    expect 200 "len(d['tasks']) == 1 and d['tasks'][0]['task_id'] != a[0]" "$first"
}

# --- Running them ----------------------------------------------------------------------------------

MODELS='' MODEL='' SLOW=no TASK=''
if [ -n "$API_KEY" ]; then
    printf 'X-API-Key: %s\n' "$API_KEY" >"$WORK/headers"
fi

check 'health: the stack answers and is healthy' reachable || finish
check 'health: live and ready' ready
if [ -z "$API_KEY" ] && [ -n "$USERNAME" ]; then
    check "auth: $USERNAME logs in" logged_in || finish
fi
check 'auth: the caller is let in' let_in || finish
check 'auth: a caller without credentials is refused' nobody
check 'auth: a forged token and a forged key are refused' forged
check 'auth: a wrong password is refused' wrong_password
check 'auth: an API key is made, works, and is revoked' key_lives_and_dies
check 'health: every component is in order' components
check 'docs: the API describes itself' documented
check 'metrics: requests, their times and the queue are counted' measured
check "models: $ECHO_MODEL or $TEXT_MODEL is ready" served || finish
MODEL=${MODELS# }
MODEL=${MODEL%% *}
find_out_whether_slow
check 'submit: accepted, then completed' submits
check 'wait: the answer is the finished task' waits
check 'wait: ?wait=N does the same' waits_by_query
check 'wait: a task outlives a short wait' outlives_a_short_wait
check "wait: $ECHO_MODEL returns its input" returns_its_input
check "wait: $TEXT_MODEL returns a result" embeds
check 'submit: a repeat under one key is the same task' repeats
check 'batch: one bad request does not sink the others' batches
check 'priority: high, normal and low are all served' prioritizes
check 'priority: high is placed before low' lets_high_go_first
check 'priority: another one is refused' unknown_priority
check 'cancel: a task that is not finished' cancels
check 'cancel: a finished task stays as it is' cancels_nothing_finished
check 'cancel: an unknown task is not found' unknown_task
check 'limits: a large body is refused' too_large
check 'limits: what is no JSON is refused' no_json
check 'limits: a wrong field is named' names_the_field
check 'limits: an unknown model is not found' no_model
check 'limits: too many requests in one batch are refused' too_many
check 'history: a finished task is listed' listed
check 'history: pages follow each other' pages
finish
