/**
 * The inspector of one instance, in the main area: connections, messages, state, calls.
 *
 * Connections come from the server, which knows them even while the kernel is stuck; the rest by a
 * connection of the inspector's own, the same views and client that the console page has. That
 * connection is open while the tab is, and is listed like any other.
 */
import { Message } from '@lumino/messaging';
import { Widget } from '@lumino/widgets';

import { AgentClient } from '../../jupyter_agents/static/agent-client.js';
import {
  CallFormProps,
  mountCallForm
} from '../../jupyter_agents/static/call-form.js';
import { h } from '../../jupyter_agents/static/dom.js';
import { mountMessageLog } from '../../jupyter_agents/static/message-log.js';
import { mountStateTree } from '../../jupyter_agents/static/state-tree.js';
import { Action, IAddress, IDetail } from './api';
import { ConnectionsTable } from './connections';
import { AgentsModel } from './model';

/** How often the counts of the connections are asked for while the tab is in sight. */
const REFRESH_MS = 2000;

export interface IInspectorActions {
  copy(address: IAddress): void;
  openConsole(address: IAddress): void;
  report(error: unknown): void;
}

export class AgentInspector extends Widget {
  constructor(
    private readonly model: AgentsModel,
    readonly address: IAddress,
    private readonly actions: IInspectorActions,
    logSize: number
  ) {
    super();
    this.addClass('jp-AgentInspector');
    this.addClass('ja');
    this.log = mountMessageLog(this.places.log, { limit: logSize });
    this.tree = mountStateTree(this.places.state, {
      value: undefined,
      onChange: value =>
        void this.client.setState(value).catch(this.actions.report)
    });
    this.client = this.connect();
    this.node.append(
      this.header(),
      section('Connections', this.connections.filter, this.connections.node),
      section('State', this.places.state),
      section('Messages', this.places.log, this.sendBox()),
      section('Calls', this.places.calls)
    );
    model.changed.connect(this.update, this);
  }

  /** Keep this many messages. */
  set logSize(limit: number) {
    this.log.update({ limit });
  }

  override dispose(): void {
    if (!this.isDisposed) {
      window.clearInterval(this.timer);
      this.client.close();
      this.log.destroy();
      this.tree.destroy();
      super.dispose();
    }
  }

  protected override onAfterShow(_: Message): void {
    this.timer = window.setInterval(() => this.update(), REFRESH_MS);
    this.update();
  }

  protected override onAfterHide(_: Message): void {
    window.clearInterval(this.timer);
  }

  protected override onUpdateRequest(_: Message): void {
    if (this.isVisible) {
      void this.refresh();
    }
  }

  private connect(): AgentClient {
    const { wsUrl, token, appendToken } = this.model.api.settings;
    const server = new URL(wsUrl);
    const client = new AgentClient({
      ...this.address,
      host: server.host,
      protocol: server.protocol === 'wss:' ? 'wss' : 'ws',
      prefix: `${server.pathname.replace(/^\/+|\/+$/g, '')}/agents`.replace(
        /^\//,
        ''
      ),
      query: appendToken && token ? { token } : {},
      binaryType: 'arraybuffer',
      onStateUpdate: state => this.tree.update({ value: state }),
      onStateUpdateError: () => this.tree.update({ value: this.client.state }),
      onConnectionError: error =>
        this.say('closed', `Closed: ${error.code} ${error.reason}`)
    });
    client.addEventListener('open', () => this.say('live', 'Connected'));
    client.addEventListener('close', () =>
      this.say('parked', 'Reconnecting …')
    );
    client.addEventListener('suspended', () =>
      this.say('parked', 'The kernel is away')
    );
    client.addEventListener('resumed', () =>
      this.say('live', 'The kernel is back')
    );
    client.addEventListener('data', ({ data }) =>
      this.log.add({ direction: 'in', data })
    );
    client.ready.catch(() => undefined); // `onConnectionError` has said it
    return client;
  }

  private async refresh(): Promise<void> {
    try {
      const detail = await this.model.api.detail(this.address);
      if (!this.isDisposed) {
        this.connections.update(detail.connections);
        this.showCallables(detail.callables);
        this.tree.update({ fixedKeys: detail.state_kind === 'typed' });
      }
    } catch {
      // The light has said that the server or the agent is away
    }
  }

  private showCallables(callables: IDetail['callables']): void {
    if (callables === null) {
      return; // What was known may still be right
    }
    const known = JSON.stringify(callables);
    if (known === this.callables) {
      return;
    }
    this.callables = known;
    const call: CallFormProps['call'] = (method, args, { signal, onChunk }) =>
      this.client.call(method, args, { signal, stream: { onChunk } });
    const forms = callables.map((callable, index) => {
      const node = h('div');
      mountCallForm(node, { callable, call, open: index === 0 });
      return node;
    });
    const nothing = h(
      'p',
      { class: 'ja-hint' },
      'This agent has no callable methods.'
    );
    this.places.calls.replaceChildren(
      ...(forms.length > 0 ? forms : [nothing])
    );
  }

  private say(state: string, words: string): void {
    if (this.words !== words) {
      this.words = words;
      this.light.dataset.state = state;
      this.status.textContent = words;
      this.log.add({ direction: 'note', data: words });
    }
  }

  private header(): HTMLElement {
    const { agent, name } = this.address;
    const address = this.model.api.address(this.address);
    const act = (label: string, onclick: () => void) =>
      h('button', { type: 'button', class: 'ja-button', onclick }, label);
    return h(
      'div',
      {
        class: 'jp-AgentInspector-header',
        'aria-label': `${agent}/${name}`,
        role: 'group'
      },
      this.light,
      this.status,
      h(
        'span',
        { class: 'jp-AgentInspector-address', title: address },
        address
      ),
      act('Copy address', () => this.actions.copy(this.address)),
      act('Console page', () => this.actions.openConsole(this.address))
    );
  }

  private sendBox(): HTMLElement {
    const input = h('input', {
      class: 'ja-input',
      'aria-label': 'Message',
      placeholder: 'Write a message'
    });
    const onsubmit = (event: Event) => {
      event.preventDefault();
      const isWaiting = !this.client.send(input.value);
      this.log.add({ direction: 'out', data: input.value, isWaiting });
      input.value = '';
    };
    const send = h('button', { type: 'submit', class: 'ja-button' }, 'Send');
    return h(
      'form',
      { class: 'jp-AgentInspector-send', onsubmit },
      input,
      send
    );
  }

  private async act(
    action: Action,
    body: Record<string, unknown>
  ): Promise<void> {
    try {
      await this.model.api.act(this.address, action, body);
    } catch (error) {
      this.actions.report(error);
    }
    await this.refresh();
  }

  private readonly places = {
    calls: h('div', { class: 'jp-AgentInspector-view' }),
    log: h('div', { class: 'jp-AgentInspector-view' }),
    state: h('div', { class: 'jp-AgentInspector-view' })
  };
  private readonly connections = new ConnectionsTable({
    close: ({ id }) => void this.act('close', { id }),
    setReadonly: ({ id }, readonly) =>
      void this.act('readonly', { id, readonly }),
    ownId: () => this.client?.id ?? ''
  });
  private readonly light = h('span', { class: 'jp-Agents-light' });
  private readonly status = h('span', { role: 'status' }, 'Connecting …');
  private readonly log: ReturnType<typeof mountMessageLog>;
  private readonly tree: ReturnType<typeof mountStateTree>;
  private readonly client: AgentClient;
  private callables = '';
  private timer = 0;
  private words = '';
}

function section(title: string, ...children: HTMLElement[]): HTMLElement {
  return h('section', { 'aria-label': title }, h('h2', {}, title), ...children);
}
