/** A request as somebody would write it elsewhere. */

import { stringifyExact } from '@/api/exact';
import type { Submission } from '@/api/tasks';

interface Options {
  submission: Submission;
  /** Where the API is. */
  url: string;
  /** Whether callers need a token there. */
  token: boolean;
}

export function curl({ submission, url, token }: Options): string {
  return [
    `curl -s ${url}/api/inference`,
    ...(token ? ['-H "Authorization: Bearer $INFERSTACK_TOKEN"'] : []),
    "-H 'Content-Type: application/json' -H 'Prefer: wait=30'",
    `-d ${shellQuoted(stringifyExact(submission))}`,
  ].join(' \\\n  ');
}

export function python({ submission, url, token }: Options): string {
  const { data, ...rest } = submission;
  const options = Object.entries(rest).map(([name, value]) => `${name}=${literal(value)}`);
  return [
    ...(token ? ['# The environment variable INFERSTACK_TOKEN holds the token.'] : []),
    'from inferstack.client import Client',
    '',
    `with Client("${url}") as client:`,
    '    task = client.infer(',
    ...[literal(data), ...options].map((argument) => `        ${argument},`),
    '    )',
    '    print(task.result)',
  ].join('\n');
}

export function shellQuoted(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

/** A JSON value as Python writes it. */
export function literal(value: unknown): string {
  if (value === null || value === undefined) return 'None';
  if (value === true) return 'True';
  if (value === false) return 'False';
  if (Array.isArray(value)) return `[${value.map(literal).join(', ')}]`;
  if (typeof value === 'object') {
    const entries = Object.entries(value);
    return `{${entries.map(([key, item]) => `${JSON.stringify(key)}: ${literal(item)}`).join(', ')}}`;
  }
  return stringifyExact(value);
}
