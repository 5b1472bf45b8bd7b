/** The table of the connections to one instance; rows are kept, so that focus survives updates. */
import {
  bytesText,
  clockTime,
  durationText,
  h
} from '../../jupyter_agents/static/dom.js';
import {
  setSign,
  signButton
} from '../../jupyter_agents/widgets/static/icons.js';

import { IConnection } from './api';

interface IColumn {
  heading: string;
  className?: string;
  text(connection: IConnection): string;
  title?(connection: IConnection): string;
}

const NUMBER = 'jp-AgentInspector-number';

const COLUMNS: IColumn[] = [
  {
    heading: 'Id',
    className: 'jp-AgentInspector-id',
    text: ({ id }) => id,
    title: ({ id }) => id
  },
  {
    heading: 'User',
    text: ({ user }) => user?.display_name || user?.name || '–'
  },
  { heading: 'Since', text: ({ since }) => clockTime(new Date(since)) },
  {
    heading: 'In',
    className: NUMBER,
    text: ({ messages_in }) => String(messages_in),
    title: ({ messages_in, bytes_in }) =>
      `${messages_in} messages, ${bytesText(bytes_in)}`
  },
  {
    heading: 'Out',
    className: NUMBER,
    text: ({ messages_out }) => String(messages_out),
    title: ({ messages_out, bytes_out }) =>
      `${messages_out} messages, ${bytesText(bytes_out)}`
  },
  { heading: 'Queue', className: NUMBER, text: c => bytesText(c.queued_bytes) },
  { heading: 'Trip', className: NUMBER, text: c => roundTrip(c.round_trip_s) },
  { heading: 'Tags', text: c => [...c.tags.slice(1), ...flags(c)].join(', ') }
];

export interface IConnectionActions {
  close(connection: IConnection): void;
  /** Let it only read, or write again. */
  setReadonly(connection: IConnection, readonly: boolean): void;
}

/** One connection's row; what its buttons act on is always the latest that is known. */
class Row {
  constructor(
    private connection: IConnection,
    actions: IConnectionActions
  ) {
    const { id } = connection;
    this.lock = signButton('unlock', `Make read-only: ${id}`, () =>
      actions.setReadonly(this.connection, !this.connection.readonly)
    );
    const close = signButton('close', `Close the connection ${id}`, () =>
      actions.close(this.connection)
    );
    const cells = COLUMNS.map(({ className }) => h('td', { class: className }));
    this.node = h('tr', {}, ...cells, h('td', {}, this.lock, close));
  }

  readonly node: HTMLTableRowElement;

  update(connection: IConnection): void {
    this.connection = connection;
    COLUMNS.forEach(({ text, title }, column) => {
      setText(this.node.cells[column], text(connection));
      this.node.cells[column].title = title?.(connection) ?? '';
    });
    const { id, readonly } = connection;
    const sign = readonly ? 'lock' : 'unlock';
    const verb = readonly ? 'Let write' : 'Make read-only';
    setSign(this.lock, sign, `${verb}: ${id}`);
    this.lock.setAttribute('aria-pressed', String(readonly));
  }

  private readonly lock: HTMLButtonElement;
}

export class ConnectionsTable {
  constructor(private readonly actions: IConnectionActions) {
    this.node.append(this.table, this.empty);
    this.update([]);
  }

  readonly node = h('div', { class: 'jp-AgentInspector-view' });

  /** Show these connections, newest first. */
  update(connections: readonly IConnection[]): void {
    const newestFirst = [...connections].sort((a, b) =>
      b.since.localeCompare(a.since)
    );
    const ids = new Set(connections.map(({ id }) => id));
    this.rows.forEach((row, id) => ids.has(id) || this.drop(row, id));
    newestFirst.forEach((connection, index) => this.show(connection, index));
    this.table.hidden = connections.length === 0;
    this.empty.hidden = connections.length > 0;
  }

  private show(connection: IConnection, index: number): void {
    const row =
      this.rows.get(connection.id) ?? new Row(connection, this.actions);
    this.rows.set(connection.id, row);
    row.update(connection);
    const { node } = row;
    if (this.body.children[index] !== node) {
      this.body.insertBefore(node, this.body.children[index] ?? null);
    }
  }

  private drop(row: Row, id: string): void {
    row.node.remove();
    this.rows.delete(id);
  }

  private readonly rows = new Map<string, Row>();
  private readonly body = h('tbody');
  private readonly table = h(
    'table',
    { 'aria-label': 'Connections' },
    h('thead', {}, h('tr', {}, ...COLUMNS.map(heading), h('td'))),
    this.body
  );
  private readonly empty = h('p', { class: 'ja-hint' }, 'Nobody is connected.');
}

function heading({ heading, className }: IColumn): HTMLElement {
  return h('th', { scope: 'col', class: className }, heading);
}

function roundTrip(seconds: number | null): string {
  return seconds === null ? '–' : durationText(seconds * 1000);
}

function flags(connection: IConnection): string[] {
  return connection.readonly ? ['read-only'] : [];
}

function setText(node: HTMLElement, text: string): void {
  if (node.textContent !== text) {
    node.textContent = text;
  }
}
