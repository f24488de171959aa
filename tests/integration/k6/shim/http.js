// `http.post` as k6 has it, which returns when the answer is there: by curl.
import { spawnSync } from 'node:child_process';

function post(url, body, params) {
  const headers = Object.entries(params.headers).flatMap(([name, value]) => ['-H', `${name}: ${value}`]);
  const limit = String(parseFloat(params.timeout));
  const command = ['-s', '-i', '--noproxy', '*', '--max-time', limit, '-X', 'POST', '--data-binary', '@-'];
  const done = spawnSync('curl', [...command, ...headers, url], { input: body, encoding: 'utf8' });
  if (done.status !== 0) {
    return answer(0, {}, null, `curl ended with ${done.status}`, params);
  }
  const [head, ...rest] = done.stdout.split('\r\n\r\n');
  const [first, ...lines] = head.split('\r\n');
  const fields = lines.map((line) => line.split(/:\s*/, 2)).map(([name, value]) => [canonical(name), value]);
  return answer(Number(first.split(' ')[1]), Object.fromEntries(fields), rest.join('\r\n\r\n'), '', params);
}

function answer(status, headers, body, error, params) {
  const expected = params.responseCallback(status);
  return { status, headers, body, error, expected, timings: { blocked: 0, duration: 1 } };
}

// k6 spells the names of headers as Go does.
function canonical(name) {
  return name.toLowerCase().replace(/(^|-)[a-z]/g, (letter) => letter.toUpperCase());
}

function expectedStatuses(...wanted) {
  return (status) =>
    wanted.some((one) => (typeof one === 'number' ? one === status : one.min <= status && status <= one.max));
}

export default { post, expectedStatuses };
