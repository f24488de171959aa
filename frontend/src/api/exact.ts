/**
 * JSON of users, in which no number changes: an integer that JavaScript's numbers cannot hold is a
 * `bigint`. In browsers before 2025 it is rounded, as JavaScript does it.
 */

/** What a reviver is told of a plain value, and how one is written as it was. */
interface Source {
  source?: string;
}
const raw = (JSON as { rawJSON?: (text: string) => unknown }).rawJSON ?? Number;

/** Throws a `SyntaxError` or a `RangeError` that says what is wrong. */
export function parseExact(text: string): unknown {
  return JSON.parse(text, keep);
}

export function stringifyExact(value: unknown, indent?: number): string {
  return JSON.stringify(value, write, indent) ?? 'null';
}

function keep(_key: string, value: unknown, context?: Source): unknown {
  if (typeof value !== 'number' || Number.isSafeInteger(value)) return value;
  const source = context?.source ?? '';
  if (!Number.isFinite(value)) throw new RangeError(`${source || 'A number'} is too large`);
  return /^-?\d+$/.test(source) ? BigInt(source) : value;
}

function write(_key: string, value: unknown): unknown {
  return typeof value === 'bigint' ? raw(String(value)) : value;
}
