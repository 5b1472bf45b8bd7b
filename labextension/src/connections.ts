/** The table of the connections to one instance; rows are kept, so that focus survives updates. */
import { bytesText, durationText, h } from '../../jupyter_agents/static/dom.js';
import {
  setSign,
  signButton
} from '../../jupyter_agents/widgets/static/icons.js';
import {
  agoText,
  countText,
  setText,
  shortId
} from '../../jupyter_agents/widgets/static/words.js';

import { IConnection } from './api';

/** From how many on there is a filter. */
const MANY = 10;

/** Rows at once: more cost the browser more than they help anybody. */
const MAX_ROWS = 200;

const NOBODY =
  'Nobody is connected. Open its console page, or connect a client to the address above.';
const NONE_FITS = 'No connection fits the filter.';

interface IColumn {
  heading: string;
  className: string;
  text(connection: IConnection): string;
  title?(connection: IConnection): string;
}

const NUMBER = 'jp-AgentInspector-number';
const EXTRA = `${NUMBER} jp-AgentInspector-extra`;

/** What follows the name. */
const COLUMNS: IColumn[] = [
  {
    heading: 'For',
    className: 'jp-AgentInspector-extra',
    text: ({ since }) => agoText(Date.parse(since) / 1000),
    title: ({ since }) => `Since ${new Date(since).toLocaleString()}`
  },
  {
    heading: 'Received',
    className: NUMBER,
    text: ({ messages_in }) => messages_in.toLocaleString('en'),
    title: ({ bytes_in }) => bytesText(bytes_in)
  },
  {
    heading: 'Sent',
    className: NUMBER,
    text: ({ messages_out }) => messages_out.toLocaleString('en'),
    title: ({ bytes_out }) => bytesText(bytes_out)
  },
  {
    heading: 'Queue',
    className: EXTRA,
    text: ({ queued_bytes }) => bytesText(queued_bytes)
  },
  {
    heading: 'Round trip',
    className: EXTRA,
    text: ({ round_trip_s: seconds }) =>
      seconds === null ? '–' : durationText(seconds * 1000)
  }
];

export interface IConnectionActions {
  close(connection: IConnection): void;
  /** Let it only read, or write again. */
  setReadonly(connection: IConnection, readonly: boolean): void;
  /** The id of the connection that the inspector itself has. */
  ownId(): string;
}

/** One connection's row; what its buttons act on is always the latest that is known. */
class Row {
  constructor(
    private connection: IConnection,
    private readonly actions: IConnectionActions
  ) {
    const { id } = connection;
    this.lock = signButton('unlock', `Make read-only: ${id}`, () =>
      actions.setReadonly(this.connection, !this.connection.readonly)
    );
    const close = signButton('close', `Close the connection ${id}`, () =>
      actions.close(this.connection)
    );
    this.cells = COLUMNS.map(({ className }) => h('td', { class: className }));
    const tools = h(
      'td',
      { class: 'jp-AgentInspector-tools' },
      this.lock,
      close
    );
    this.node = h('tr', {}, this.who, ...this.cells, tools);
  }

  readonly node: HTMLTableRowElement;

  update(connection: IConnection): void {
    this.connection = connection;
    this.showName(connection);
    COLUMNS.forEach(({ text, title }, column) => {
      setText(this.cells[column], text(connection));
      this.cells[column].title = title?.(connection) ?? '';
    });
    const { id, readonly } = connection;
    const verb = readonly ? 'Let write' : 'Make read-only';
    setSign(this.lock, readonly ? 'lock' : 'unlock', `${verb}: ${id}`);
    this.lock.setAttribute('aria-pressed', String(readonly));
  }

  private showName({ id, user, tags, readonly }: IConnection): void {
    const name = user?.display_name || user?.name || '';
    const chips = [
      ...(id === this.actions.ownId() ? ['this tab'] : []),
      ...tags.slice(1),
      ...(readonly ? ['read-only'] : [])
    ];
    const key = JSON.stringify([name, chips]);
    if (this.who.dataset.key !== key) {
      this.who.dataset.key = key;
      this.who.title = id;
      this.who.replaceChildren(
        ...(name ? [name, ' '] : []),
        h('code', {}, shortId(id)),
        ...chips.map(chip => h('span', { class: 'ja-tag' }, chip))
      );
    }
  }

  private readonly who = h('td', { class: 'jp-AgentInspector-who' });
  private readonly cells: HTMLTableCellElement[];
  private readonly lock: HTMLButtonElement;
}

export class ConnectionsTable {
  constructor(private readonly actions: IConnectionActions) {
    this.node.append(this.table, this.empty, this.more);
    this.filter.addEventListener('input', () => this.draw());
    this.update([]);
  }

  readonly node = h('div', { class: 'jp-AgentInspector-view' });

  /** Which of them to show; it stands where there are too many to look through. */
  readonly filter = h('input', {
    class: 'ja-input',
    type: 'search',
    placeholder: 'Filter',
    'aria-label': 'Filter connections',
    hidden: true
  });

  /** Show these connections, newest first; of very many only the newest that fit the filter. */
  update(connections: readonly IConnection[]): void {
    this.all = [...connections].sort((a, b) => b.since.localeCompare(a.since));
    this.filter.hidden = this.all.length < MANY && this.filter.value === '';
    this.draw();
  }

  private draw(): void {
    const wanted = this.filter.value.trim().toLowerCase();
    const fitting = wanted
      ? this.all.filter(one => textOf(one).includes(wanted))
      : this.all;
    const shown = fitting.slice(0, MAX_ROWS);
    const ids = new Set(shown.map(({ id }) => id));
    this.rows.forEach((row, id) => ids.has(id) || this.drop(row, id));
    shown.forEach((connection, index) => this.show(connection, index));
    this.table.hidden = shown.length === 0;
    this.empty.hidden = shown.length > 0;
    setText(this.empty, this.all.length > 0 ? NONE_FITS : NOBODY);
    const rest = fitting.length - shown.length;
    this.more.hidden = rest === 0;
    setText(this.more, `${countText(rest, 'older connection')} not shown`);
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

  private all: IConnection[] = [];
  private readonly rows = new Map<string, Row>();
  private readonly body = h('tbody');
  private readonly table = h(
    'table',
    { 'aria-label': 'Connections, newest first' },
    h(
      'thead',
      {},
      h(
        'tr',
        {},
        heading('Connection', 'jp-AgentInspector-who'),
        ...COLUMNS.map(({ heading: text, className }) =>
          heading(text, className)
        ),
        h('td', { class: 'jp-AgentInspector-tools' })
      )
    ),
    this.body
  );
  private readonly empty = h('p', { class: 'ja-hint' });
  private readonly more = h('p', { class: 'jp-AgentInspector-more' });
}

/** What the filter looks at. */
function textOf({ id, user, tags, readonly }: IConnection): string {
  const name = user?.display_name || user?.name || '';
  const flag = readonly ? 'read-only' : '';
  return [id, name, ...tags, flag].join(' ').toLowerCase();
}

function heading(text: string, className: string): HTMLElement {
  return h('th', { scope: 'col', class: className }, text);
}
