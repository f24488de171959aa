// Runs a script of k6 in Node.js, as far as that goes: `node drive.mjs SCRIPT [STAGE:COUNT ...]`.
// Prints its options and the values of its metrics as one line of JSON. What each iteration sends
// goes where the script sends it.
import { readFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';

const [script, ...stages] = process.argv.slice(2);
globalThis.__ENV = process.env;
globalThis.open = (path) => readFileSync(resolve(dirname(script), path), 'utf8');

try {
  const test = await import(pathToFileURL(resolve(script)));
  const { default: exec } = await import('k6/execution');
  const { kept } = await import('k6/metrics');
  if (stages.length) {
    test.setup();
  }
  for (const [name, count] of stages.map((stage) => stage.split(':'))) {
    for (let number = 0; number < Number(count); number += 1) {
      exec.scenario = { name, iterationInTest: number };
      test.default();
    }
  }
  console.log(JSON.stringify({ options: test.options, metrics: kept }));
} catch (error) {
  console.error(error.message);
  process.exit(1);
}
