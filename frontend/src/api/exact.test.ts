import { describe, expect, it } from 'vitest';
import { parseExact, stringifyExact } from './exact';

describe('JSON of users', () => {
  it('is as it was', () => {
    const text = '{"a":[1,-2.5,0.1,1e-7,9007199254740991,true,null,"9007199254740993"],"b":{}}';
    expect(stringifyExact(parseExact(text))).toBe(text);
  });

  it('holds no number that is none any more', () => {
    expect(() => parseExact('[1e400]')).toThrow(RangeError);
  });

  it('is null where there is none', () => {
    expect(stringifyExact(undefined)).toBe('null');
  });
});
