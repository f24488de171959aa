/** An input to start from, as a model's schema describes it. */

import type { Model } from '@/api/models';
import { isObject } from '@/components/json';

const HELLO = { text: 'Hello, world!' };
const DEEPEST = 4;

export function exampleOf(model: Model | undefined): Record<string, unknown> {
  const schema = model?.input_schema;
  if (!isObject(schema)) return HELLO;
  const required = Array.isArray(schema.required) ? schema.required : [];
  // A schema that asks for nothing describes what is possible, which is no good first example.
  if (required.length === 0) return HELLO;
  const example = sampleOf(schema, DEEPEST);
  return isObject(example) ? example : HELLO;
}

function sampleOf(schema: unknown, depth: number): unknown {
  if (!isObject(schema) || depth === 0) return null;
  if ('default' in schema) return schema.default;
  if (Array.isArray(schema.examples) && schema.examples.length > 0) return schema.examples[0];
  if (Array.isArray(schema.enum)) return schema.enum[0];
  const type = Array.isArray(schema.type) ? schema.type[0] : schema.type;
  if (type === 'object' || schema.properties) return objectOf(schema, depth);
  if (type === 'array') return [sampleOf(schema.items, depth - 1)];
  if (type === 'string') return 'Hello, world!';
  if (type === 'number' || type === 'integer') return schema.minimum ?? 1;
  if (type === 'boolean') return false;
  return null;
}

function objectOf(schema: Record<string, unknown>, depth: number): Record<string, unknown> {
  const properties = isObject(schema.properties) ? schema.properties : {};
  const required = Array.isArray(schema.required) ? schema.required : [];
  return Object.fromEntries(
    Object.entries(properties)
      .filter(([name]) => required.includes(name))
      .map(([name, inner]) => [name, sampleOf(inner, depth - 1)]),
  );
}
