/**
 * The tree of what is served: notebook → class → instances, as plain DOM.
 *
 * An update changes what differs and leaves the other nodes alone, so that focus, scrolling and
 * what is folded survive it. Groups are `<details>`: the browser makes them usable by keyboard and
 * screen reader.
 */
import { PathExt } from '@jupyterlab/coreutils';
import { copyIcon, LabIcon } from '@jupyterlab/ui-components';

import { IAddress, IAgentClass, IHost, IInstance } from './api';

export interface ITreeActions {
  /** Open the instance. */
  open(address: IAddress): void;
  /** Show the notebook that serves. */
  openNotebook(path: string): void;
  /** Copy where clients connect to. */
  copy(address: IAddress): void;
}

/** Bring the children of `root` up to date with the hosts. */
export function renderTree(
  root: HTMLElement,
  hosts: readonly IHost[],
  actions: ITreeActions
): void {
  reconcile(
    root,
    hosts,
    host => host.id,
    hostNode(actions),
    updateHost(actions)
  );
}

/** The address that a node of the tree carries, if it is an instance's. */
export function addressOf(node: HTMLElement | undefined): IAddress | null {
  const { agent, name } = node?.dataset ?? {};
  return agent !== undefined && name !== undefined ? { agent, name } : null;
}

/** Where a kernel's agents come from, in words. */
export function hostLabel(host: IHost): string {
  return host.notebook
    ? PathExt.basename(host.notebook)
    : 'Kernel without a notebook';
}

function hostNode(actions: ITreeActions) {
  return (host: IHost): HTMLElement => {
    const node = group('jp-Agents-host', hostLabel(host));
    node.querySelector('summary')!.ondblclick = () => {
      if (node.dataset.notebook) {
        actions.openNotebook(node.dataset.notebook);
      }
    };
    return node;
  };
}

function updateHost(actions: ITreeActions) {
  return (node: HTMLElement, host: IHost): void => {
    node.dataset.notebook = host.notebook ?? '';
    setText(node, '.jp-Agents-label', hostLabel(host));
    setTitle(node, host.notebook ?? `Kernel ${host.kernel_id ?? host.id}`);
    reconcile(
      node.querySelector<HTMLElement>('.jp-Agents-children')!,
      host.agents,
      served => served.agent,
      served => group('jp-Agents-class', served.class),
      updateClass(actions)
    );
  };
}

function updateClass(actions: ITreeActions) {
  return (node: HTMLElement, served: IAgentClass): void => {
    const count = served.instances.length;
    node.dataset.agent = served.agent;
    setText(node, '.jp-Agents-label', served.class);
    setText(
      node,
      '.jp-Agents-count',
      count === 0
        ? 'none yet'
        : count === 1
          ? '1 instance'
          : `${count} instances`
    );
    setTitle(node, `agents/${served.agent}/…`);
    const isLive = served.state === 'live';
    setLight(node, served.state, isLive ? 'live' : 'its kernel is away');
    reconcile(
      node.querySelector<HTMLElement>('.jp-Agents-children')!,
      served.instances,
      instance => instance.name,
      instance =>
        instanceNode({ agent: served.agent, name: instance.name }, actions),
      updateInstance
    );
  };
}

function instanceNode(address: IAddress, actions: ITreeActions): HTMLElement {
  const node = element('div', 'jp-Agents-instance');
  Object.assign(node.dataset, address);
  const open = element('button', 'jp-Agents-open');
  open.append(
    element('span', 'jp-Agents-light'),
    element('span', 'jp-Agents-label')
  );
  open.append(element('span', 'jp-Agents-count'));
  open.onclick = () => actions.open(address);
  const label = `Copy the address of ${address.agent}/${address.name}`;
  const copy = iconButton(copyIcon, label, () => actions.copy(address));
  node.append(open, copy);
  return node;
}

function updateInstance(node: HTMLElement, instance: IInstance): void {
  const { connections, name, state } = instance;
  setText(node, '.jp-Agents-label', name);
  setText(
    node,
    '.jp-Agents-count',
    connections === 1 ? '1 connection' : `${connections} connections`
  );
  setTitle(node, `agents/${node.dataset.agent}/${name}`);
  setLight(node, state, state);
}

function group(className: string, label: string): HTMLElement {
  const node = element('details', className);
  node.setAttribute('open', '');
  const summary = element('summary', 'jp-Agents-summary');
  const name = element('span', 'jp-Agents-label');
  name.textContent = label;
  summary.append(
    element('span', 'jp-Agents-light'),
    name,
    element('span', 'jp-Agents-count')
  );
  const children = element('div', 'jp-Agents-children');
  children.setAttribute('role', 'group');
  children.setAttribute('aria-label', label);
  node.append(summary, children);
  return node;
}

/** Make the children of `parent` those of the items, in order, and reuse the nodes that are there. */
function reconcile<T>(
  parent: HTMLElement,
  items: readonly T[],
  keyOf: (item: T) => string,
  create: (item: T) => HTMLElement,
  update: (node: HTMLElement, item: T) => void
): void {
  const old = new Map<string, HTMLElement>();
  for (const child of Array.from(parent.children) as HTMLElement[]) {
    old.set(child.dataset.key ?? '', child);
  }
  items.forEach((item, index) => {
    const key = keyOf(item);
    const node = old.get(key) ?? create(item);
    old.delete(key);
    node.dataset.key = key;
    update(node, item);
    if (parent.children[index] !== node) {
      parent.insertBefore(node, parent.children[index] ?? null);
    }
  });
  old.forEach(node => node.remove());
}

/** A button that shows one of Lab's icons and says what it does. */
export function iconButton(
  icon: LabIcon,
  label: string,
  onclick: () => void
): HTMLElement {
  const node = element('button', 'jp-Agents-iconButton');
  node.title = label;
  node.setAttribute('aria-label', label);
  node.onclick = onclick;
  icon.element({ container: node, stylesheet: 'toolbarButton' });
  return node;
}

function element<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  className: string
): HTMLElementTagNameMap[K] {
  const node = document.createElement(tag);
  node.className = className;
  return node;
}

function setText(node: HTMLElement, selector: string, text: string): void {
  const target = node.querySelector(selector);
  if (target && target.textContent !== text) {
    target.textContent = text;
  }
}

function setTitle(node: HTMLElement, title: string): void {
  const target = node.querySelector<HTMLElement>('.jp-Agents-summary') ?? node;
  target.title = title;
}

function setLight(node: HTMLElement, state: string, words: string): void {
  const light = node.querySelector<HTMLElement>('.jp-Agents-light')!;
  light.dataset.state = state;
  light.title = words;
  light.setAttribute('role', 'img');
  light.setAttribute('aria-label', words);
}
