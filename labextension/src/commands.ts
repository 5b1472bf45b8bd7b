/** Everything that can be done from the palette, the context menus and the launcher. */
import { JupyterFrontEnd } from '@jupyterlab/application';
import {
  Clipboard,
  Dialog,
  Notification,
  showDialog
} from '@jupyterlab/apputils';
import { ReadonlyPartialJSONObject } from '@lumino/coreutils';

import { Action, IAddress } from './api';
import { agentsIcon } from './icons';
import { AgentsModel } from './model';
import { agentNotebook } from './template';
import { addressOf } from './tree';

export const CommandIDs = {
  showPanel: 'agents:show-panel',
  newNotebook: 'agents:new-notebook',
  openInspector: 'agents:open-inspector',
  openConsole: 'agents:open-console',
  copyAddress: 'agents:copy-address',
  stop: 'agents:stop',
  reset: 'agents:reset',
  restart: 'agents:restart'
} as const;

/** Add the commands that need no widget of ours. */
export function addCommands(app: JupyterFrontEnd, model: AgentsModel): void {
  addNotebookCommand(app);
  addAddressCommands(app, model);
  addActions(app, model);
}

/**
 * Which instance a command means: its arguments, else what was right-clicked, else the only one
 * there is.
 */
export function targetOf(
  app: JupyterFrontEnd,
  model: AgentsModel,
  args: ReadonlyPartialJSONObject
): IAddress | null {
  if (typeof args.agent === 'string' && typeof args.name === 'string') {
    return { agent: args.agent, name: args.name };
  }
  const hit = app.contextMenuHitTest(node => addressOf(node) !== null);
  const places = model.places();
  const [only] = places.map(({ served, instance }) => ({
    agent: served.agent,
    name: instance.name
  }));
  return addressOf(hit) ?? (places.length === 1 ? only : null);
}

function addNotebookCommand(app: JupyterFrontEnd): void {
  const { commands, serviceManager } = app;
  commands.addCommand(CommandIDs.newNotebook, {
    label: args => (args.isPalette ? 'New Agent Notebook' : 'Agent Notebook'),
    caption: 'Create a notebook that defines and serves an agent',
    icon: args => (args.isPalette ? undefined : agentsIcon),
    execute: async args => {
      const { contents, kernelspecs } = serviceManager;
      await kernelspecs.ready;
      const kernel = kernelspecs.specs?.default ?? 'python3';
      const path = typeof args.cwd === 'string' ? args.cwd : '';
      const model = await contents.newUntitled({ path, type: 'notebook' });
      const content = agentNotebook(kernel);
      await contents.save(model.path, {
        type: 'notebook',
        format: 'json',
        content
      });
      return commands.execute('docmanager:open', {
        path: model.path,
        kernel: { name: kernel }
      });
    }
  });
}

function addAddressCommands(app: JupyterFrontEnd, model: AgentsModel): void {
  const { commands } = app;
  const isEnabled = (args: ReadonlyPartialJSONObject) =>
    targetOf(app, model, args) !== null;
  commands.addCommand(CommandIDs.copyAddress, {
    label: 'Copy Agent Address',
    caption: 'Copy where WebSocket clients connect to',
    isEnabled,
    execute: args => {
      const address = model.api.address(targetOf(app, model, args)!);
      Clipboard.copyToSystem(address);
      Notification.success(`Copied ${address}`, { autoClose: 2000 });
    }
  });
  commands.addCommand(CommandIDs.openConsole, {
    label: 'Open Agent Console Page',
    caption: 'Talk to the agent on a page of its own',
    isEnabled,
    execute: args => {
      window.open(
        model.api.consolePage(targetOf(app, model, args)!),
        '_blank',
        'noopener'
      );
    }
  });
}

function addActions(app: JupyterFrontEnd, model: AgentsModel): void {
  addAction(app, model, CommandIDs.stop, 'stop', {
    label: 'Stop Agent',
    question: 'Its connections are closed. What it has stored stays.'
  });
  addAction(app, model, CommandIDs.reset, 'reset', {
    label: 'Reset Agent',
    question: 'Everything it has stored is deleted. Its connections stay.'
  });
  app.commands.addCommand(CommandIDs.restart, {
    label: 'Restart Agents',
    caption:
      'Stop every instance of a class, or of all; each starts again when it is used',
    isEnabled: () => model.places().length > 0,
    execute: async args => {
      const hit = app.contextMenuHitTest(node =>
        node.classList.contains('jp-Agents-class')
      );
      const agent = args.agent ?? hit?.dataset.agent;
      const chosen = model
        .places()
        .filter(({ served }) => !agent || served.agent === agent);
      if (
        await confirm(
          'Restart Agents',
          `${chosen.length} will start afresh.`,
          args
        )
      ) {
        await Promise.all(
          chosen.map(({ served, instance }) =>
            perform(model, { agent: served.agent, name: instance.name }, 'stop')
          )
        );
      }
    }
  });
}

function addAction(
  app: JupyterFrontEnd,
  model: AgentsModel,
  id: string,
  action: Action,
  words: { label: string; question: string }
): void {
  app.commands.addCommand(id, {
    label: `${words.label} …`,
    isEnabled: args => targetOf(app, model, args) !== null,
    execute: async args => {
      const address = targetOf(app, model, args)!;
      const title = `${words.label} ${address.agent}/${address.name}?`;
      if (await confirm(title, words.question, args)) {
        await perform(model, address, action);
      }
    }
  });
}

/** Ask before something that cannot be undone; a caller that has asked says `confirmed`. */
async function confirm(
  title: string,
  body: string,
  args: ReadonlyPartialJSONObject
): Promise<boolean> {
  if (args.confirmed === true) {
    return true;
  }
  const buttons = [
    Dialog.cancelButton(),
    Dialog.warnButton({ label: 'Go on' })
  ];
  const result = await showDialog({ title, body, buttons });
  return result.button.accept;
}

async function perform(
  model: AgentsModel,
  address: IAddress,
  action: Action
): Promise<void> {
  try {
    await model.api.act(address, action);
  } catch (error) {
    Notification.error(
      `${address.agent}/${address.name}: ${(error as Error).message}`
    );
  }
  await model.refresh();
}
