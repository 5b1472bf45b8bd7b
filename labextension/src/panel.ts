/** The side bar "Agents": a line that says how things stand, and the tree. */
import { addIcon, refreshIcon } from '@jupyterlab/ui-components';
import { Message } from '@lumino/messaging';
import { Widget } from '@lumino/widgets';

import { agentsIcon } from './icons';
import { AgentsModel, Source } from './model';
import { iconButton, ITreeActions, renderTree } from './tree';

const STATUS: Record<Source, string> = {
  starting: 'Asking the server …',
  live: '',
  polling: 'The live stream is off; asking now and then.',
  missing:
    'This server has no jupyter_agents. Install it in the server’s environment and restart.',
  offline: 'The server does not answer.'
};

export class AgentsPanel extends Widget {
  constructor(
    private readonly model: AgentsModel,
    private readonly actions: ITreeActions & { newNotebook(): void }
  ) {
    super();
    this.id = 'jupyter-agents';
    this.title.icon = agentsIcon;
    this.title.caption = 'Agents';
    this.addClass('jp-Agents');
    this.node.setAttribute('role', 'region');
    this.node.setAttribute('aria-label', 'Agents');
    this.node.append(this.header(), this.status, this.empty(), this.tree);
    model.changed.connect(() => this.update());
  }

  protected override onAfterShow(_: Message): void {
    this.update();
  }

  protected override onUpdateRequest(_: Message): void {
    if (!this.isVisible) {
      return;
    }
    const { hosts, source } = this.model;
    const known = source === 'live' || source === 'polling';
    this.status.textContent = STATUS[source];
    this.node.dataset.empty = String(known && hosts.length === 0);
    renderTree(this.tree, hosts, this.actions);
  }

  private header(): HTMLElement {
    const node = document.createElement('div');
    node.className = 'jp-Agents-header';
    const title = document.createElement('h2');
    title.textContent = 'Agents';
    node.append(
      title,
      iconButton(addIcon, 'New agent notebook', () =>
        this.actions.newNotebook()
      ),
      iconButton(refreshIcon, 'Refresh', () => void this.model.refresh())
    );
    return node;
  }

  private empty(): HTMLElement {
    const node = document.createElement('div');
    node.className = 'jp-Agents-empty';
    node.append(
      'No agents yet. Run a cell that ends with ',
      code('serve(MyAgent)'),
      ', or '
    );
    node.append(
      button('open an example', () => this.actions.newNotebook()),
      '.'
    );
    return node;
  }

  private readonly status = statusLine();
  private readonly tree = Object.assign(document.createElement('div'), {
    className: 'jp-Agents-tree'
  });
}

function statusLine(): HTMLElement {
  const node = document.createElement('div');
  node.className = 'jp-Agents-status';
  node.setAttribute('role', 'status');
  return node;
}

function button(label: string, action: () => void): HTMLElement {
  const node = document.createElement('button');
  node.className = 'jp-Agents-button';
  node.textContent = label;
  node.onclick = action;
  return node;
}

function code(text: string): HTMLElement {
  const node = document.createElement('code');
  node.textContent = text;
  return node;
}
