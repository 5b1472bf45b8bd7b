// One module out of the worker and the SDK, as workerd takes it; Node's and Cloudflare's own stay
// outside. workerd alone has no mail, of which the SDK only wants the name, and no module has a
// URL in it.
import { build } from "rolldown";

const MAIL = "cloudflare:email";

await build({
  input: "worker.js",
  platform: "node",
  external: [/^(cloudflare:(?!email)|node:)/],
  plugins: [
    {
      name: "for-workerd-alone",
      resolveId: (id) => (id === MAIL ? "no-mail" : null),
      load: (id) => (id === "no-mail" ? "export class EmailMessage {}" : null),
      renderChunk: (code) => code.replaceAll("import.meta.url", '"file:///worker.js"'),
    },
  ],
  resolve: { conditionNames: ["workerd", "worker", "import", "module", "default"] },
  output: { file: "dist/worker.js", format: "esm", codeSplitting: false },
  logLevel: "silent",
});
