/** What the form of the playground holds, and the request that it makes. */

import { useEffect, useState } from 'react';
import type { Schemas } from '@/api/client';
import { parseExact } from '@/api/exact';
import { deploymentOf, type Model } from '@/api/models';
import type { Priority, Submission } from '@/api/tasks';
import { formatJson, isObject } from '@/components/json';
import { exampleOf } from './example';

export interface Draft {
  /** `name` for the newest version that is ready, `name:version`, or empty for none yet. */
  model: string;
  /** The input as JSON. */
  text: string;
  priority: Priority;
  /** Seconds, as typed; empty never expires. */
  timeout: string;
}

/** Seconds that the API gives a task that asks for no timeout. */
export const DEFAULT_TIMEOUT = 60;

const KEY = 'inferstack.draft';
const FRESH: Draft = { model: '', text: '', priority: 'normal', timeout: String(DEFAULT_TIMEOUT) };
const LONGEST_KEPT = 200_000;

/** A draft that outlives the page within its tab. */
export function useDraft(start: Draft): [Draft, (change: Partial<Draft>) => void] {
  const [draft, setDraft] = useState(start);
  useEffect(() => remember(draft), [draft]);
  const change = (some: Partial<Draft>) => setDraft((before) => ({ ...before, ...some }));
  return [draft, change];
}

interface Wanted {
  /** The model that the address names. */
  model: string | null;
  /** The request of the task that the address names. */
  request: Schemas['RequestView'] | undefined;
  models: Model[];
}

/** What to start from: what the address asks for, what was there before, or something that works. */
export function startingDraft({ model, request, models }: Wanted): Draft {
  if (request) {
    return {
      model: `${request.model}:${request.model_version}`,
      text: formatJson(request.data, Number.POSITIVE_INFINITY),
      priority: request.priority,
      timeout: request.timeout == null ? '' : String(request.timeout),
    };
  }
  const before = remembered();
  if (model !== null && model !== before.model) return withModel(before, model, models);
  if (before.model) return before;
  const ready = models.filter((found) => found.state === 'ready');
  const first = ready.find((found) => found.default) ?? ready[0] ?? models[0];
  return first ? withModel(before, first.model, models) : before;
}

function withModel(draft: Draft, name: string, models: Model[]): Draft {
  const found = models.find((model) => [model.model, deploymentOf(model)].includes(name));
  return { ...draft, model: name, text: formatJson(exampleOf(found)) };
}

/** The data of a draft, or why it is none. */
export function dataOf(text: string): { data: Record<string, unknown> } | { wrong: string } {
  let found: unknown;
  try {
    found = parseExact(text);
  } catch (error) {
    return { wrong: error instanceof Error ? error.message : String(error) };
  }
  return isObject(found) ? { data: found } : { wrong: 'The input must be a JSON object: {…}' };
}

export function timeoutOf(text: string): { timeout: number | null } | { wrong: string } {
  if (text.trim() === '') return { timeout: null };
  const timeout = Number(text);
  const fits = timeout > 0 && timeout <= 604_800;
  return fits
    ? { timeout }
    : { wrong: 'Takes seconds: more than 0, at most 604,800. Empty: it never expires.' };
}

/** The request of a draft; null while something is wrong in it. */
export function submissionOf(draft: Draft): Submission | null {
  const input = dataOf(draft.text);
  const limit = timeoutOf(draft.timeout);
  if ('wrong' in input || 'wrong' in limit || draft.model === '') return null;
  const [model = '', version] = draft.model.split(':');
  return {
    data: input.data,
    model,
    ...(version ? { model_version: Number(version) } : {}),
    ...(draft.priority === 'normal' ? {} : { priority: draft.priority }),
    ...(limit.timeout === DEFAULT_TIMEOUT ? {} : { timeout: limit.timeout }),
  };
}

/** What somebody typed is not for the next one who uses the tab. */
export function forgetDraft(): void {
  try {
    sessionStorage.removeItem(KEY);
  } catch {
    // Without storage there is none.
  }
}

function remembered(): Draft {
  try {
    return { ...FRESH, ...JSON.parse(sessionStorage.getItem(KEY) ?? '{}') };
  } catch {
    return FRESH;
  }
}

function remember(draft: Draft): void {
  try {
    if (draft.text.length < LONGEST_KEPT) sessionStorage.setItem(KEY, JSON.stringify(draft));
    else sessionStorage.removeItem(KEY);
  } catch {
    // Without storage it ends with the page.
  }
}
