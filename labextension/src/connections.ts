/** The table of the connections to one instance; rows are kept, so that focus survives updates. */
import {
  bytesText,
  clockTime,
  durationText,
  h,
  iconButton
} from '../../jupyter_agents/static/dom.js';

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

export class ConnectionsTable {
  constructor(private readonly close: (connection: IConnection) => void) {
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
    const row = this.rows.get(connection.id) ?? this.row(connection);
    this.rows.set(connection.id, row);
    COLUMNS.forEach(({ text, title }, column) => {
      setText(row.cells[column], text(connection));
      row.cells[column].title = title?.(connection) ?? '';
    });
    if (this.body.children[index] !== row) {
      this.body.insertBefore(row, this.body.children[index] ?? null);
    }
  }

  private row(connection: IConnection): HTMLTableRowElement {
    const cells = COLUMNS.map(({ className }) => h('td', { class: className }));
    const close = iconButton('×', `Close the connection ${connection.id}`, () =>
      this.close(connection)
    );
    return h('tr', {}, ...cells, h('td', {}, close));
  }

  private drop(row: HTMLTableRowElement, id: string): void {
    row.remove();
    this.rows.delete(id);
  }

  private readonly rows = new Map<string, HTMLTableRowElement>();
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
