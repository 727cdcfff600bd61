// JSON calls to our own server: the CSRF token goes along, an ended session leads back to the login.

export interface Refusal {
  message: string;
  problems: Record<string, string>;
  status: number;
}

export class Refused extends Error {
  readonly refusal: Refusal;

  constructor(refusal: Refusal) {
    super(refusal.message);
    this.refusal = refusal;
  }
}

function token(): string {
  return document.querySelector<HTMLMetaElement>('meta[name="csrf-token"]')?.content ?? "";
}

function toLogin(): void {
  location.assign(`/login?next=${encodeURIComponent(location.pathname + location.search)}`);
}

async function answer<T>(response: Response): Promise<T> {
  if (response.status === 401) toLogin();
  const body: unknown = await response.json().catch(() => null);
  if (response.ok && body !== null) return body as T;
  const said = (body ?? {}) as { message?: string; problems?: Record<string, string> };
  throw new Refused({
    message: said.message ?? `The server answered ${response.status}.`,
    problems: said.problems ?? {},
    status: response.status,
  });
}

const OFFLINE = {
  message: "orderwire cannot be reached. Trying again is safe: the same order is never placed twice.",
  problems: {},
  status: 0,
};

async function ask<T>(path: string, options: RequestInit): Promise<T> {
  let response: Response;
  try {
    response = await fetch(path, { ...options, credentials: "same-origin", headers: { ...options.headers, Accept: "application/json" } });
  } catch {
    throw new Refused(OFFLINE);
  }
  return answer<T>(response);
}

export function get<T>(path: string, signal?: AbortSignal): Promise<T> {
  return ask<T>(path, signal ? { signal } : {});
}

export function post<T>(path: string, body: unknown, headers: Record<string, string> = {}): Promise<T> {
  return ask<T>(path, {
    method: "POST",
    body: JSON.stringify(body),
    headers: { "Content-Type": "application/json", "X-CSRFToken": token(), ...headers },
  });
}
