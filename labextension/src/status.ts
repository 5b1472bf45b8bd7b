/** The status bar's item: how many connections are open to agents. */
import { Message } from '@lumino/messaging';
import { Widget } from '@lumino/widgets';

import { agentsIcon } from './icons';
import { AgentsModel } from './model';

export class AgentsStatus extends Widget {
  constructor(
    private readonly model: AgentsModel,
    open: () => void
  ) {
    super({ node: document.createElement('button') });
    this.addClass('jp-Agents-statusItem');
    this.node.onclick = open;
    agentsIcon.element({ container: this.icon, stylesheet: 'statusBar' });
    this.node.append(this.icon, this.text);
    model.changed.connect(() => this.update());
    this.update();
  }

  protected override onUpdateRequest(_: Message): void {
    const connections = this.model.connections();
    const agents = this.model.places().length;
    this.text.textContent = String(connections);
    this.node.title = `${count(connections, 'connection')} to ${count(agents, 'agent')}`;
    this.node.setAttribute('aria-label', this.node.title);
  }

  private readonly icon = document.createElement('span');
  private readonly text = document.createElement('span');
}

function count(n: number, word: string): string {
  return `${n} ${word}${n === 1 ? '' : 's'}`;
}
