/** The section "Agents" in Lab's own panel of running terminals and kernels. */
import { IRunningSessions } from '@jupyterlab/running';
import { CommandRegistry } from '@lumino/commands';
import { ISignal, Signal } from '@lumino/signaling';

import { CommandIDs } from './commands';
import { agentsIcon } from './icons';
import { AgentsModel, IPlace } from './model';
import { hostLabel } from './tree';

export class RunningAgents implements IRunningSessions.IManager {
  constructor(
    private readonly model: AgentsModel,
    private readonly commands: CommandRegistry
  ) {
    model.changed.connect(() => this._changed.emit());
  }

  readonly name = 'Agents';
  readonly shutdownLabel = 'Stop';
  readonly shutdownAllLabel = 'Stop All';
  readonly shutdownAllConfirmationText =
    'Stop all agents? Their connections are closed; what they have stored stays.';

  get runningChanged(): ISignal<this, void> {
    return this._changed;
  }

  running(): IRunningSessions.IRunningItem[] {
    return this.model.places().map(place => this.item(place));
  }

  refreshRunning(): void {
    void this.model.refresh();
  }

  shutdownAll(): void {
    void this.commands.execute(CommandIDs.restart, { confirmed: true });
  }

  private item({
    host,
    served,
    instance
  }: IPlace): IRunningSessions.IRunningItem {
    const address = { agent: served.agent, name: instance.name };
    return {
      className: 'jp-Agents-running',
      icon: () => agentsIcon,
      label: () => `${served.agent}/${instance.name}`,
      labelTitle: () => `${served.class} of ${hostLabel(host)}`,
      detail: () => `${instance.connections} connected`,
      open: () => void this.commands.execute(CommandIDs.openInspector, address),
      shutdown: () =>
        void this.commands.execute(CommandIDs.stop, {
          ...address,
          confirmed: true
        })
    };
  }

  private _changed = new Signal<this, void>(this);
}
