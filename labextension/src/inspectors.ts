/** The plugin that opens inspectors, one per instance, and finds them again after a reload. */
import {
  ILayoutRestorer,
  JupyterFrontEnd,
  JupyterFrontEndPlugin
} from '@jupyterlab/application';
import {
  MainAreaWidget,
  Notification,
  WidgetTracker
} from '@jupyterlab/apputils';
import { ISettingRegistry } from '@jupyterlab/settingregistry';

import { IAddress } from './api';
import { CommandIDs, targetOf } from './commands';
import { agentsIcon } from './icons';
import { AgentInspector, IInspectorActions } from './inspector';
import { AgentsModel, IAgentsModel, PLUGIN } from './model';

type Tab = MainAreaWidget<AgentInspector>;

const DEFAULT_LOG_SIZE = 500;

export const inspectors: JupyterFrontEndPlugin<void> = {
  id: 'jupyter-agents:inspector',
  description:
    'A tab that shows one agent: connections, state, messages and calls.',
  requires: [IAgentsModel],
  optional: [ILayoutRestorer, ISettingRegistry],
  autoStart: true,
  activate: (
    app: JupyterFrontEnd,
    model: AgentsModel,
    restorer: ILayoutRestorer | null,
    registry: ISettingRegistry | null
  ): void => {
    const tracker = new WidgetTracker<Tab>({ namespace: 'jupyter-agents' });
    const logSize = followLogSize(tracker, registry);
    app.commands.addCommand(CommandIDs.openInspector, {
      label: 'Open Agent Inspector',
      caption: 'Show connections, state, messages and calls of an agent',
      isEnabled: args => targetOf(app, model, args) !== null,
      execute: async args => {
        const address = targetOf(app, model, args);
        if (address) {
          const tab =
            find(tracker, address) ??
            open(app, model, address, await logSize());
          if (!tab.isAttached) {
            app.shell.add(tab, 'main', { type: 'Agent Inspector' });
          }
          if (!tab.isAttached) {
            // Notebook 7's main area holds its notebook and nothing else
            tab.dispose();
            await app.commands.execute(CommandIDs.openConsole, { ...address });
            return;
          }
          if (!tracker.has(tab)) {
            await tracker.add(tab);
          }
          app.shell.activateById(tab.id);
        }
      }
    });
    void restorer?.restore(tracker, {
      command: CommandIDs.openInspector,
      args: ({ content }) => ({ ...content.address }),
      name: ({ content }) => keyOf(content.address)
    });
  }
};

function open(
  app: JupyterFrontEnd,
  model: AgentsModel,
  address: IAddress,
  logSize: number
): Tab {
  const actions: IInspectorActions = {
    copy: ({ agent, name }) =>
      void app.commands.execute(CommandIDs.copyAddress, { agent, name }),
    openConsole: ({ agent, name }) =>
      void app.commands.execute(CommandIDs.openConsole, { agent, name }),
    report: error => void Notification.error(String((error as Error).message))
  };
  const content = new AgentInspector(model, address, actions, logSize);
  const tab = new MainAreaWidget({ content });
  tab.id = `jupyter-agents-inspector-${keyOf(address)}`;
  tab.title.label = `${address.agent}/${address.name}`;
  tab.title.icon = agentsIcon;
  tab.title.closable = true;
  tab.addClass('jp-AgentInspectorTab');
  tab.toolbar.hide(); // there is nothing in it
  return tab;
}

function find(
  tracker: WidgetTracker<Tab>,
  { agent, name }: IAddress
): Tab | undefined {
  return tracker.find(
    ({ content: { address } }) =>
      address.agent === agent && address.name === name
  );
}

function keyOf({ agent, name }: IAddress): string {
  return `${agent}/${encodeURIComponent(name)}`;
}

/** Apply the setting to the open inspectors; what is returned asks for its present value. */
function followLogSize(
  tracker: WidgetTracker<Tab>,
  registry: ISettingRegistry | null
): () => Promise<number> {
  const loaded = registry?.load(PLUGIN);
  const read = (settings?: ISettingRegistry.ISettings) =>
    (settings?.get('logSize').composite as number | undefined) ??
    DEFAULT_LOG_SIZE;
  void loaded?.then(settings => {
    settings.changed.connect(() => {
      tracker.forEach(({ content }) => (content.logSize = read(settings)));
    });
  });
  return async () => read(await loaded);
}
