/** JSON for people: short lists of plain values on one line, long ones cut. */

import { stringifyExact } from '@/api/exact';

const LINE = 76;

/** Items of a list that are shown unless all are wanted. */
export const SHOWN = 24;

export function formatJson(value: unknown, limit = SHOWN): string {
  return format(value, '', limit);
}

/** Whether `formatJson` leaves something out. */
export function isCut(value: unknown, limit = SHOWN): boolean {
  if (Array.isArray(value)) return value.length > limit || value.some((v) => isCut(v, limit));
  if (isObject(value)) return Object.values(value).some((item) => isCut(item, limit));
  return false;
}

function format(value: unknown, indent: string, limit: number): string {
  const inner = `${indent}  `;
  if (Array.isArray(value)) return formatList(value, indent, limit);
  if (!isObject(value)) return stringifyExact(value);
  const entries = Object.entries(value);
  if (entries.length === 0) return '{}';
  const lines = entries.map(
    ([key, item]) => `${inner}${JSON.stringify(key)}: ${format(item, inner, limit)}`,
  );
  return `{\n${lines.join(',\n')}\n${indent}}`;
}

function formatList(list: unknown[], indent: string, limit: number): string {
  if (list.length === 0) return '[]';
  const inner = `${indent}  `;
  const items = list.slice(0, limit).map((item) => format(item, inner, limit));
  if (list.length > limit) items.push(`… ${list.length - limit} more`);
  const plain = list.every((item) => typeof item !== 'object' || item === null);
  const lines = plain ? wrap(items, inner) : items.map((item) => inner + item);
  const [only] = lines;
  if (plain && lines.length === 1 && only) return `[${only.trim()}]`;
  return `[\n${lines.join(plain ? '\n' : ',\n')}\n${indent}]`;
}

/** Fills lines with items, as words of a text. */
function wrap(items: string[], indent: string): string[] {
  const lines: string[] = [];
  let line = indent;
  for (const [i, item] of items.entries()) {
    const word = i < items.length - 1 ? `${item},` : item;
    if (line !== indent && line.length + word.length + 1 > LINE) {
      lines.push(line);
      line = indent;
    }
    line += line === indent ? word : ` ${word}`;
  }
  return [...lines, line];
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
