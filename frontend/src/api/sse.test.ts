import { describe, expect, it } from 'vitest';
import { readEvents, type ServerEvent } from './sse';

function streamOf(...chunks: string[]): ReadableStream<Uint8Array> {
  const encoder = new TextEncoder();
  return new ReadableStream({
    start(controller) {
      for (const chunk of chunks) controller.enqueue(encoder.encode(chunk));
      controller.close();
    },
  });
}

async function all(stream: ReadableStream<Uint8Array>): Promise<ServerEvent[]> {
  const found: ServerEvent[] = [];
  for await (const event of readEvents(stream)) found.push(event);
  return found;
}

describe('readEvents', () => {
  it('finds events wherever the network cuts them', async () => {
    const text = 'event: sample\ndata: {"a":1}\n\nevent: sample\ndata: {"a":"é"}\n\n';
    const expected = [
      { event: 'sample', data: '{"a":1}' },
      { event: 'sample', data: '{"a":"é"}' },
    ];
    expect(await all(streamOf(text))).toEqual(expected);
    expect(await all(streamOf(...text))).toEqual(expected);
  });

  it('leaves out comments and an event that is not whole', async () => {
    expect(await all(streamOf(': hello\n\ndata: one\ndata:two\n\nevent: sample\ndata: '))).toEqual([
      { event: 'message', data: 'one\ntwo' },
    ]);
  });
});
