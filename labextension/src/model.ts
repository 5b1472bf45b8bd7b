/**
 * What is served now, kept up to date: from the server's stream of events, or by asking now and
 * then while that stream is off or lost.
 */
import { Token } from '@lumino/coreutils';
import { IDisposable } from '@lumino/disposable';
import { ISignal, Signal } from '@lumino/signaling';

import { AgentsApi, ApiError, IAgentClass, IHost, IInstance } from './api';

/**
 * How the model learns of changes: `live` by the stream, `polling` by asking; `missing` says that
 * the server part is not installed, `offline` that the server does not answer.
 */
export type Source = 'starting' | 'live' | 'polling' | 'missing' | 'offline';

export interface IUpdates {
  live: boolean;
  pollSeconds: number;
}

/** An instance with everything above it. */
export interface IPlace {
  host: IHost;
  served: IAgentClass;
  instance: IInstance;
}

/** Where the settings are. */
export const PLUGIN = 'jupyter-agents:plugin';

export const IAgentsModel = new Token<AgentsModel>(
  'jupyter-agents:IAgentsModel',
  'What the kernels of this server serve as agents, and how it changes.'
);

export class AgentsModel implements IDisposable {
  constructor(readonly api: AgentsApi) {}

  /** Emitted after `hosts` or `source` has changed. */
  get changed(): ISignal<this, void> {
    return this._changed;
  }

  get hosts(): readonly IHost[] {
    return this._hosts;
  }

  get source(): Source {
    return this._source;
  }

  get isDisposed(): boolean {
    return this._isDisposed;
  }

  /** Every instance, in the order of the tree. */
  places(): IPlace[] {
    return this._hosts.flatMap(host =>
      host.agents.flatMap(served =>
        served.instances.map(instance => ({ host, served, instance }))
      )
    );
  }

  /** How many connections are open to all agents together. */
  connections(): number {
    return this.places().reduce(
      (sum, { instance }) => sum + instance.connections,
      0
    );
  }

  /** Start, or go on in another way. */
  follow(updates: IUpdates): void {
    this._updates = updates;
    this._closeStream();
    void this.refresh();
    if (updates.live) {
      this._openStream();
    }
  }

  /** Ask the server now. */
  async refresh(): Promise<void> {
    window.clearTimeout(this._timer);
    try {
      const hosts = await this.api.list();
      this._take(hosts, this._isStreaming() ? 'live' : 'polling');
    } catch (error) {
      const missing = error instanceof ApiError && error.status === 404;
      this._take([], missing ? 'missing' : 'offline');
    }
    if (!this._isStreaming() && !this._isDisposed) {
      this._timer = window.setTimeout(
        () => this._retry(),
        this._updates.pollSeconds * 1000
      );
    }
  }

  dispose(): void {
    this._isDisposed = true;
    this._closeStream();
    window.clearTimeout(this._timer);
    Signal.clearData(this);
  }

  private _retry(): void {
    if (this._updates.live && !this._stream) {
      this._openStream();
    }
    void this.refresh();
  }

  private _openStream(): void {
    const stream = this.api.events();
    this._stream = stream;
    stream.onmessage = event => {
      this._take((JSON.parse(event.data) as { hosts: IHost[] }).hosts, 'live');
    };
    stream.onclose = () => {
      if (this._stream === stream) {
        this._stream = null;
        // Also what tells a lost stream from a lost server
        void this.refresh();
      }
    };
  }

  private _closeStream(): void {
    const stream = this._stream;
    this._stream = null;
    stream?.close();
  }

  private _isStreaming(): boolean {
    return this._stream?.readyState === WebSocket.OPEN;
  }

  private _take(hosts: IHost[], source: Source): void {
    if (!this._isDisposed) {
      this._hosts = hosts;
      this._source = source;
      this._changed.emit();
    }
  }

  private _changed = new Signal<this, void>(this);
  private _hosts: readonly IHost[] = [];
  private _isDisposed = false;
  private _source: Source = 'starting';
  private _stream: WebSocket | null = null;
  private _timer = 0;
  private _updates: IUpdates = { live: true, pollSeconds: 10 };
}
