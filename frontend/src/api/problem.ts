/** RFC 9457 problem details, as every error of the API arrives, and what to do about them. */

export interface FieldError {
  field: string;
  message: string;
}

interface ProblemBody {
  type?: string;
  title?: string;
  detail?: string;
  task_id?: string | null;
  retry_after?: number | null;
  errors?: FieldError[] | null;
}

export class Problem extends Error {
  readonly status: number;
  /** Last part of the problem type, such as `queue-full`. */
  readonly slug: string;
  readonly title: string;
  readonly detail: string;
  readonly taskId: string | null;
  /** Seconds after which to come back. */
  readonly retryAfter: number | null;
  readonly errors: FieldError[];
  /** Whether the request was to change something: the page does not repeat it by itself. */
  readonly changes: boolean;

  constructor(status: number, body: ProblemBody, changes = false) {
    super(body.detail || body.title || `the server answered ${status}`);
    this.name = 'Problem';
    this.status = status;
    this.slug = body.type?.split('/').pop() ?? '';
    this.title = body.title || `The server answered ${status}`;
    this.detail = body.detail ?? '';
    this.taskId = body.task_id ?? null;
    this.retryAfter = body.retry_after ?? null;
    this.errors = body.errors ?? [];
    this.changes = changes;
  }
}

/** No answer came at all. */
export class ConnectionLost extends Error {
  /** As of a `Problem`. */
  readonly changes: boolean;

  constructor(changes = false) {
    super('the server cannot be reached');
    this.name = 'ConnectionLost';
    this.changes = changes;
  }
}

/** A stream stays open, but nothing comes. */
export class Silence extends Error {
  constructor(seconds: number) {
    super(`Nothing came for ${seconds} s`);
    this.name = 'Silence';
  }
}

export async function problemOf(response: Response, changes: boolean): Promise<Problem> {
  const isJson = response.headers.get('content-type')?.includes('json');
  const body: ProblemBody = isJson ? await response.json().catch(() => ({})) : {};
  return new Problem(response.status, body, changes);
}

const ADVICE: Record<string, string> = {
  unauthenticated: 'Sign in again.',
  forbidden: 'Ask an administrator for access.',
  'invalid-input': 'Correct the input and send it again.',
  'model-not-found': 'Choose a model from the Models page.',
  'task-not-found': 'It may have been removed after its retention, or belongs to somebody else.',
  'payload-too-large': 'Send a smaller input, or have MAX_BODY_BYTES raised.',
  'tenant-queue-full': 'Wait until some of your tasks are done, or cancel some.',
  'queue-full': 'Wait, or send it with a higher priority.',
  'circuit-open': 'The model keeps failing. See its latest failures under Dead letters.',
  'deployment-unavailable': 'See the Models page for its state.',
  'deadline-unreachable': 'Send it with a longer timeout, or a higher priority.',
  'queue-unavailable': 'Redis does not answer. Accepted tasks are safe.',
  'storage-unavailable': 'PostgreSQL or the object store does not answer. Inference goes on.',
  'login-unavailable': 'Set SECRET_KEY on the server; local calls need no login.',
  'not-a-dead-letter': 'It may have been redriven or purged meanwhile. Reload the list.',
  'not-archived-yet': 'Try again in a second.',
};

/** What to do where nobody knows what became of a request. Each change is safe to repeat. */
function repeat({ changes }: { changes: boolean }): string {
  return changes
    ? 'The request may have arrived. Repeat it: nothing is done twice.'
    : 'This page tries again by itself.';
}

/** What somebody can do about an error, in a few sentences. */
export function advice(error: unknown): string {
  if (error instanceof ConnectionLost) {
    return `Check that inferstack runs and that you are online. ${repeat(error)}`;
  }
  if (error instanceof Silence) {
    return 'It is tried again. If other pages work, a proxy may hold the stream back.';
  }
  if (!(error instanceof Problem)) return 'Reload the page. If it comes back, report it.';
  const known = ADVICE[error.slug];
  const later = error.retryAfter ? `Try again in ${Math.ceil(error.retryAfter)} s.` : '';
  const again = error.slug === 'queue-unavailable' && repeat(error);
  if (known || later) return [known, again, later].filter(Boolean).join(' ');
  if (error.status >= 500) return 'Try again. If it stays so, the log of the API says why.';
  return 'Correct the request and try again.';
}

export function titleOf(error: unknown): string {
  if (error instanceof Problem) return error.title;
  if (error instanceof ConnectionLost) return 'The server cannot be reached';
  if (error instanceof Silence) return 'No live figures arrive';
  return 'Something went wrong on this page';
}

export function detailOf(error: unknown): string {
  if (error instanceof Problem) return error.detail;
  if (error instanceof ConnectionLost) return '';
  return error instanceof Error ? error.message : String(error);
}
