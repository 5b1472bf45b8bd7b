/** The extension's own icon. */
import { LabIcon } from '@jupyterlab/ui-components';

const AGENTS_SVG = `
<svg xmlns="http://www.w3.org/2000/svg" width="16" viewBox="0 0 24 24">
  <g class="jp-icon3" fill="#616161">
    <path d="M12 2a2 2 0 0 1 1 3.73V7h3a4 4 0 0 1 4 4v5a4 4 0 0 1-4 4h-1l-3 3-3-3H8a4 4 0 0 1-4-4v-5a4 4 0 0 1 4-4h3V5.73A2 2 0 0 1 12 2M8 9a2 2 0 0 0-2 2v5c0 1.1.9 2 2 2h8a2 2 0 0 0 2-2v-5a2 2 0 0 0-2-2z"/>
    <circle cx="9.2" cy="13" r="1.5"/>
    <circle cx="14.8" cy="13" r="1.5"/>
  </g>
</svg>`;

/** It follows the theme's colours. */
export const agentsIcon = new LabIcon({
  name: 'jupyter-agents:agents',
  svgstr: AGENTS_SVG
});

/** For the launcher's row of notebooks, which shows pictures: in the orange of notebooks. */
export const agentsIconUrl = `data:image/svg+xml,${encodeURIComponent(
  AGENTS_SVG.replace('#616161', '#f37726')
)}`;
