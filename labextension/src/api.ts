/**
 * The server's view of the agents: its REST API and its stream of events.
 *
 * The other half is `jupyter_agents/server/api.py`.
 */
import { URLExt } from '@jupyterlab/coreutils';
import { ServerConnection } from '@jupyterlab/services';

import type { Callable } from '../../jupyter_agents/static/call-form.js';

/** One agent that was used; asleep it lives in storage only, and wakes when it is used again. */
export interface IInstance {
  name: string;
  connections: number;
  state: 'awake' | 'asleep';
}

/** One class that a kernel serves. */
export interface IAgentClass {
  /** Its name in addresses. */
  agent: string;
  /** Its name in Python. */
  class: string;
  /** Parked: its kernel is away, and its connections wait. */
  state: 'live' | 'parked';
  instances: IInstance[];
}

/** One kernel that serves agents. */
export interface IHost {
  id: string;
  kernel_id: string | null;
  /** Path of its notebook below the server's root. */
  notebook: string | null;
  agents: IAgentClass[];
}

/** One open connection, as the server sees it. */
export interface IConnection {
  id: string;
  user: { name?: string; display_name?: string } | null;
  /** ISO 8601, UTC. */
  since: string;
  messages_in: number;
  messages_out: number;
  bytes_in: number;
  bytes_out: number;
  /** Bytes that the client has not taken yet. */
  queued_bytes: number;
  round_trip_s: number | null;
  /** The id, then the agent's own. */
  tags: string[];
  readonly: boolean;
}

/** All that is known of one instance; null where its kernel did not say. */
export interface IDetail {
  agent: string;
  class: string;
  name: string;
  state: 'live' | 'parked';
  connections: IConnection[];
  callables: Callable[] | null;
  state_kind: string | null;
}

/** Which instance: the address without the server. */
export interface IAddress {
  agent: string;
  name: string;
}

export type Action = 'close' | 'readonly' | 'stop' | 'reset';

/** The server answered, with an error; `status` is 404 where the server part is not installed. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    message: string
  ) {
    super(message);
  }
}

export class AgentsApi {
  constructor(readonly settings = ServerConnection.makeSettings()) {}

  /** Everything that is served. */
  async list(): Promise<IHost[]> {
    const answer = await this.request<{ hosts: IHost[] }>('GET');
    return answer.hosts;
  }

  /** One instance and its connections. */
  async detail({ agent, name }: IAddress): Promise<IDetail> {
    return this.request<IDetail>('GET', [agent, name]);
  }

  /** Do something to an instance or to one of its connections. */
  async act(
    { agent, name }: IAddress,
    action: Action,
    body: Record<string, unknown> = {}
  ): Promise<void> {
    await this.request('POST', [agent, name, action], body);
  }

  /** The stream of changes; whoever opens it closes it. */
  events(): WebSocket {
    const { wsUrl, token, appendToken, WebSocket } = this.settings;
    const url = URLExt.join(wsUrl, 'api/agents/events');
    const query =
      appendToken && token ? `?token=${encodeURIComponent(token)}` : '';
    return new WebSocket(url + query);
  }

  /** Where clients connect to an instance. */
  address({ agent, name }: IAddress): string {
    return this.under(this.settings.wsUrl, agent, name);
  }

  /** The built-in page that talks to an instance: what the address shows in a browser. */
  consolePage({ agent, name }: IAddress): string {
    return this.under(this.settings.baseUrl, agent, name);
  }

  private under(base: string, agent: string, name: string): string {
    const path = [agent, name].map(encodeURIComponent).join('/');
    return URLExt.join(base, 'agents', path);
  }

  private async request<T>(
    method: string,
    path: string[] = [],
    body?: unknown
  ): Promise<T> {
    const url = URLExt.join(
      this.settings.baseUrl,
      'api/agents',
      ...path.map(encodeURIComponent)
    );
    const init = {
      method,
      body: body === undefined ? undefined : JSON.stringify(body)
    };
    const response = await ServerConnection.makeRequest(
      url,
      init,
      this.settings
    );
    const text = await response.text();
    if (!response.ok) {
      throw new ApiError(
        response.status,
        reasonOf(text) || response.statusText
      );
    }
    return (text ? JSON.parse(text) : undefined) as T;
  }
}

/** The sentence in an error's JSON body, or its text. */
function reasonOf(text: string): string {
  try {
    const { error, message } = JSON.parse(text);
    return String(error ?? message ?? text);
  } catch {
    return text;
  }
}
