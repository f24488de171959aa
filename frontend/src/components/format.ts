/** Numbers, times and ids as people read them. */

const whole = new Intl.NumberFormat('en-US');
const DASH = '–';

export function count(value: number | null | undefined): string {
  return value == null ? DASH : whole.format(value);
}

/** A number of things, whose name takes an `s` in the plural. */
export function counted(value: number, thing: string): string {
  return `${count(value)} ${thing}${value === 1 ? '' : 's'}`;
}

/** Tasks per second: three significant digits are enough. */
export function rate(value: number | null | undefined): string {
  if (value == null) return DASH;
  if (value === 0) return '0';
  if (value < 10) return value.toFixed(value < 1 ? 2 : 1);
  return whole.format(Math.round(value));
}

/** Milliseconds in the unit that suits them. */
export function milliseconds(value: number | null | undefined): string {
  if (value == null) return DASH;
  if (value === 0) return '0 ms';
  if (value < 10) return `${value.toFixed(value < 1 ? 2 : 1)} ms`;
  if (value < 1000) return `${Math.round(value)} ms`;
  return seconds(value / 1000);
}

export function seconds(value: number | null | undefined): string {
  if (value == null) return DASH;
  if (value < 1) return milliseconds(value * 1000);
  if (value < 60) return `${value.toFixed(value < 10 ? 2 : 1)} s`;
  const rounded = Math.round(value);
  if (rounded < 3600) return pair(rounded, 'min', 60, 's', 1);
  if (rounded < 86_400) return pair(rounded, 'h', 3600, 'min', 60);
  return pair(rounded, 'd', 86_400, 'h', 3600);
}

/** A time in two units; in one where nothing is left for the other. */
function pair(
  value: number,
  large: string,
  inLarge: number,
  small: string,
  inSmall: number,
): string {
  const rest = Math.floor((value % inLarge) / inSmall);
  return `${Math.floor(value / inLarge)} ${large}${rest ? ` ${rest} ${small}` : ''}`;
}

/** How long something has lasted, in whole seconds. */
export function age(value: number): string {
  return value < 60 ? `${Math.floor(value)} s` : seconds(Math.floor(value));
}

export function bytes(value: number | null | undefined): string {
  if (value == null) return DASH;
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let [size, unit] = [value, 0];
  while (size >= 1024 && unit < units.length - 1) {
    size /= 1024;
    unit += 1;
  }
  return `${unit === 0 || size >= 100 ? Math.round(size) : size.toFixed(1)} ${units[unit]}`;
}

export function percent(share: number | null | undefined): string {
  return share == null ? DASH : `${Math.round(share * 100)} %`;
}

/** The end of a task id: its start is a time, which tasks of one moment share. */
export function shortId(taskId: string): string {
  return taskId.slice(-12);
}

/** The time of day if it is today, else the date as well. */
export function clock(iso: string, now = new Date()): string {
  const when = new Date(iso);
  const time = `${two(when.getHours())}:${two(when.getMinutes())}:${two(when.getSeconds())}`;
  if (when.toDateString() === now.toDateString()) return time;
  return `${when.getFullYear()}-${two(when.getMonth() + 1)}-${two(when.getDate())} ${time}`;
}

/** The same with milliseconds, for moments that lie close together. */
export function preciseClock(iso: string, now = new Date()): string {
  return `${clock(iso, now)}.${String(new Date(iso).getMilliseconds()).padStart(3, '0')}`;
}

function two(value: number): string {
  return String(value).padStart(2, '0');
}
