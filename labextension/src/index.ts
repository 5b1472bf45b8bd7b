/** The plugins: a model of what is served, and each way to see it, on its own. */
import {
  ILayoutRestorer,
  JupyterFrontEnd,
  JupyterFrontEndPlugin
} from '@jupyterlab/application';
import { ICommandPalette } from '@jupyterlab/apputils';
import { ILauncher } from '@jupyterlab/launcher';
import { IRunningSessionManagers } from '@jupyterlab/running';
import { ISettingRegistry } from '@jupyterlab/settingregistry';
import { IStatusBar } from '@jupyterlab/statusbar';
import { Signal } from '@lumino/signaling';

import { AgentsApi } from './api';
import { addCommands, CommandIDs } from './commands';
import { agentsIconUrl } from './icons';
import { inspectors } from './inspectors';
import { AgentsModel, IAgentsModel, PLUGIN } from './model';
import { AgentsPanel } from './panel';
import { RunningAgents } from './running';
import { AgentsStatus } from './status';

const CATEGORY = 'Agents';

const model: JupyterFrontEndPlugin<AgentsModel> = {
  id: PLUGIN,
  description:
    'Keeps what is served as agents up to date, and adds the commands.',
  provides: IAgentsModel,
  optional: [ISettingRegistry, ICommandPalette, ILauncher],
  autoStart: true,
  activate: (
    app: JupyterFrontEnd,
    registry: ISettingRegistry | null,
    palette: ICommandPalette | null,
    launcher: ILauncher | null
  ): AgentsModel => {
    const agents = new AgentsModel(
      new AgentsApi(app.serviceManager.serverSettings)
    );
    addCommands(app, agents);
    Object.values(CommandIDs).forEach(command => {
      palette?.addItem({
        command,
        category: CATEGORY,
        args: { isPalette: true }
      });
    });
    launcher?.add({
      command: CommandIDs.newNotebook,
      category: 'Notebook',
      rank: 90,
      kernelIconUrl: agentsIconUrl
    });
    void followSettings(agents, registry);
    return agents;
  }
};

const panel: JupyterFrontEndPlugin<void> = {
  id: 'jupyter-agents:panel',
  description: 'The side bar "Agents".',
  requires: [IAgentsModel],
  optional: [ILayoutRestorer],
  autoStart: true,
  activate: (
    app: JupyterFrontEnd,
    agents: AgentsModel,
    restorer: ILayoutRestorer | null
  ): void => {
    const { commands, shell } = app;
    const widget = new AgentsPanel(agents, {
      open: address =>
        void commands.execute(CommandIDs.openInspector, { ...address }),
      openNotebook: path => void commands.execute('docmanager:open', { path }),
      copy: address =>
        void commands.execute(CommandIDs.copyAddress, { ...address }),
      newNotebook: () => void commands.execute(CommandIDs.newNotebook)
    });
    shell.add(widget, 'left', { rank: 350, type: 'Agents' });
    restorer?.add(widget, widget.id);
    commands.addCommand(CommandIDs.showPanel, {
      label: 'Show Agents',
      execute: () => shell.activateById(widget.id)
    });
  }
};

const running: JupyterFrontEndPlugin<void> = {
  id: 'jupyter-agents:running',
  description: 'The section "Agents" among the running terminals and kernels.',
  requires: [IAgentsModel],
  optional: [IRunningSessionManagers], // Notebook 7 has it on its file browser only
  autoStart: true,
  activate: (
    app: JupyterFrontEnd,
    agents: AgentsModel,
    managers: IRunningSessionManagers | null
  ): void => {
    managers?.add(new RunningAgents(agents, app.commands));
  }
};

const status: JupyterFrontEndPlugin<void> = {
  id: 'jupyter-agents:status',
  description: 'The count of connections in the status bar.',
  requires: [IAgentsModel],
  optional: [IStatusBar, ISettingRegistry], // Notebook 7 has no status bar
  autoStart: true,
  activate: (
    app: JupyterFrontEnd,
    agents: AgentsModel,
    bar: IStatusBar | null,
    registry: ISettingRegistry | null
  ): void => {
    if (!bar) {
      return;
    }
    const item = new AgentsStatus(
      agents,
      () => void app.commands.execute(CommandIDs.showPanel)
    );
    const changed = new Signal<AgentsStatus, void>(item);
    let isActive = true;
    bar.registerStatusItem('jupyter-agents:status', {
      item,
      align: 'left',
      rank: 4,
      isActive: () => isActive,
      activeStateChanged: changed
    });
    void registry?.load(PLUGIN).then(settings => {
      const read = () => {
        isActive = settings.get('showInStatusBar').composite as boolean;
        changed.emit();
      };
      settings.changed.connect(read);
      read();
    });
  }
};

/** Let the settings decide how the model follows the server; without settings it follows live. */
async function followSettings(
  agents: AgentsModel,
  registry: ISettingRegistry | null
): Promise<void> {
  const settings = await registry?.load(PLUGIN);
  const read = () => {
    agents.follow({
      live: settings?.get('updates').composite !== 'poll',
      pollSeconds:
        (settings?.get('pollSeconds').composite as number | undefined) ?? 10
    });
  };
  settings?.changed.connect(read);
  read();
}

export default [model, panel, inspectors, running, status];
