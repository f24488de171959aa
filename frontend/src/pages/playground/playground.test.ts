import { beforeEach, describe, expect, it } from 'vitest';
import type { Model } from '@/api/models';
import { sampleModel } from '@/api/models.sample';
import { dataOf, startingDraft, submissionOf } from './draft';
import { exampleOf } from './example';
import { readInput } from './InputField';
import { curl, python } from './snippets';

const model = (name: string, some: Partial<Model> = {}) => sampleModel({ model: name, ...some });

const draft = { model: 'echo:2', text: '{"a": 1}', priority: 'high', timeout: '' } as const;

beforeEach(() => sessionStorage.clear());

describe('a draft', () => {
  it('becomes a request', () => {
    expect(submissionOf(draft)).toEqual({
      data: { a: 1 },
      model: 'echo',
      model_version: 2,
      priority: 'high',
      timeout: null,
    });
    expect(submissionOf({ ...draft, model: 'echo', priority: 'normal', timeout: '60' })).toEqual({
      data: { a: 1 },
      model: 'echo',
    });
  });

  it('is no request while something is wrong in it', () => {
    for (const wrong of [{ text: '{' }, { text: '[1]' }, { timeout: '-1' }, { model: '' }]) {
      expect(submissionOf({ ...draft, ...wrong })).toBeNull();
    }
    expect(dataOf('[]')).toEqual({ wrong: 'The input must be a JSON object: {…}' });
  });

  it('starts with the default model, or with another that is ready', () => {
    const start = (state: string) =>
      startingDraft({
        model: null,
        request: undefined,
        models: [
          model('broken', { state: 'failed' }),
          model('echo'),
          model('main', { state, default: true }),
        ],
      }).model;
    expect(start('ready')).toBe('main');
    expect(start('failed')).toBe('echo');
  });

  it('starts from the address, or from what was there', () => {
    const models = [model('broken', { state: 'failed' }), model('echo')];
    sessionStorage.setItem('inferstack.draft', JSON.stringify(draft));
    expect(startingDraft({ model: null, request: undefined, models })).toEqual(draft);
    expect(startingDraft({ model: 'broken:1', request: undefined, models }).model).toBe('broken:1');
    const request = {
      data: { b: 2 },
      model: 'echo',
      model_version: 1,
      priority: 'low',
      timeout: null,
      metadata: null,
    } as const;
    const again = startingDraft({ model: null, request, models });
    expect(submissionOf(again)).toMatchObject({ data: { b: 2 }, priority: 'low', timeout: null });
  });
});

describe('an example', () => {
  it('has what the schema of the model requires', () => {
    const input_schema = {
      type: 'object',
      required: ['image', 'size', 'mode'],
      properties: {
        image: { type: 'array', items: { type: 'number' } },
        size: { type: 'integer', minimum: 8 },
        mode: { enum: ['fast', 'good'] },
        optional: { type: 'string' },
      },
    };
    expect(exampleOf(model('vision', { input_schema }))).toEqual({
      image: [1],
      size: 8,
      mode: 'fast',
    });
    expect(exampleOf(model('echo'))).toEqual({ text: 'Hello, world!' });
  });
});

describe('a file', () => {
  const file = (content: string, name: string) => new File([content], name);

  it('is taken as JSON, or as a text', async () => {
    expect(await readInput(file('{"a": 1}', 'a.json'))).toEqual({ text: '{"a": 1}' });
    expect(await readInput(file('plain', 'a.txt'))).toEqual({ text: '{\n  "text": "plain"\n}' });
  });

  it('is refused with a reason', async () => {
    expect(await readInput(file('{', 'a.json'))).toHaveProperty('wrong');
    expect(await readInput(file('\u0000PNG', 'a.png'))).toHaveProperty('wrong');
  });
});

describe('snippets', () => {
  const submission = {
    data: { text: "it's", on: true, none: null },
    model: 'echo',
    timeout: null,
  };

  it('quote for the shell', () => {
    expect(curl({ submission, url: 'http://h', token: true })).toBe(
      [
        'curl -s http://h/api/inference \\',
        '  -H "Authorization: Bearer $INFERSTACK_TOKEN" \\',
        "  -H 'Content-Type: application/json' -H 'Prefer: wait=30' \\",
        `  -d '{"data":{"text":"it'\\''s","on":true,"none":null},"model":"echo","timeout":null}'`,
      ].join('\n'),
    );
  });

  it('are Python, not JSON', () => {
    const text = python({ submission, url: 'http://h', token: false });
    expect(text).toContain('{"text": "it\'s", "on": True, "none": None},');
    expect(text).toContain('model="echo",');
    expect(text).toContain('timeout=None,');
    expect(text).not.toContain('TOKEN');
  });
});
