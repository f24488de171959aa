import { QueryClient, QueryClientProvider } from '@tanstack/react-query';
import { renderHook } from '@testing-library/react';
import { createElement, type ReactNode } from 'react';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { connectionWorks } from './connection';
import { submit, useRetry } from './tasks';

const receipt = { task_id: 't', status: 'queued', queue_position: 1, estimated_wait_time: 0 };
const lost = () => Promise.reject(new TypeError('Failed to fetch'));
const refused = async (status: number) => Response.json({ title: 'No' }, { status });
const accepted = async () => Response.json(receipt, { status: 202 });

const KEY = /^[0-9a-f]{32}$/;

/** Answers submissions one after another; returns the keys and the bodies that came. */
function serve(...answers: (() => Promise<Response>)[]) {
  const keys: (string | null)[] = [];
  const bodies: string[] = [];
  vi.stubGlobal('fetch', async (request: Request) => {
    if (request.method === 'GET') return new Response('{"data":{"n":1.0},"model":"echo"}');
    keys.push(request.headers.get('idempotency-key'));
    bodies.push(await request.text());
    return (answers.shift() ?? accepted)();
  });
  return { keys, bodies };
}

afterEach(connectionWorks);

describe('a submission', () => {
  it('keeps its key until there is a receipt, then gets another', async () => {
    const { keys } = serve(
      lost,
      () => refused(502),
      () => refused(503),
      () => refused(429),
    );
    const submission = { data: { a: 'kept' } };
    for (let i = 0; i < 4; i++) await expect(submit(submission)).rejects.toThrow();
    expect(await submit(submission)).toEqual(receipt);
    expect(keys[0]).toMatch(KEY);
    expect(keys).toEqual(Array(5).fill(keys[0]));
    await submit(submission);
    expect(keys[5]).not.toBe(keys[0]);
  });

  it('has a key of its own when it was changed', async () => {
    const { keys } = serve(lost);
    await expect(submit({ data: { a: 1 } })).rejects.toThrow();
    await submit({ data: { a: 2 } });
    expect(keys[1]).not.toBe(keys[0]);
    await submit({ data: { a: 1 } });
    expect(keys[2]).toBe(keys[0]);
  });

  it('that was refused at once has used no key', async () => {
    const { keys } = serve(() => refused(422));
    await expect(submit({ data: {} })).rejects.toThrow();
    await submit({ data: {} });
    expect(keys[1]).not.toBe(keys[0]);
  });
});

describe('a retry', () => {
  it('keeps its key, and sends exactly what the old task was asked for', async () => {
    const { keys, bodies } = serve(lost);
    const client = new QueryClient();
    const wrapper = ({ children }: { children: ReactNode }) =>
      createElement(QueryClientProvider, { client }, children);
    const { result } = renderHook(useRetry, { wrapper });
    await expect(result.current.mutateAsync('old')).rejects.toThrow();
    expect(await result.current.mutateAsync('old')).toEqual(receipt);
    expect(keys[0]).toMatch(KEY);
    expect(keys[1]).toBe(keys[0]);
    expect(bodies[1]).toBe('{"data":{"n":1.0},"model":"echo"}');
    await result.current.mutateAsync('another');
    expect(keys[2]).not.toBe(keys[0]);
  });
});
