// Load test for k6 (https://k6.io), which is not part of inferstack: install it first.
//
//   k6 run tests/load-test.js
//   k6 run -e SCENARIO=spike -e MODEL=echo tests/load-test.js
//
// The scenarios, their rates, requests and limits are those of `inferstack bench --scenario`: both
// read inferstack/client/scenarios.json. Each stage is a scenario of k6 named like it, so that k6
// reports and judges it by itself. k6 exits with 99 if a limit broke.
//
// Variables, by -e or from the environment:
//   INFERSTACK_URL                          where the API is: http://127.0.0.1:8000
//   INFERSTACK_TOKEN or INFERSTACK_API_KEY  as whom; as nobody if neither is set
//   SCENARIO                                smoke, load, stress, spike or soak: load
//   MODEL, MODEL_VERSION                    the default model and its newest version if not set
//   DATA                                    one input as JSON, in place of the declared texts
//   RATE, DURATION, CONNECTIONS, WAIT       other figures than the declared ones, as in the command
//   ALLOW_REMOTE=1                          load another machine than this
import exec from 'k6/execution';
import http from 'k6/http';
import { Rate, Trend } from 'k6/metrics';

const LOCAL = /^https?:\/\/(localhost|127\.0\.0\.1|\[::1\])(:\d+)?\/?$/;
const COME_BACK = [429, 503];
const COMPLETED = '"status":"completed"';

const declared = JSON.parse(open('../inferstack/client/scenarios.json'));
const url = (__ENV.INFERSTACK_URL || 'http://127.0.0.1:8000').replace(/\/+$/, '');
const scenario = chosen(__ENV.SCENARIO || 'load');
const bodies = requestBodies();
const stages = byName();

// Time to an answer that is no refusal, shares of what failed and of what was refused.
const latency = new Trend('inferstack_latency', true);
const failed = new Rate('inferstack_failed');
const refused = new Rate('inferstack_refused');

export const options = {
  scenarios: k6Scenarios(),
  thresholds: k6Thresholds(),
  summaryTrendStats: ['med', 'p(95)', 'p(99)', 'max'],
};

// One request before the load, so that whatever is wrong with all of them is told at once.
export function setup() {
  const answer = http.post(`${url}/api/inference`, bodies[0], parameters(60, []));
  if (!served(answer, 60)) {
    throw new Error(`${url} does not serve: status ${answer.status}, ${answer.error || answer.body}`);
  }
}

export default function () {
  const body = bodies[exec.scenario.iterationInTest % bodies.length];
  const stage = stages[exec.scenario.name];
  const answer = http.post(`${url}/api/inference`, body, stage.parameters);
  const isRefusal = COME_BACK.includes(answer.status) && 'Retry-After' in answer.headers;
  refused.add(isRefusal);
  failed.add(!isRefusal && !served(answer, scenario.wait));
  if (!isRefusal) {
    latency.add(answer.timings.blocked + answer.timings.duration);
  }
}

// An accepted task; with a wait one that completed, or that was still on its way after the wait.
function served(answer, wait) {
  if (answer.status === 200 && wait > 0) {
    return String(answer.body).includes(COMPLETED);
  }
  return answer.status >= 200 && answer.status < 300;
}

function chosen(name) {
  if (!LOCAL.test(url) && __ENV.ALLOW_REMOTE !== '1') {
    throw new Error(`${url} is not this machine: set ALLOW_REMOTE=1 to load it`);
  }
  const found = declared.scenarios[name];
  if (found === undefined) {
    const names = Object.keys(declared.scenarios).join(', ');
    throw new Error(`SCENARIO=${name}: it takes one of ${names}`);
  }
  const seconds = found.stages.reduce((sum, stage) => sum + stage.seconds, 0);
  const factor = number('DURATION', seconds) / seconds;
  return {
    rate: number('RATE', found.rate),
    connections: number('CONNECTIONS', found.connections),
    wait: number('WAIT', found.wait),
    stages: found.stages.map((stage) => Object.assign({}, stage, { seconds: stage.seconds * factor })),
  };
}

function number(name, usual) {
  if (!__ENV[name]) {
    return usual;
  }
  const value = Number(__ENV[name]);
  if (!(value >= 0) || (value === 0 && name !== 'WAIT')) {
    throw new Error(`${name}=${__ENV[name]}: it takes a number`);
  }
  return value;
}

function requestBodies() {
  const extra = {};
  if (__ENV.MODEL) {
    extra.model = __ENV.MODEL;
  }
  if (__ENV.MODEL_VERSION) {
    extra.model_version = Number(__ENV.MODEL_VERSION);
  }
  const found = [];
  for (const request of declared.requests) {
    const data = __ENV.DATA ? JSON.parse(__ENV.DATA) : request.data;
    const timeout = Math.max(declared.timeout, scenario.wait);
    const body = JSON.stringify(Object.assign({ data, priority: request.priority, timeout }, extra));
    for (let i = 0; i < request.share; i += 1) {
      found.push(body);
    }
  }
  return found;
}

function byName() {
  const found = {};
  for (const stage of scenario.stages) {
    const limits = declared.limits[stage.limits];
    // Where refusals are expected, k6's own http_req_failed does not count them either.
    const expected = limits.refused > 0 ? COME_BACK : [];
    found[stage.name] = { limits, parameters: parameters(scenario.wait, expected) };
  }
  return found;
}

function parameters(wait, expected) {
  const headers = { 'Content-Type': 'application/json' };
  if (__ENV.INFERSTACK_TOKEN) {
    headers.Authorization = `Bearer ${__ENV.INFERSTACK_TOKEN}`;
  } else if (__ENV.INFERSTACK_API_KEY) {
    headers['X-API-Key'] = __ENV.INFERSTACK_API_KEY;
  }
  if (wait > 0) {
    headers.Prefer = `wait=${wait}`;
  }
  return {
    headers,
    timeout: `${wait + declared.patience}s`,
    responseCallback: http.expectedStatuses({ min: 200, max: 299 }, ...expected),
    redirects: 0,
  };
}

function k6Scenarios() {
  const found = {};
  let begin = 0;
  for (const stage of scenario.stages) {
    found[stage.name] = {
      executor: 'constant-arrival-rate',
      startTime: milliseconds(begin),
      duration: milliseconds(stage.seconds),
      rate: Math.max(1, Math.round(stage.times * scenario.rate)),
      timeUnit: '1s',
      preAllocatedVUs: scenario.connections,
      maxVUs: scenario.connections,
      gracefulStop: `${scenario.wait + declared.patience}s`,
    };
    begin += stage.seconds;
  }
  return found;
}

function milliseconds(seconds) {
  return `${Math.round(seconds * 1000)}ms`;
}

function k6Thresholds() {
  const found = {};
  for (const stage of scenario.stages) {
    const limits = stages[stage.name].limits;
    const due = Math.ceil(stage.times * scenario.rate * stage.seconds);
    found[`inferstack_failed{scenario:${stage.name}}`] = [`rate<=${limits.failed}`];
    found[`inferstack_refused{scenario:${stage.name}}`] = [`rate<=${limits.refused}`];
    // What k6 drops because all connections are busy.
    found[`dropped_iterations{scenario:${stage.name}}`] = [`count<=${limits.unsent * due}`];
    const latencies = [];
    if (limits.p95_ms) {
      latencies.push(`p(95)<=${limits.p95_ms}`);
    }
    if (limits.p99_ms) {
      latencies.push(`p(99)<=${limits.p99_ms}`);
    }
    // Without a limit, one that always holds: k6 shows a stage's latency only where there is one.
    found[`inferstack_latency{scenario:${stage.name}}`] = latencies.length ? latencies : ['max>=0'];
  }
  return found;
}
